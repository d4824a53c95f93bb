"""The only way in: conditions, keys, races, receipts, patches."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from event_store_contract import ANNA, EventStoreContract
from factories import ORIGINS, AzureConfigFactory, OpenAIConfigFactory
from memory_store import MemoryEventStore, MemoryViews
from msgspec.structs import replace
from views_contract import ViewsContract

from application.ledger import ATTEMPTS, Condition, Ledger
from application.patch import PatchModel, json_patch, merge_patch
from application.ports import Append, Idempotency, Look, Receipt
from domain.catalog import Command, Event
from domain.configuration import ModelConfig
from domain.default import DefaultChanged, SetDefault
from domain.errors import (
    DefaultProtected,
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidInput,
    ModelExists,
    ModelFrozen,
    ModelNotFound,
    PatchRefused,
    PreconditionFailed,
    Problem,
    StoreUnavailable,
)
from domain.model import CreateModel, DeleteModel, ModelUpdated, RestoreModel, RollBackModel, UpdateModel
from domain.values import DEFAULT_STREAM, ModelId, Stream, model_stream
from infrastructure.codec import Stored

GPT, OTHER = ModelId("gpt-4"), ModelId("other")
STREAM = model_stream(GPT)
FIRST = AzureConfigFactory.build(name="first", description="one")
SECOND = OpenAIConfigFactory.build(name="second")
KEY = Idempotency(ANNA.actor.id, "PUT", "/api/config/models/gpt-4", "k-1", b"fingerprint")
OTHER_REQUEST = replace(KEY, fingerprint=b"another request")

CREATE, UPDATE = CreateModel(GPT, FIRST), UpdateModel(GPT, SECOND)


class TestMemoryEventStore(EventStoreContract):
    @pytest.fixture
    def store(self) -> MemoryEventStore:
        return MemoryEventStore()


class TestMemoryViews(ViewsContract):
    @pytest.fixture
    def store(self) -> MemoryEventStore:
        return MemoryEventStore()

    @pytest.fixture
    def views(self, store: MemoryEventStore) -> MemoryViews:
        return MemoryViews(store)


class RacedStore(MemoryEventStore):
    """A store in which somebody else is faster: `others` run just before an append, one for each.

    `before_a_look` runs before the next look, once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[], Awaitable[object]]] = []
        self.before_a_look: Callable[[], Awaitable[object]] | None = None
        self.refused = self.looks = 0

    async def look(self, streams: Sequence[Stream]) -> Look:
        self.looks += 1
        other, self.before_a_look = self.before_a_look, None
        if other:
            await other()
        return await super().look(streams)

    async def append(self, append: Append) -> Receipt:
        if self.others:
            other = self.others.pop(0)
            mine, self.others = self.others, []
            await other()
            self.others = mine
        before = len(self.rows)
        try:
            return await super().append(append)
        finally:
            self.refused += bool(append.changes) and len(self.rows) == before


