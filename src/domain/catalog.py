"""The closed unions of commands and events, and the decider of each command."""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from domain import default, model
from domain.configuration import KeyOrigins
from domain.default import Default, DefaultChanged, SetDefault
from domain.model import Absent, CreateModel, DeleteModel, Model, ModelCommand, ModelEvent, RestoreModel
from domain.values import DEFAULT_STREAM, ModelId, Stream, model_stream

Command = ModelCommand | SetDefault
Event = ModelEvent | DefaultChanged


class Change(Struct, frozen=True):
    """An event, and the stream that it goes to."""

    stream: Stream
    event: Event


class Seen(Struct, frozen=True):
    """What a decision looks at. A stream that is missing holds no events yet."""

    events: Mapping[Stream, tuple[Event, int]]
    """The newest event of each stream, with its version: as events are fat, it is the whole state."""
    any_live: bool
    """Whether any model is live."""

    def model(self, model_id: ModelId) -> Model:
        """The state of one model."""
        event, version = self.events.get(model_stream(model_id), (None, 0))
        if event is None or isinstance(event, DefaultChanged):
            return Absent()
        return replace(model.evolve(Absent(), event), version=version)

    def default(self) -> Default:
        """The state of the default pointer."""
        event, version = self.events.get(DEFAULT_STREAM, (None, 0))
        return Default(event.model_id, version) if isinstance(event, DefaultChanged) else Default()


def streams(command: Command) -> list[Stream]:
    """Every stream that the decision looks at, also those it may not write. The first is its subject."""
    match command:
        case SetDefault(model_id=model_id):
            return [DEFAULT_STREAM, *([model_stream(model_id)] if model_id else [])]
        case DeleteModel(model_id=model_id, new_default=successor):
            named = [model_stream(successor)] if successor and successor != model_id else []
            return [model_stream(model_id), DEFAULT_STREAM, *named]
        case CreateModel(model_id=model_id) | RestoreModel(model_id=model_id):
            return [model_stream(model_id), DEFAULT_STREAM]
        case model.UpdateModel(model_id=model_id) | model.RollBackModel(model_id=model_id):
            return [model_stream(model_id)]


def decide(command: Command, seen: Seen, origins: KeyOrigins) -> list[Change]:
    """Return the changes that the command causes, in order; none when it would change nothing.

    Raises:
        LedgerError: the rules refuse it; see `decide` of the aggregate.
    """
    match command:
        case SetDefault(model_id=model_id):
            subject = seen.model(model_id) if model_id else Absent()
            return _changes(DEFAULT_STREAM, default.decide(command, seen.default(), subject))
        case DeleteModel(model_id=model_id, new_default=successor):
            event = model.decide(command, seen.model(model_id), origins)
            heir = seen.model(successor) if successor else Absent()
            handed_on = default.decide_successor(command, seen.default(), heir)
            return [*_changes(DEFAULT_STREAM, handed_on), *_changes(model_stream(model_id), event)]
        case CreateModel(model_id=model_id) | RestoreModel(model_id=model_id):
            event = model.decide(command, seen.model(model_id), origins)
            first = default.decide_first(model_id, seen.default(), any_live=seen.any_live)
            return [*_changes(DEFAULT_STREAM, first), *_changes(model_stream(model_id), event)]
        case model.UpdateModel(model_id=model_id) | model.RollBackModel(model_id=model_id):
            return _changes(model_stream(model_id), model.decide(command, seen.model(model_id), origins))


def _changes(stream: Stream, event: Event | None) -> list[Change]:
    return [] if event is None else [Change(stream, event)]
