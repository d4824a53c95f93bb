"""The default pointer: which model is meant when none is named. One for the whole ledger, or none."""

from msgspec import Struct

from domain.errors import DefaultProtected, InvalidInput, Problem
from domain.model import DeleteModel, Live, Model, live
from domain.values import ModelId


class SetDefault(Struct, frozen=True):
    """Make a live model the default; None makes it none, so that the last model can go."""

    model_id: ModelId | None


class DefaultChanged(Struct, frozen=True, tag="default.changed"):
    """Another model is the default now, or none is."""

    model_id: ModelId | None


class Default(Struct, frozen=True):
    """The state: the default model's id, and the version of the pointer's own stream."""

    model_id: ModelId | None = None
    version: int = 0


def decide(command: SetDefault, default: Default, model: Model) -> DefaultChanged | None:
    """Return the event that the command causes; None when it is the default already.

    Raises:
        ModelNotFound: the model that is named is not live.
        InvalidInput: it is disabled, so that it would answer nobody.
    """
    if command.model_id is not None:
        _refuse_disabled(live(command.model_id, model), "/model_id")
    return None if command.model_id == default.model_id else DefaultChanged(command.model_id)


def decide_first(model_id: ModelId, default: Default, *, any_live: bool) -> DefaultChanged | None:
    """The first live model becomes the default; a person's choice of none stays while others live."""
    if any_live or default.model_id == model_id:
        return None
    return DefaultChanged(model_id)


def decide_successor(command: DeleteModel, default: Default, successor: Model) -> DefaultChanged | None:
    """Hand the default on before its model goes.

    Raises:
        DefaultProtected: it is the default, and no other model is named.
        ModelNotFound: the model that is named is not live.
        InvalidInput: it is disabled.
    """
    if default.model_id != command.model_id:
        return None
    if command.new_default is None or command.new_default == command.model_id:
        raise DefaultProtected(command.model_id)
    _refuse_disabled(live(command.new_default, successor), "/new_default")
    return DefaultChanged(command.new_default)


def evolve(default: Default, event: DefaultChanged) -> Default:
    """Fold one event into the state."""
    return Default(event.model_id, default.version + 1)


def _refuse_disabled(model: Live, pointer: str) -> None:
    if not model.config.enabled:
        raise InvalidInput([Problem(pointer, "disabled", "a disabled model cannot be the default")])