class HeldStore(MemoryEventStore):
    """A store whose appends wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.let_through = asyncio.Event(), asyncio.Event()

    async def append(self, append: Append) -> Receipt:
        self.reached.set()
        await self.let_through.wait()
        return await super().append(append)


def named(*aliases: str) -> ModelConfig:
    return replace(FIRST, aliases=aliases)


@pytest.fixture
def store() -> RacedStore:
    return RacedStore()


@pytest.fixture
def ledger(store: RacedStore) -> Ledger:
    return Ledger(store, ORIGINS)


def newest(store: MemoryEventStore, stream: Stream = STREAM) -> Event:
    return store.events(stream)[-1]


# Receipts


async def test_a_receipt_says_what_came_of_it_and_where_it_stands(ledger: Ledger, store: RacedStore) -> None:
    created = await ledger.execute(CREATE, ANNA)
    assert (created.status, created.model_id, created.version, created.position) == ("created", GPT, 1, 2)
    updated = await ledger.execute(UPDATE, ANNA)
    assert (updated.status, updated.version, updated.position) == ("updated", 2, 3)
    back = await ledger.execute(RollBackModel(GPT, 1, FIRST), ANNA)
    assert (back.status, back.version, back.position) == ("rolled_back", 3, 4)
    none = await ledger.execute(SetDefault(None), ANNA)
    assert (none.status, none.model_id, none.version, none.position) == ("updated", None, 2, 5)
    deleted = await ledger.execute(DeleteModel(GPT), ANNA)
    assert (deleted.status, deleted.version, deleted.position) == ("deleted", 4, 6)
    restored = await ledger.execute(RestoreModel(GPT, 1, FIRST), ANNA)
    assert (restored.status, restored.version, restored.position) == ("restored", 5, 8)
    assert restored.hash == store.rows[-1].place.hash


async def test_the_first_models_receipt_stands_at_the_model_not_at_the_default(
    ledger: Ledger, store: RacedStore
) -> None:
    receipt = await ledger.execute(CREATE, ANNA)
    assert [row.stream for row in store.rows] == [DEFAULT_STREAM, STREAM]
    assert store.rows[1].place.position == receipt.position
    assert store.rows[1].place.hash == receipt.hash


async def test_what_changes_nothing_records_nothing_and_stands_where_the_last_change_stands(
    ledger: Ledger, store: RacedStore
) -> None:
    created = await ledger.execute(CREATE, ANNA)
    await ledger.execute(CreateModel(OTHER, SECOND), ANNA)
    unchanged = await ledger.execute(UpdateModel(GPT, FIRST), ANNA)
    assert unchanged == replace(created, status="unchanged")
    assert len(store.rows) == 3


async def test_where_nothing_ever_was_an_unchanged_receipt_stands_at_zero(ledger: Ledger) -> None:
    assert await ledger.execute(SetDefault(None), ANNA) == Receipt("unchanged", None, 0, 0, "")


async def test_who_asked_and_why_is_recorded_with_each_event(ledger: Ledger, store: RacedStore) -> None:
    await ledger.execute(CREATE, ANNA)
    assert [row.context for row in store.rows] == [ANNA, ANNA]


async def test_a_refused_command_records_nothing(ledger: Ledger, store: RacedStore) -> None:
    with pytest.raises(ModelNotFound):
        await ledger.execute(UPDATE, ANNA, idempotency=KEY)
    assert store.rows == []
    assert store.answers == {}


# Conditions


@pytest.fixture
async def at_two(ledger: Ledger) -> Ledger:
    """A ledger with one model, the default, at version 2."""
    await ledger.execute(CREATE, ANNA)
    await ledger.execute(UPDATE, ANNA)
    return ledger


CHANGES: list[Command | PatchModel] = [
    UpdateModel(GPT, FIRST),
    RollBackModel(GPT, 1, FIRST),
    DeleteModel(GPT, new_default=OTHER),
    PatchModel(GPT, merge_patch({"name": "patched"})),
]


@pytest.mark.parametrize("command", CHANGES, ids=lambda command: type(command).__name__)
async def test_a_change_of_the_version_that_the_client_saw_is_accepted(
    at_two: Ledger, command: Command
) -> None:
    await at_two.execute(CreateModel(OTHER, FIRST), ANNA)
    seen = Condition(frozenset({1, 2}))
    assert (await at_two.execute(command, ANNA, condition=seen)).version == 3


@pytest.mark.parametrize("command", CHANGES, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize("named", [{1}, {1, 3}, {-1}])
async def test_a_change_of_another_version_is_refused_with_the_current_one(
    at_two: Ledger, store: RacedStore, command: Command, named: set[int]
) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        await at_two.execute(command, ANNA, condition=Condition(frozenset(named)))
    assert (refused.value.model_id, refused.value.named, refused.value.current) == (GPT, named, 2)
    assert store.version(STREAM) == 2


async def test_a_condition_is_looked_at_before_the_rules(at_two: Ledger) -> None:
    with pytest.raises(PreconditionFailed):
        await at_two.execute(DeleteModel(GPT), ANNA, condition=Condition(frozenset({1})))
    with pytest.raises(DefaultProtected):
        await at_two.execute(DeleteModel(GPT), ANNA, condition=Condition(frozenset({2})))


async def test_an_unchanged_update_of_another_version_is_refused_all_the_same(at_two: Ledger) -> None:
    with pytest.raises(PreconditionFailed):
        await at_two.execute(UPDATE, ANNA, condition=Condition(frozenset({1})))


async def test_any_version_will_do_when_the_client_says_so(at_two: Ledger) -> None:
    assert (await at_two.execute(UpdateModel(GPT, FIRST), ANNA, condition=Condition())).version == 3


async def test_a_model_that_is_not_there_is_refused_as_such_whatever_version_is_named(at_two: Ledger) -> None:
    with pytest.raises(ModelNotFound):
        await at_two.execute(UpdateModel(OTHER, FIRST), ANNA, condition=Condition(frozenset({7})))


async def test_a_model_is_created_only_where_the_client_saw_none(at_two: Ledger) -> None:
    none = Condition(absent=True)
    assert (await at_two.execute(CreateModel(OTHER, FIRST), ANNA, condition=none)).version == 1
    with pytest.raises(PreconditionFailed):
        await at_two.execute(CREATE, ANNA, condition=none)


async def test_a_deleted_model_is_absent(at_two: Ledger) -> None:
    await at_two.execute(SetDefault(None), ANNA)
    await at_two.execute(DeleteModel(GPT), ANNA)
    assert (await at_two.execute(CREATE, ANNA, condition=Condition(absent=True))).version == 4


@pytest.mark.parametrize("command", [CreateModel(GPT, FIRST), RestoreModel(GPT, 2, SECOND)])
async def test_what_brings_a_deleted_model_back_may_name_the_version_that_it_saw(
    at_two: Ledger, command: Command
) -> None:
    await at_two.execute(SetDefault(None), ANNA)
    await at_two.execute(DeleteModel(GPT), ANNA)
    with pytest.raises(PreconditionFailed) as refused:
        await at_two.execute(command, ANNA, condition=Condition(frozenset({2})))
    assert refused.value.current == 3
    assert (await at_two.execute(command, ANNA, condition=Condition(frozenset({3})))).version == 4


async def test_a_version_of_a_model_that_never_was_cannot_have_been_seen(ledger: Ledger) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        await ledger.execute(CREATE, ANNA, condition=Condition(frozenset({1})))
    assert refused.value.current == 0


async def test_the_default_pointer_has_versions_of_its_own(at_two: Ledger) -> None:
    await at_two.execute(CreateModel(OTHER, FIRST), ANNA)
    with pytest.raises(PreconditionFailed) as refused:
        await at_two.execute(SetDefault(OTHER), ANNA, condition=Condition(frozenset({2})))
    assert (refused.value.model_id, refused.value.current) == ("default", 1)
    moved = await at_two.execute(SetDefault(OTHER), ANNA, condition=Condition(frozenset({1})))
    assert moved.version == 2


# Keys


async def test_a_repeated_request_gets_the_first_answer_and_records_nothing(
    ledger: Ledger, store: RacedStore
) -> None:
    first = await ledger.execute(CREATE, ANNA, idempotency=KEY)
    await ledger.execute(UPDATE, ANNA)
    assert await ledger.execute(CREATE, ANNA, idempotency=KEY) == first
    assert store.version(STREAM) == 2


async def test_a_repeated_request_is_answered_without_a_decision(ledger: Ledger, store: RacedStore) -> None:
    first = await ledger.execute(CREATE, ANNA, idempotency=KEY)
    decided = store.looks
    assert await ledger.execute(CREATE, ANNA, idempotency=KEY) == first
    assert store.looks == decided > 0


async def test_a_request_that_is_refused_because_another_worker_did_it_gets_that_answer(
    ledger: Ledger, store: RacedStore
) -> None:
    answers: list[Receipt] = []

    async def other_worker() -> None:
        answers.append(await Ledger(store, ORIGINS).execute(CREATE, ANNA, idempotency=KEY))

    store.before_a_look = other_worker
    assert [await ledger.execute(CREATE, ANNA, idempotency=KEY)] == answers
    assert store.version(STREAM) == 1


async def test_a_key_is_looked_at_before_the_condition(at_two: Ledger) -> None:
    seen = Condition(frozenset({2}))
    first = await at_two.execute(UpdateModel(GPT, FIRST), ANNA, condition=seen, idempotency=KEY)
    assert first.version == 3
    again = await at_two.execute(UpdateModel(GPT, FIRST), ANNA, condition=seen, idempotency=KEY)
    assert again == first


async def test_an_unchanged_answer_is_repeated_too(at_two: Ledger) -> None:
    unchanged = await at_two.execute(UPDATE, ANNA, idempotency=KEY)
    assert unchanged.status == "unchanged"
    await at_two.execute(UpdateModel(GPT, FIRST), ANNA)
    assert await at_two.execute(UPDATE, ANNA, idempotency=KEY) == unchanged


async def test_a_key_that_served_another_request_is_refused(ledger: Ledger, store: RacedStore) -> None:
    await ledger.execute(CREATE, ANNA, idempotency=KEY)
    with pytest.raises(IdempotencyMismatch):
        await ledger.execute(UPDATE, ANNA, idempotency=OTHER_REQUEST)
    assert store.version(STREAM) == 1


async def test_a_key_can_be_used_again_after_a_refusal(ledger: Ledger) -> None:
    with pytest.raises(ModelNotFound):
        await ledger.execute(UPDATE, ANNA, idempotency=KEY)
    assert (await ledger.execute(CREATE, ANNA, idempotency=KEY)).status == "created"


async def test_a_second_request_is_refused_while_the_first_one_runs() -> None:
    store = HeldStore()
    ledger = Ledger(store, ORIGINS)
    first = asyncio.create_task(ledger.execute(CREATE, ANNA, idempotency=KEY))
    await store.reached.wait()
    for request in (KEY, OTHER_REQUEST):
        with pytest.raises(IdempotencyInFlight):
            await ledger.execute(CREATE, ANNA, idempotency=request)
    other_key = asyncio.create_task(
        ledger.execute(CreateModel(OTHER, SECOND), ANNA, idempotency=replace(KEY, key="k-2"))
    )
    store.let_through.set()
    answer = await first
    assert (await other_key).status == "created"
    assert await ledger.execute(CREATE, ANNA, idempotency=KEY) == answer


async def test_a_request_that_was_cancelled_leaves_its_key_free() -> None:
    store = HeldStore()
    ledger = Ledger(store, ORIGINS)
    first = asyncio.create_task(ledger.execute(CREATE, ANNA, idempotency=KEY))
    await store.reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    store.let_through.set()
    assert (await ledger.execute(CREATE, ANNA, idempotency=KEY)).status == "created"


async def test_of_two_workers_with_one_key_the_later_gets_the_earlier_ones_answer(
    ledger: Ledger, store: RacedStore
) -> None:
    answers: list[Receipt] = []

    async def other_worker() -> None:
        answers.append(await Ledger(store, ORIGINS).execute(CREATE, ANNA, idempotency=KEY))

    store.others = [other_worker]
    assert [await ledger.execute(CREATE, ANNA, idempotency=KEY)] == answers
    assert store.version(STREAM) == 1


# Races


def change_of(store: MemoryEventStore, command: Command | PatchModel) -> Callable[[], Awaitable[object]]:
    """Somebody else's change, by a ledger of their own."""
    return lambda: Ledger(store, ORIGINS).execute(command, ANNA)


