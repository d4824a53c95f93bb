"""The ways back: previews, and the commands that they lead to."""

import pytest
from event_store_contract import ANNA
from factories import ORIGINS, AzureConfigFactory, OpenAIConfigFactory, default_is, on
from memory_store import MemoryEventStore, MemoryViews
from msgspec import UNSET
from msgspec.structs import replace
from scenario import told

from application.ledger import Ledger
from application.rollback import preview_rollback, restore_command, rollback_command
from domain.catalog import Change
from domain.changes import FieldChange
from domain.configuration import ENVIRONMENT
from domain.errors import InvalidInput, ModelExists, ModelNotFound, VersionNotFound
from domain.model import (
    ModelCreated,
    ModelDeleted,
    ModelRolledBack,
    ModelUpdated,
    RestoreModel,
    RollBackModel,
)
from domain.values import ModelId, model_stream
from infrastructure import codec

GPT, OTHER = ModelId("gpt-4"), ModelId("other")
STREAM = model_stream(GPT)
FIRST = replace(AzureConfigFactory.build(), name="first", max_retries=3, credential=ENVIRONMENT)
KEYLESS = replace(FIRST, name="keyless", credential=None)
ELSEWHERE = replace(OpenAIConfigFactory.build(), name="elsewhere", credential=None)
BROKEN = replace(FIRST, name="", max_tokens=0)
"""Breaks two of today's rules, as a configuration of an older release may."""


@pytest.fixture
def store() -> MemoryEventStore:
    return MemoryEventStore()


@pytest.fixture
def views(store: MemoryEventStore) -> MemoryViews:
    return MemoryViews(store)


@pytest.fixture
def ledger(store: MemoryEventStore) -> Ledger:
    return Ledger(store, ORIGINS)


def happened(store: MemoryEventStore, *changes: Change) -> None:
    """Record a past, as today's rules or those of an older release let it happen."""
    for change in changes:
        store.record(change.stream, codec.encode(change.event), ANNA)


CREATED = on(GPT, ModelCreated(FIRST))


# Preview


