"""What every event store keeps. A test class inherits it and gives the fixture `store`, an empty ledger.

class TestPostgresEventStore(EventStoreContract):
    @pytest.fixture
    async def store(self, ...): ...
"""

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from application.ports import Append, Context, EventStore, Idempotency, Place, Receipt, Status
from domain.catalog import Change, Seen
from domain.configuration import ModelConfig
from domain.default import DefaultChanged
from domain.errors import IdempotencyMismatch, VersionConflict
from domain.links import Links
from domain.model import ModelCreated, ModelDeleted, ModelRestored, ModelRolledBack, ModelUpdated
from domain.values import DEFAULT_STREAM, Actor, ModelId, Stream, model_stream

ANNA = Context(Actor("u-1", "Anna", "person"), "api", "request-1", "because")
GPT, OTHER, THIRD = ModelId("gpt-4"), ModelId("other"), ModelId("third")
STREAM, OTHER_STREAM, THIRD_STREAM = model_stream(GPT), model_stream(OTHER), model_stream(THIRD)
CONFIG = ModelConfig(
    name='模型 \u2028 "quoted" \\ 👩\u200d🔬',
    max_tokens=4096,
    supports_streaming=True,
    supports_temperature=False,
    provider="openai",
    base_url="http://127.0.0.1:8080/v1",
    base_timeout=120.0,
    token_factor=1e-7,
    credential=None,
)
CREATED = Change(STREAM, ModelCreated(CONFIG))
UPDATED = Change(STREAM, ModelUpdated(CONFIG))
DELETED = Change(STREAM, ModelDeleted(CONFIG))
OTHER_CREATED = Change(OTHER_STREAM, ModelCreated(CONFIG))
DEFAULT_IS_GPT = Change(DEFAULT_STREAM, DefaultChanged(GPT))


def linked(*aliases: str, to: Sequence[ModelId] = (), **changes: object) -> ModelConfig:
    return replace(CONFIG, aliases=aliases, fallbacks=tuple(to), **changes)


def created(stream: Stream, *aliases: str, to: Sequence[ModelId] = ()) -> Change:
    """A model with these aliases, that falls back to these models."""
    return Change(stream, ModelCreated(linked(*aliases, to=to)))


def updated(stream: Stream, *aliases: str, to: Sequence[ModelId] = ()) -> Change:
    return Change(stream, ModelUpdated(linked(*aliases, to=to)))


def append_of(
    *changes: Change,
    idempotency: Idempotency | None = None,
    status: Status = "created",
    **expected: int,
) -> Append:
    """An append; `gpt`, `other`, `third` and `default` are the versions that its decision saw."""
    names = {"gpt": STREAM, "other": OTHER_STREAM, "third": THIRD_STREAM, "default": DEFAULT_STREAM}
    versions = {names[name]: version for name, version in expected.items()}
    return Append(changes, versions, ANNA, Receipt(status, GPT, len(changes), 0, ""), idempotency)


def key(name: str, fingerprint: bytes = b"one request") -> Idempotency:
    return Idempotency(ANNA.actor.id, "POST", "/api/config/models/gpt-4", name, fingerprint)