async def test_a_change_that_lost_a_race_is_decided_anew(at_two: Ledger, store: RacedStore) -> None:
    store.others = [change_of(store, UpdateModel(GPT, replace(FIRST, name="other")))]
    receipt = await at_two.execute(UpdateModel(GPT, FIRST), ANNA)
    assert store.refused == 1
    assert (receipt.version, receipt.position) == (4, len(store.rows))
    assert newest(store) == ModelUpdated(FIRST)


async def test_a_change_that_lost_to_the_same_change_is_unchanged(at_two: Ledger, store: RacedStore) -> None:
    store.others = [change_of(store, UpdateModel(GPT, FIRST))]
    receipt = await at_two.execute(UpdateModel(GPT, FIRST), ANNA)
    assert (receipt.status, receipt.version, store.refused) == ("unchanged", 3, 1)


async def test_a_change_that_lost_a_race_is_refused_if_the_rules_refuse_it_now(
    at_two: Ledger, store: RacedStore
) -> None:
    await at_two.execute(SetDefault(None), ANNA)
    store.others = [change_of(store, DeleteModel(GPT))]
    with pytest.raises(ModelNotFound):
        await at_two.execute(UpdateModel(GPT, FIRST), ANNA)
    assert store.refused == 1


async def test_a_change_that_lost_a_race_does_not_pass_over_what_the_client_saw(
    at_two: Ledger, store: RacedStore
) -> None:
    store.others = [change_of(store, UpdateModel(GPT, replace(FIRST, name="other")))]
    with pytest.raises(PreconditionFailed) as refused:
        await at_two.execute(UpdateModel(GPT, FIRST), ANNA, condition=Condition(frozenset({2})))
    assert refused.value.current == 3


