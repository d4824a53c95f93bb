"""Taking one change back: what comes of it, what it leaves alone, and when it cannot be."""

import pytest
from event_store_contract import ANNA
from factories import ORIGINS, AzureConfigFactory, OpenAIConfigFactory, on
from memory_store import MemoryEventStore, MemoryViews
from msgspec import UNSET
from msgspec.structs import replace
from scenario import told

from application.ledger import Ledger
from application.undo import preview_undo, undo_command
from domain.changes import Conflict, FieldChange
from domain.configuration import ModelConfig
from domain.errors import InvalidInput, ModelNotFound, UndoConflict, VersionNotFound
from domain.model import ModelCreated, ModelDeleted, ModelEvent, ModelRestored, ModelRolledBack, ModelUpdated
from domain.values import ModelId, model_stream
from infrastructure import codec

GPT = ModelId("gpt-4")
FIRST = replace(AzureConfigFactory.build(), name="first", max_tokens=1, max_retries=UNSET)
CREATED = ModelCreated(FIRST)


class Ways:
    """A ledger in memory, and the way to undo in it."""

    def __init__(self) -> None:
        self.store = MemoryEventStore()
        self.views = MemoryViews(self.store)
        self.ledger = Ledger(self.store, ORIGINS)

    def happened(self, *events: ModelEvent) -> None:
        for event in events:
            change = on(GPT, event)
            self.store.record(change.stream, codec.encode(change.event), ANNA)

    async def undo(self, version: int) -> str:
        command = await undo_command(self.views, GPT, version)
        return (await self.ledger.execute(command, ANNA)).status

    def config(self) -> ModelConfig:
        event = self.store.events(model_stream(GPT))[-1]
        assert isinstance(event, ModelUpdated)
        return event.config


@pytest.fixture
def ways() -> Ways:
    return Ways()


async def test_what_one_version_changed_is_taken_back_and_later_changes_stay(ways: Ways) -> None:
    second = replace(FIRST, max_tokens=2, description="second")
    third = replace(second, name="third")
    ways.happened(CREATED, ModelUpdated(second), ModelUpdated(third))
    assert await ways.undo(2) == "updated"
    assert ways.config() == replace(FIRST, name="third")


async def test_a_field_that_came_goes_and_one_that_went_comes(ways: Ways) -> None:
    second = replace(FIRST, max_retries=3, deployment=UNSET)
    ways.happened(
        ModelCreated(replace(FIRST, deployment="d")),
        ModelUpdated(second),
        ModelUpdated(replace(second, name="n")),
    )
    await ways.undo(2)
    assert ways.config() == replace(FIRST, deployment="d", name="n")


async def test_a_rollback_is_undone_too(ways: Ways) -> None:
    second = replace(FIRST, max_tokens=2)
    ways.happened(CREATED, ModelUpdated(second), ModelRolledBack(1, FIRST))
    await ways.undo(3)
    assert ways.config() == second


async def test_what_is_back_already_records_nothing(ways: Ways) -> None:
    ways.happened(CREATED, ModelUpdated(replace(FIRST, max_tokens=2)), ModelUpdated(FIRST))
    assert await ways.undo(2) == "unchanged"


async def test_a_field_that_was_changed_again_is_a_conflict_that_shows_all_three(ways: Ways) -> None:
    ways.happened(
        CREATED,
        ModelUpdated(replace(FIRST, max_tokens=2, max_retries=2, name="second")),
        ModelUpdated(replace(FIRST, max_tokens=3, max_retries=3, name="second")),
    )
    with pytest.raises(UndoConflict, match="since version 2: max_tokens, max_retries") as refused:
        await ways.undo(2)
    assert refused.value.conflicts == (
        Conflict("max_tokens", base=2, theirs=3, mine=1),
        Conflict("max_retries", base=2, theirs=3),
    )
    assert ways.store.version(model_stream(GPT)) == 3


@pytest.mark.parametrize(
    ("past", "version"),
    [
        ([CREATED], 1),
        ([CREATED, ModelDeleted(FIRST), ModelRestored(1, FIRST)], 2),
        ([CREATED, ModelDeleted(FIRST), ModelRestored(1, FIRST)], 3),
        ([CREATED, ModelDeleted(FIRST), ModelCreated(replace(FIRST, max_tokens=2))], 3),
    ],
)
async def test_only_a_changed_configuration_is_undone(
    ways: Ways, past: list[ModelEvent], version: int
) -> None:
    ways.happened(*past)
    for attempt in (
        undo_command(ways.views, GPT, version),
        preview_undo(ways.views, ways.ledger, GPT, version),
    ):
        with pytest.raises(InvalidInput) as refused:
            await attempt
        assert told(refused.value.problems) == ["/version not_undoable"]


async def test_what_is_not_there_is_not_undone(ways: Ways) -> None:
    with pytest.raises(ModelNotFound):
        await ways.undo(1)
    ways.happened(CREATED, ModelUpdated(replace(FIRST, max_tokens=2)))
    for version in (-1, 0, 3):
        with pytest.raises(VersionNotFound):
            await ways.undo(version)
    ways.happened(ModelDeleted(FIRST))
    with pytest.raises(ModelNotFound, match="deleted in version 3"):
        await ways.undo(2)


async def test_an_undo_that_would_break_a_rule_is_refused(ways: Ways) -> None:
    elsewhere = replace(OpenAIConfigFactory.build(), name="first", credential=None)
    ways.happened(
        ModelCreated(elsewhere),
        ModelUpdated(replace(elsewhere, max_tokens=0)),  # as an older release may have let it be
        ModelUpdated(replace(elsewhere, max_tokens=5)),
    )
    with pytest.raises(InvalidInput) as refused:
        await ways.undo(3)
    assert told(refused.value.problems) == ["/max_tokens invalid_value"]
    preview = await preview_undo(ways.views, ways.ledger, GPT, 3)
    assert told(preview.problems) == ["/max_tokens invalid_value"]


async def test_a_preview_tells_changes_and_conflicts_and_records_nothing(ways: Ways) -> None:
    second = replace(FIRST, max_tokens=2, name="second")
    ways.happened(CREATED, ModelUpdated(second), ModelUpdated(replace(second, max_tokens=3)))
    preview = await preview_undo(ways.views, ways.ledger, GPT, 2)
    assert (preview.model_id, preview.version, preview.current_version) == (GPT, 2, 3)
    assert preview.changes == [FieldChange("name", "changed", "second", "first")]
    assert preview.conflicts == [Conflict("max_tokens", base=2, theirs=3, mine=1)]
    assert preview.problems == []
    assert ways.store.version(model_stream(GPT)) == 3


async def test_an_undo_is_decided_on_what_is_there_when_it_is_recorded(ways: Ways) -> None:
    second = replace(FIRST, max_tokens=2)
    ways.happened(CREATED, ModelUpdated(second))
    command = await undo_command(ways.views, GPT, 2)
    ways.happened(ModelUpdated(replace(second, name="meanwhile")))
    await ways.ledger.execute(command, ANNA)
    assert ways.config() == replace(FIRST, name="meanwhile")