class EventStoreContract:
    """The promises of `EventStore`, each as a test."""

    # Look

    async def test_of_an_empty_ledger_nothing_is_seen(self, store: EventStore) -> None:
        look = await store.look([STREAM, DEFAULT_STREAM])
        assert look.seen == Seen({}, any_live=False)
        assert look.places == {}

    async def test_what_was_appended_is_seen_as_it_was(self, store: EventStore) -> None:
        await store.append(append_of(DEFAULT_IS_GPT, CREATED, gpt=0, default=0))
        look = await store.look([STREAM, DEFAULT_STREAM, OTHER_STREAM])
        assert look.seen.events == {STREAM: (CREATED.event, 1), DEFAULT_STREAM: (DEFAULT_IS_GPT.event, 1)}
        assert repr(look.seen.model(GPT)) == repr(
            Seen({STREAM: (CREATED.event, 1)}, any_live=True).model(GPT)
        )

    async def test_only_the_streams_that_were_asked_for_are_seen(self, store: EventStore) -> None:
        await store.append(append_of(DEFAULT_IS_GPT, CREATED, gpt=0, default=0))
        assert set((await store.look([OTHER_STREAM, STREAM])).places) == {STREAM}

    async def test_of_a_stream_the_newest_event_is_seen_and_where_it_stands(self, store: EventStore) -> None:
        await store.append(append_of(CREATED, gpt=0))
        receipt = await store.append(append_of(UPDATED, gpt=1))
        await store.append(append_of(OTHER_CREATED, other=0))
        look = await store.look([STREAM])
        assert look.seen.events[STREAM] == (UPDATED.event, 2)
        assert look.places[STREAM] == Place(2, receipt.position, receipt.hash)

    async def test_whether_any_model_is_live_is_seen_whatever_was_asked_for(self, store: EventStore) -> None:
        assert not (await store.look([OTHER_STREAM])).seen.any_live
        await store.append(append_of(CREATED, gpt=0))
        assert (await store.look([OTHER_STREAM])).seen.any_live
        await store.append(append_of(DELETED, gpt=1))
        assert not (await store.look([OTHER_STREAM])).seen.any_live

    async def test_the_names_and_fallbacks_of_live_models_are_seen_whatever_was_asked_for(
        self, store: EventStore
    ) -> None:
        await store.append(append_of(created(STREAM, "a", "b/c", to=[OTHER, THIRD]), gpt=0))
        await store.append(append_of(OTHER_CREATED, other=0))
        assert (await store.look([OTHER_STREAM])).seen.links == {GPT: Links(("a", "b/c"), (OTHER, THIRD))}
        await store.append(append_of(updated(OTHER_STREAM, "d"), other=1))
        await store.append(append_of(updated(STREAM), gpt=1))
        assert (await store.look([STREAM, OTHER_STREAM])).seen.links == {OTHER: Links(("d",))}
        await store.append(append_of(Change(OTHER_STREAM, ModelDeleted(linked("d"))), other=2))
        assert (await store.look([STREAM])).seen.links == {}

    # Append

    async def test_positions_have_no_gaps_and_rise_over_all_streams(self, store: EventStore) -> None:
        receipts = [
            await store.append(append_of(CREATED, gpt=0)),
            await store.append(append_of(OTHER_CREATED, other=0)),
            await store.append(append_of(UPDATED, gpt=1)),
        ]
        assert [receipt.position for receipt in receipts] == [1, 2, 3]

    async def test_every_position_has_a_hash_of_its_own(self, store: EventStore) -> None:
        receipts = [await store.append(append_of(UPDATED, gpt=version)) for version in range(3)]
        hashes = {receipt.hash for receipt in receipts}
        assert len(hashes) == 3
        assert all(len(bytes.fromhex(digest)) == 32 for digest in hashes)

    async def test_the_receipt_is_the_one_that_was_asked_for_at_the_last_position(
        self, store: EventStore
    ) -> None:
        receipt = await store.append(append_of(DEFAULT_IS_GPT, CREATED, gpt=0, default=0))
        place = (await store.look([STREAM])).places[STREAM]
        assert receipt == Receipt("created", GPT, 2, 2, place.hash)

    async def test_events_of_one_append_to_one_stream_have_versions_one_after_the_other(
        self, store: EventStore
    ) -> None:
        await store.append(append_of(CREATED, UPDATED, DELETED, gpt=0))
        assert (await store.look([STREAM])).seen.events[STREAM] == (DELETED.event, 3)

    @pytest.mark.parametrize("expected", [0, 2, 3])
    async def test_a_stale_append_is_refused_and_names_its_stream(
        self, store: EventStore, expected: int
    ) -> None:
        await store.append(append_of(CREATED, gpt=0))
        with pytest.raises(VersionConflict) as refused:
            await store.append(append_of(UPDATED, gpt=expected))
        assert refused.value.stream == STREAM

    async def test_a_stream_that_is_only_looked_at_counts_too(self, store: EventStore) -> None:
        await store.append(append_of(CREATED, gpt=0))
        with pytest.raises(VersionConflict) as refused:
            await store.append(append_of(OTHER_CREATED, other=0, gpt=0))
        assert refused.value.stream == STREAM
        await store.append(append_of(OTHER_CREATED, other=0, gpt=1))

    async def test_of_a_refused_append_nothing_stays(self, store: EventStore) -> None:
        first = await store.append(append_of(CREATED, gpt=0))
        with pytest.raises(VersionConflict):
            await store.append(append_of(DEFAULT_IS_GPT, UPDATED, default=0, gpt=5, idempotency=key("k")))
        look = await store.look([STREAM, DEFAULT_STREAM])
        assert look.places == {STREAM: Place(1, first.position, first.hash)}
        assert await store.answered(key("k")) is None
        assert (await store.append(append_of(UPDATED, gpt=1))).position == first.position + 1

    async def test_of_appends_that_race_one_wins(self, store: EventStore) -> None:
        racers = [store.append(append_of(CREATED, gpt=0)) for _ in range(8)]
        outcomes = await asyncio.gather(*racers, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Receipt", *["VersionConflict"] * 7]
        assert (await store.look([STREAM])).places[STREAM].version == 1

    async def test_appends_to_different_streams_all_win(self, store: EventStore) -> None:
        streams = [model_stream(ModelId(f"m{number}")) for number in range(8)]
        appends = [
            Append(
                [Change(stream, CREATED.event)], {stream: 0}, ANNA, Receipt("created", GPT, 1, 0, ""), None
            )
            for stream in streams
        ]
        receipts = await asyncio.gather(*(store.append(append) for append in appends))
        assert sorted(receipt.position for receipt in receipts) == list(range(1, 9))

    # Decisions that saw too little of the others

    @pytest.mark.parametrize(
        ("theirs", "mine"),
        [
            (["x"], ["a", "x"]),  # one alias of both
            (["x"], ["other"]),  # an alias that is an id
            (["x", "gpt-4"], []),  # an id that is an alias
        ],
    )
    async def test_a_name_that_is_taken_is_not_given_to_a_model_that_comes_to_life(
        self, store: EventStore, theirs: list[str], mine: list[str]
    ) -> None:
        await store.append(append_of(CREATED, DELETED, gpt=0))
        await store.append(append_of(created(OTHER_STREAM, *theirs), other=0))
        for change in (created(STREAM, *mine), Change(STREAM, ModelRestored(1, linked(*mine)))):
            with pytest.raises(VersionConflict) as refused:
                await store.append(append_of(change, gpt=2, idempotency=key("k")))
            assert refused.value.stream == STREAM
        assert (await store.look([STREAM])).places[STREAM].version == 2
        assert await store.answered(key("k")) is None

    @pytest.mark.parametrize("mine", [["x"], ["other"], ["a", "y", "x"]])
    async def test_a_name_that_is_taken_is_not_given_to_a_live_model(
        self, store: EventStore, mine: list[str]
    ) -> None:
        await store.append(append_of(created(STREAM, "y"), gpt=0))
        await store.append(append_of(created(OTHER_STREAM, "x"), other=0))
        for change in (updated(STREAM, *mine), Change(STREAM, ModelRolledBack(1, linked(*mine)))):
            with pytest.raises(VersionConflict):
                await store.append(append_of(change, gpt=1))
        assert (await store.look([STREAM])).places[STREAM].version == 1

    async def test_names_can_be_handed_on_and_kept(self, store: EventStore) -> None:
        await store.append(append_of(created(STREAM, "x", "y"), gpt=0))
        await store.append(append_of(updated(STREAM, "y", "z"), gpt=1))
        await store.append(append_of(created(OTHER_STREAM, "x"), other=0))
        await store.append(append_of(DELETED, gpt=2))
        await store.append(append_of(updated(OTHER_STREAM, "x", "y", "gpt-4"), other=1))
        assert (await store.look([STREAM])).seen.links == {OTHER: Links(("x", "y", "gpt-4"))}

    async def test_of_appends_that_claim_one_name_at_once_one_wins(self, store: EventStore) -> None:
        streams = [model_stream(ModelId(f"m{number}")) for number in range(8)]
        claims = [
            Append([created(stream, "x")], {stream: 0}, ANNA, Receipt("created", GPT, 1, 0, ""), None)
            for stream in streams
        ]
        outcomes = await asyncio.gather(*map(store.append, claims), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Receipt", *["VersionConflict"] * 7]
        assert [links.aliases for links in (await store.look([STREAM])).seen.links.values()] == [("x",)]

    async def test_an_edge_that_closes_a_loop_of_live_models_is_refused(self, store: EventStore) -> None:
        await store.append(append_of(created(STREAM, to=[OTHER]), gpt=0))
        await store.append(append_of(created(THIRD_STREAM, to=[GPT]), third=0))
        for edge in ([GPT], [OTHER], [THIRD], [ModelId("nobody"), THIRD]):
            with pytest.raises(VersionConflict):
                await store.append(append_of(created(OTHER_STREAM, to=edge), other=0))
        await store.append(append_of(Change(THIRD_STREAM, ModelDeleted(linked(to=[GPT]))), third=1))
        await store.append(append_of(created(OTHER_STREAM, to=[THIRD]), other=0))
        with pytest.raises(VersionConflict):
            await store.append(append_of(Change(THIRD_STREAM, ModelRestored(1, linked(to=[GPT]))), third=2))

    async def test_what_links_nothing_anew_is_never_refused(self, store: EventStore) -> None:
        await store.append(append_of(created(STREAM, "x", to=[OTHER, ModelId("nobody")]), gpt=0))
        await store.append(append_of(created(OTHER_STREAM, "y"), other=0))
        again = linked("x", to=[ModelId("nobody"), OTHER], name="another")
        await store.append(append_of(Change(STREAM, ModelUpdated(again)), gpt=1))
        assert (await store.look([STREAM])).places[STREAM].version == 2

    # The answer under a key

    async def test_without_a_request_there_is_no_answer(self, store: EventStore) -> None:
        assert await store.answered(key("k")) is None

    async def test_the_answer_to_a_request_is_kept_under_its_key(self, store: EventStore) -> None:
        receipt = await store.append(append_of(CREATED, gpt=0, idempotency=key("k")))
        await store.append(append_of(UPDATED, gpt=1))
        assert await store.answered(key("k")) == receipt

    async def test_an_answer_without_changes_is_kept_as_it_is(self, store: EventStore) -> None:
        created = await store.append(append_of(CREATED, gpt=0))
        unchanged = Receipt("unchanged", GPT, 1, created.position, created.hash)
        append = Append([], {STREAM: 1}, ANNA, unchanged, key("k"))
        assert await store.append(append) == unchanged
        assert await store.answered(key("k")) == unchanged
        assert (await store.append(append_of(UPDATED, gpt=1))).position == created.position + 1

    async def test_a_key_is_not_taken_for_another_request(self, store: EventStore) -> None:
        await store.append(append_of(CREATED, gpt=0, idempotency=key("k")))
        with pytest.raises(IdempotencyMismatch):
            await store.answered(key("k", b"another request"))
        with pytest.raises(IdempotencyMismatch):
            await store.append(append_of(UPDATED, gpt=1, idempotency=key("k", b"another request")))
        assert (await store.look([STREAM])).places[STREAM].version == 1

    async def test_an_append_that_was_answered_answers_again_before_anything_else(
        self, store: EventStore
    ) -> None:
        receipt = await store.append(append_of(CREATED, gpt=0, idempotency=key("k")))
        assert await store.append(append_of(CREATED, gpt=0, idempotency=key("k"))) == receipt
        assert (await store.look([STREAM])).places[STREAM].version == 1

    @pytest.mark.parametrize("field", ["method", "path", "key"])
    async def test_a_key_is_one_only_in_its_scope(self, store: EventStore, field: str) -> None:
        await store.append(append_of(CREATED, gpt=0, idempotency=key("k")))
        known = key("k")
        parts = {"actor": known.actor, "method": known.method, "path": known.path, "key": known.key}
        elsewhere = Idempotency(**{**parts, field: "ELSE"}, fingerprint=b"another request")
        assert await store.answered(elsewhere) is None

    async def test_keys_of_others_are_not_known(self, store: EventStore) -> None:
        await store.append(append_of(CREATED, gpt=0, idempotency=key("k")))
        bobs = Idempotency("u-2", "POST", "/api/config/models/gpt-4", "k", b"one request")
        assert await store.answered(bobs) is None

    async def test_of_requests_with_one_key_that_race_all_get_one_answer(self, store: EventStore) -> None:
        def request() -> Append:
            return append_of(CREATED, gpt=0, idempotency=key("k"))

        receipts: Sequence[Receipt] = await asyncio.gather(*(store.append(request()) for _ in range(8)))
        assert len({(receipt.position, receipt.hash) for receipt in receipts}) == 1
        assert (await store.look([STREAM])).places[STREAM].version == 1