async def test_of_two_first_models_one_becomes_the_default(ledger: Ledger, store: RacedStore) -> None:
    store.others = [change_of(store, CreateModel(OTHER, SECOND))]
    await ledger.execute(CREATE, ANNA)
    assert store.refused == 1
    assert store.events(DEFAULT_STREAM) == [DefaultChanged(OTHER)]


async def test_a_model_that_becomes_the_default_meanwhile_is_not_deleted(
    at_two: Ledger, store: RacedStore
) -> None:
    await at_two.execute(CreateModel(OTHER, FIRST), ANNA)
    store.others = [change_of(store, SetDefault(OTHER))]
    with pytest.raises(DefaultProtected):
        await at_two.execute(DeleteModel(OTHER), ANNA)
    assert store.refused == 1


async def test_a_model_that_is_deleted_meanwhile_does_not_become_the_default(
    at_two: Ledger, store: RacedStore
) -> None:
    await at_two.execute(CreateModel(OTHER, FIRST), ANNA)
    store.others = [change_of(store, DeleteModel(OTHER))]
    with pytest.raises(ModelNotFound):
        await at_two.execute(SetDefault(OTHER), ANNA)


async def test_a_successor_that_is_deleted_meanwhile_does_not_take_over(
    at_two: Ledger, store: RacedStore
) -> None:
    await at_two.execute(CreateModel(OTHER, FIRST), ANNA)
    store.others = [change_of(store, DeleteModel(OTHER))]
    with pytest.raises(ModelNotFound) as refused:
        await at_two.execute(DeleteModel(GPT, new_default=OTHER), ANNA)
    assert refused.value.model_id == OTHER