async def test_a_preview_tells_what_becomes_of_each_field(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    second = replace(FIRST, name="second", description="new", max_tokens=FIRST.max_tokens + 1)
    happened(store, CREATED, on(GPT, ModelUpdated(second)))
    preview = await preview_rollback(views, ledger, GPT, 1, "keep")
    assert (preview.model_id, preview.from_version, preview.to_version) == (GPT, 2, 1)
    assert {change.field: (change.old, change.new) for change in preview.changes} == {
        "name": ("second", "first"),
        "description": ("new", FIRST.description),
        "max_tokens": (FIRST.max_tokens + 1, FIRST.max_tokens),
    }
    assert (preview.stays, preview.problems) == ([], [])


async def test_a_preview_tells_fields_that_come_and_go(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, on(GPT, ModelCreated(KEYLESS)), on(GPT, ModelUpdated(ELSEWHERE)))
    preview = await preview_rollback(views, ledger, GPT, 1, "keep")
    told_of = {change.field: change.op for change in preview.changes}
    assert told_of["azure_endpoint"] == "added"
    assert told_of["base_url"] == "removed"
    assert told_of["provider"] == "changed"


async def test_a_preview_records_nothing(store: MemoryEventStore, views: MemoryViews, ledger: Ledger) -> None:
    happened(store, CREATED, on(GPT, ModelUpdated(KEYLESS)))
    await preview_rollback(views, ledger, GPT, 1, "target")
    assert store.version(STREAM) == 2


async def test_todays_credential_stays_and_the_preview_says_so(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, CREATED, on(GPT, ModelUpdated(KEYLESS)))
    preview = await preview_rollback(views, ledger, GPT, 1, "keep")
    assert [change.field for change in preview.changes] == ["name"]
    assert preview.stays == [FieldChange("credential", "changed", None, ENVIRONMENT)]


async def test_the_credential_of_the_target_comes_back_on_request(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, CREATED, on(GPT, ModelUpdated(KEYLESS)))
    preview = await preview_rollback(views, ledger, GPT, 1, "target")
    assert FieldChange("credential", "changed", None, ENVIRONMENT) in preview.changes
    assert preview.stays == []


async def test_every_problem_under_todays_rules_is_told(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, on(GPT, ModelCreated(BROKEN)), on(GPT, ModelUpdated(FIRST)))
    preview = await preview_rollback(views, ledger, GPT, 1, "keep")
    assert told(preview.problems) == ["/max_tokens invalid_value", "/name invalid_value"]
    assert preview.changes


async def test_a_kept_key_is_not_sent_to_an_address_of_the_past(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    away = replace(ELSEWHERE, base_url="https://evil.example/v1")
    happened(store, on(GPT, ModelCreated(away)), on(GPT, ModelUpdated(FIRST)))
    kept = await preview_rollback(views, ledger, GPT, 1, "keep")
    assert told(kept.problems) == ["/base_url credential_not_bound"]
    assert (await preview_rollback(views, ledger, GPT, 1, "target")).problems == []


async def test_a_rollback_that_would_record_nothing_has_neither_changes_nor_problems(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, on(GPT, ModelCreated(BROKEN)))
    preview = await preview_rollback(views, ledger, GPT, 1, "keep")
    assert (preview.changes, preview.problems) == ([], [])
    receipt = await ledger.execute(await rollback_command(views, GPT, 1, "keep"), ANNA)
    assert receipt.status == "unchanged"


async def test_only_the_credential_differs_and_stays_so_nothing_would_be_recorded(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, CREATED, on(GPT, ModelUpdated(replace(FIRST, credential=None))))
    preview = await preview_rollback(views, ledger, GPT, 1, "keep")
    assert preview.changes == []
    assert [change.field for change in preview.stays] == ["credential"]


# Roll back


async def test_a_rollback_brings_the_configuration_back_with_todays_credential(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, CREATED, on(GPT, ModelUpdated(KEYLESS)))
    command = await rollback_command(views, GPT, 1, "keep")
    assert command == RollBackModel(GPT, 1, FIRST, keeps_credential=True)
    await ledger.execute(command, ANNA)
    assert (await views.model(GPT)).config() == replace(FIRST, credential=None)
    assert store.events(STREAM)[-1] == ModelRolledBack(1, replace(FIRST, credential=None))


async def test_the_credential_that_stays_is_the_one_of_the_decision_not_of_the_question(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, CREATED)
    command = await rollback_command(views, GPT, 1, "keep")
    happened(store, on(GPT, ModelUpdated(KEYLESS)))
    await ledger.execute(command, ANNA)
    assert store.events(STREAM)[-1] == ModelRolledBack(1, replace(FIRST, credential=None))


async def test_a_rollback_does_what_its_preview_told(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, on(GPT, ModelCreated(KEYLESS)), on(GPT, ModelUpdated(ELSEWHERE)))
    before = (await views.model(GPT)).config().fields()
    preview = await preview_rollback(views, ledger, GPT, 1, "target")
    await ledger.execute(await rollback_command(views, GPT, 1, "target"), ANNA)
    after = dict((await views.model(GPT)).config().fields())
    for change in preview.changes:
        assert before.get(change.field, UNSET) == change.old
        assert after.get(change.field, UNSET) == change.new
    unchanged = before.keys() - {change.field for change in preview.changes}
    assert unchanged
    assert all(before[field] == after[field] for field in unchanged)


async def test_what_the_preview_warned_of_is_refused(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, on(GPT, ModelCreated(BROKEN)), on(GPT, ModelUpdated(FIRST)))
    preview = await preview_rollback(views, ledger, GPT, 1, "keep")
    command = await rollback_command(views, GPT, 1, "keep")
    with pytest.raises(InvalidInput) as refused:
        await ledger.execute(command, ANNA)
    assert list(refused.value.problems) == preview.problems


async def test_a_preview_warns_of_names_that_are_taken_and_of_loops_but_not_of_what_is_gone(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    linked = replace(FIRST, name="", aliases=("x", "y"), fallbacks=(OTHER, ModelId("gone")))
    happened(
        store,
        on(GPT, ModelCreated(linked)),
        on(GPT, ModelUpdated(replace(FIRST, aliases=UNSET))),
        on(OTHER, ModelCreated(replace(FIRST, aliases=("y",), fallbacks=(GPT,)))),
    )
    preview = await preview_rollback(views, ledger, GPT, 1, "keep")
    problems = ["/aliases/1 name_taken", "/fallbacks/0 fallback_loop", "/name invalid_value"]
    assert told(preview.problems) == problems
    with pytest.raises(InvalidInput) as refused:
        await ledger.execute(await rollback_command(views, GPT, 1, "keep"), ANNA)
    assert list(refused.value.problems) == preview.problems
    assert FieldChange("aliases", "added", new=["x", "y"]) in preview.changes


@pytest.mark.parametrize("version", [-1, 0, 3, 2**31])
async def test_a_version_that_never_was_does_not_come_back(
    store: MemoryEventStore, views: MemoryViews, version: int, ledger: Ledger
) -> None:
    happened(store, CREATED, on(GPT, ModelUpdated(KEYLESS)))
    for asked in (
        rollback_command(views, GPT, version, "keep"),
        preview_rollback(views, ledger, GPT, version, "keep"),
    ):
        with pytest.raises(VersionNotFound):
            await asked


async def test_a_model_that_never_was_has_no_way_back(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, CREATED)
    with pytest.raises(ModelNotFound):
        await rollback_command(views, OTHER, 1, "keep")
    with pytest.raises(ModelNotFound):
        await preview_rollback(views, ledger, OTHER, 1, "keep")


async def test_a_deleted_model_is_restored_not_rolled_back(
    store: MemoryEventStore, views: MemoryViews
) -> None:
    happened(store, CREATED, on(GPT, ModelDeleted(FIRST)))
    with pytest.raises(ModelNotFound) as refused:
        await rollback_command(views, GPT, 1, "keep")
    assert refused.value.deleted_at_version == 2


# Restore


async def test_a_model_comes_back_as_it_was_when_it_was_deleted(
    store: MemoryEventStore, views: MemoryViews, ledger: Ledger
) -> None:
    happened(store, CREATED, on(GPT, ModelUpdated(KEYLESS)), on(GPT, ModelDeleted(KEYLESS)))
    command = await restore_command(views, GPT, None)
    assert command == RestoreModel(GPT, 3, KEYLESS)
    assert (await ledger.execute(command, ANNA)).version == 4
    assert (await views.model(GPT)).config() == KEYLESS


async def test_a_model_comes_back_with_the_configuration_of_any_version(
    store: MemoryEventStore, views: MemoryViews
) -> None:
    happened(store, CREATED, on(GPT, ModelUpdated(KEYLESS)), on(GPT, ModelDeleted(KEYLESS)))
    assert await restore_command(views, GPT, 1) == RestoreModel(GPT, 1, FIRST)


@pytest.mark.parametrize("version", [-1, 0, 3])
async def test_a_version_that_never_was_is_not_restored(
    store: MemoryEventStore, views: MemoryViews, version: int
) -> None:
    happened(store, CREATED, on(GPT, ModelDeleted(FIRST)))
    with pytest.raises(VersionNotFound):
        await restore_command(views, GPT, version)


async def test_a_live_model_is_not_restored(store: MemoryEventStore, views: MemoryViews) -> None:
    happened(store, default_is(GPT), CREATED)
    with pytest.raises(ModelExists) as refused:
        await restore_command(views, GPT, None)
    assert refused.value.version == 1


async def test_where_nothing_was_nothing_is_restored(store: MemoryEventStore, views: MemoryViews) -> None:
    happened(store, CREATED)
    with pytest.raises(ModelNotFound):
        await restore_command(views, OTHER, None)
