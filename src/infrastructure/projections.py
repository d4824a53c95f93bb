"""The projection of events: the rows that the append stores with them, and how to make them anew."""

from msgspec import Struct

from domain.catalog import Change
from domain.default import DefaultChanged
from domain.model import ModelCreated, ModelDeleted, ModelRestored, ModelRolledBack, ModelUpdated
from domain.values import model_of


class Row(Struct, frozen=True):
    """What an event leaves in the current state.

    For a model's event: its id, configuration (JSON) and whether it is deleted. For the default
    pointer: the model that it points at.
    """

    model_id: str | None
    config: str | None = None
    deleted: bool = False


def project(change: Change, config: str | None) -> Row:
    """The row of one event; `config` is its configuration as stored."""
    match change.event:
        case ModelCreated() | ModelUpdated() | ModelRolledBack() | ModelRestored():
            return Row(model_of(change.stream), config)
        case ModelDeleted():
            return Row(model_of(change.stream), config, deleted=True)
        case DefaultChanged(model_id=model_id):
            return Row(model_id)