async def test_a_name_that_is_taken_meanwhile_is_refused_with_its_owner(
    at_two: Ledger, store: RacedStore
) -> None:
    store.others = [change_of(store, CreateModel(OTHER, named("x")))]
    with pytest.raises(InvalidInput) as refused:
        await at_two.execute(UpdateModel(GPT, named("x")), ANNA)
    assert refused.value.problems == (
        Problem("/aliases/0", "name_taken", "'x' is an alias of model 'other'"),
    )
    assert store.refused == 1


async def test_an_alias_that_becomes_an_id_meanwhile_is_refused(at_two: Ledger, store: RacedStore) -> None:
    store.others = [change_of(store, CreateModel(OTHER, FIRST))]
    with pytest.raises(InvalidInput, match="the id of another model"):
        await at_two.execute(UpdateModel(GPT, named(OTHER)), ANNA)
    assert store.refused == 1


async def test_an_id_that_becomes_an_alias_meanwhile_is_refused(at_two: Ledger, store: RacedStore) -> None:
    store.others = [change_of(store, UpdateModel(GPT, named(OTHER)))]
    with pytest.raises(InvalidInput, match="an alias of model 'gpt-4'"):
        await at_two.execute(CreateModel(OTHER, FIRST), ANNA)
    assert store.refused == 1


