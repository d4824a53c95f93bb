"""The closed unions of commands and events, and the decider of each command."""

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from domain import default, model
from domain.configuration import KeyOrigins, ModelConfig
from domain.default import Default, DefaultChanged, SetDefault
from domain.links import Links, Others
from domain.model import (
    Absent,
    CreateModel,
    DeleteModel,
    Live,
    Model,
    ModelCommand,
    ModelEvent,
    RestoreModel,
    RollBackModel,
    UpdateModel,
)
from domain.values import DEFAULT_STREAM, MODEL_ID, ModelId, Stream, model_of, model_stream

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
    links: Mapping[ModelId, Links] = {}
    """Those of every live model that has any."""

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

    def others(self) -> Others:
        """What a decision on one model has to know of those around it."""
        named = (model_id for stream in self.events if (model_id := model_of(stream)))
        return Others(self.links, frozenset(each for each in named if isinstance(self.model(each), Live)))


def streams(command: Command) -> list[Stream]:
    """Every stream that the decision looks at, also those it may not write. The first is its subject."""
    match command:
        case SetDefault(model_id=model_id):
            return [DEFAULT_STREAM, *([model_stream(model_id)] if model_id else [])]
        case DeleteModel(model_id=model_id, new_default=successor):
            named = [model_stream(successor)] if successor and successor != model_id else []
            return [model_stream(model_id), DEFAULT_STREAM, *named]
        case CreateModel(model_id=model_id, config=config) | RestoreModel(model_id=model_id, config=config):
            return _once(model_stream(model_id), DEFAULT_STREAM, *_named(config))
        case UpdateModel(model_id=model_id, config=config) | RollBackModel(model_id=model_id, config=config):
            return _once(model_stream(model_id), *_named(config))


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
            event = model.decide(command, seen.model(model_id), origins, seen.others())
            heir = seen.model(successor) if successor else Absent()
            handed_on = default.decide_successor(command, seen.default(), heir)
            return [*_changes(DEFAULT_STREAM, handed_on), *_changes(model_stream(model_id), event)]
        case CreateModel(model_id=model_id) | RestoreModel(model_id=model_id):
            event = model.decide(command, seen.model(model_id), origins, seen.others())
            first = default.decide_first(model_id, seen.default(), any_live=seen.any_live)
            return [*_changes(DEFAULT_STREAM, first), *_changes(model_stream(model_id), event)]
        case UpdateModel(model_id=model_id) | RollBackModel(model_id=model_id):
            event = model.decide(command, seen.model(model_id), origins, seen.others())
            return _changes(model_stream(model_id), event)


def _changes(stream: Stream, event: Event | None) -> list[Change]:
    return [] if event is None else [Change(stream, event)]


def _named(config: ModelConfig) -> Iterator[Stream]:
    """The streams of the models that a configuration names, or may take a name from."""
    names = [*(config.fallbacks or ()), *(config.aliases or ())]
    return (model_stream(ModelId(name)) for name in names if MODEL_ID.fullmatch(name))


def _once(*streams: Stream) -> list[Stream]:
    return list(dict.fromkeys(streams))