async def test_a_loop_that_is_closed_meanwhile_is_refused(at_two: Ledger, store: RacedStore) -> None:
    third = ModelId("third")
    await at_two.execute(CreateModel(third, FIRST), ANNA)
    await at_two.execute(CreateModel(OTHER, replace(FIRST, fallbacks=(third,))), ANNA)
    store.others = [change_of(store, UpdateModel(third, replace(FIRST, fallbacks=(GPT,))))]
    with pytest.raises(InvalidInput, match="gpt-4 -> other -> third -> gpt-4"):
        await at_two.execute(UpdateModel(GPT, replace(FIRST, fallbacks=(OTHER,))), ANNA)
    assert store.refused == 1


async def test_a_fallback_that_is_deleted_meanwhile_is_refused(at_two: Ledger, store: RacedStore) -> None:
    await at_two.execute(CreateModel(OTHER, FIRST), ANNA)
    store.others = [change_of(store, DeleteModel(OTHER))]
    with pytest.raises(InvalidInput, match="there is no model 'other'"):
        await at_two.execute(UpdateModel(GPT, replace(FIRST, fallbacks=(OTHER,))), ANNA)
    assert store.refused == 1


async def test_a_change_wins_in_its_last_attempt(at_two: Ledger, store: RacedStore) -> None:
    store.others = [
        change_of(store, UpdateModel(GPT, replace(FIRST, name=f"other {number}")))
        for number in range(ATTEMPTS - 1)
    ]
    assert (await at_two.execute(UpdateModel(GPT, FIRST), ANNA)).version == 2 + ATTEMPTS
    assert store.refused == ATTEMPTS - 1


async def test_a_change_that_keeps_losing_is_given_up(at_two: Ledger, store: RacedStore) -> None:
    store.others = [
        change_of(store, UpdateModel(GPT, replace(FIRST, name=f"other {number}")))
        for number in range(ATTEMPTS)
    ]
    with pytest.raises(StoreUnavailable) as refused:
        await at_two.execute(UpdateModel(GPT, FIRST), ANNA)
    assert refused.value.code == "ledger_busy"
    assert store.refused == ATTEMPTS
    assert store.version(STREAM) == 2 + ATTEMPTS


async def test_many_changes_at_once_all_come_through(at_two: Ledger, store: RacedStore) -> None:
    patches = [
        PatchModel(GPT, merge_patch({field: value}))
        for field, value in (("name", "N"), ("description", "D"), ("max_tokens", 7), ("max_retries", 1))
    ]
    receipts = await asyncio.gather(*(at_two.execute(patch, ANNA) for patch in patches))
    assert sorted(receipt.version for receipt in receipts) == [3, 4, 5, 6]
    expected = ModelUpdated(replace(SECOND, name="N", description="D", max_tokens=7, max_retries=1))
    assert newest(store) == expected


# Patches


async def test_a_patch_changes_the_fields_that_it_names(at_two: Ledger, store: RacedStore) -> None:
    receipt = await at_two.execute(PatchModel(GPT, merge_patch({"name": "patched"})), ANNA)
    assert (receipt.status, receipt.model_id, receipt.version) == ("updated", GPT, 3)
    assert newest(store) == ModelUpdated(replace(SECOND, name="patched"))


async def test_a_patch_is_applied_anew_to_what_somebody_else_made_of_it(
    at_two: Ledger, store: RacedStore
) -> None:
    store.others = [change_of(store, PatchModel(GPT, merge_patch({"description": "theirs"})))]
    patch = PatchModel(GPT, json_patch([{"op": "replace", "path": "/name", "value": "mine"}]))
    await at_two.execute(patch, ANNA)
    assert store.refused == 1
    assert newest(store) == ModelUpdated(replace(SECOND, name="mine", description="theirs"))


async def test_a_tested_patch_is_refused_when_somebody_else_was_faster(
    at_two: Ledger, store: RacedStore
) -> None:
    store.others = [change_of(store, PatchModel(GPT, merge_patch({"name": "theirs"})))]
    operations = [
        {"op": "test", "path": "/name", "value": "second"},
        {"op": "replace", "path": "/name", "value": "mine"},
    ]
    with pytest.raises(PatchRefused):
        await at_two.execute(PatchModel(GPT, json_patch(operations)), ANNA)
    assert store.refused == 1


async def test_a_patch_is_decided_with_a_look_at_the_models_that_it_names(
    at_two: Ledger, store: RacedStore
) -> None:
    def patch(*names: str) -> PatchModel:
        return PatchModel(GPT, merge_patch({"aliases": [OTHER], "fallbacks": names}))

    with pytest.raises(InvalidInput) as refused:
        await at_two.execute(patch(OTHER, "third"), ANNA)
    assert [problem.pointer for problem in refused.value.problems] == ["/fallbacks/0", "/fallbacks/1"]
    await at_two.execute(CreateModel(ModelId("third"), FIRST), ANNA)
    store.others = [change_of(store, CreateModel(OTHER, FIRST))]
    with pytest.raises(InvalidInput) as refused:
        await at_two.execute(patch("third"), ANNA)
    assert refused.value.problems == (
        Problem("/aliases/0", "name_taken", "'other' is the id of another model"),
    )


async def test_a_patch_that_names_no_model_is_decided_in_one_look(at_two: Ledger, store: RacedStore) -> None:
    before = store.looks
    await at_two.execute(PatchModel(GPT, merge_patch({"name": "new", "aliases": ["team/x"]})), ANNA)
    assert store.looks == before + 1


async def test_a_patch_of_a_list_that_lost_a_race_is_applied_anew(at_two: Ledger, store: RacedStore) -> None:
    store.others = [change_of(store, UpdateModel(GPT, named("x")))]
    document = [
        {"op": "add", "path": "/aliases", "value": ["a"]},
        {"op": "add", "path": "/aliases/-", "value": "b"},
    ]
    await at_two.execute(PatchModel(GPT, json_patch(document)), ANNA)
    assert store.refused == 1
    assert newest(store) == ModelUpdated(named("a", "b"))


async def test_a_patch_that_changes_nothing_records_nothing(at_two: Ledger, store: RacedStore) -> None:
    assert (await at_two.execute(PatchModel(GPT, merge_patch({})), ANNA)).status == "unchanged"
    assert (await at_two.execute(PatchModel(GPT, json_patch([])), ANNA)).status == "unchanged"
    assert store.version(STREAM) == 2


async def test_a_patch_of_what_is_not_there_is_refused(at_two: Ledger) -> None:
    with pytest.raises(ModelNotFound):
        await at_two.execute(PatchModel(OTHER, merge_patch({"name": "x"})), ANNA)


async def test_a_patch_keeps_the_rules_and_all_problems_are_told(at_two: Ledger) -> None:
    with pytest.raises(InvalidInput) as refused:
        await at_two.execute(PatchModel(GPT, merge_patch({"name": "", "max_tokens": 0, "nme": 1})), ANNA)
    assert {problem.pointer for problem in refused.value.problems} == {"/name", "/max_tokens", "/nme"}


# Other releases


async def test_a_model_that_a_newer_release_changed_is_not_decided_about(
    at_two: Ledger, store: RacedStore
) -> None:
    store.record(STREAM, Stored("model.archived", 1, "{}"), ANNA)
    with pytest.raises(ModelFrozen) as refused:
        await at_two.execute(UpdateModel(GPT, FIRST), ANNA)
    assert refused.value.stream == STREAM
    assert (await at_two.execute(CreateModel(OTHER, FIRST), ANNA)).status == "created"


async def test_a_live_model_is_not_created_by_the_ledger_either(at_two: Ledger) -> None:
    with pytest.raises(ModelExists):
        await at_two.execute(CREATE, ANNA)


async def test_only_the_streams_of_a_decision_are_looked_at() -> None:
    looked: list[list[Stream]] = []

    class WatchedStore(MemoryEventStore):
        async def look(self, streams: Sequence[Stream]) -> Look:
            looked.append(list(streams))
            return await super().look(streams)

    await Ledger(WatchedStore(), ORIGINS).execute(CREATE, ANNA)
    assert looked == [[STREAM, DEFAULT_STREAM]]
