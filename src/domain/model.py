"""The model: an LLM deployment that callers name.

    absent ──create──> live ──update, roll back──> live ──delete──> deleted ──create, restore──> live

A stream goes on for ever: a deleted model's versions never restart. Every event carries the whole
configuration after it (a deletion the last one), so the newest event alone is the current state.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from domain.configuration import KeyOrigins, ModelConfig, check
from domain.errors import InvalidInput, ModelExists, ModelNotFound, Problem
from domain.links import Others, check_links, links_of
from domain.values import ModelId

# Commands: what is asked.


class CreateModel(Struct, frozen=True):
    """Make a model live under a free id; the first live model becomes the default."""

    model_id: ModelId
    config: ModelConfig


class UpdateModel(Struct, frozen=True):
    """Replace a live model's whole configuration."""

    model_id: ModelId
    config: ModelConfig


class DeleteModel(Struct, frozen=True):
    """Take a model out of service; `new_default` takes over in the same append if it was the default."""

    model_id: ModelId
    new_default: ModelId | None = None


class RollBackModel(Struct, frozen=True):
    """Bring back the configuration of an earlier version; `config` is what that version holds.

    With `keeps_credential` the credential stays what it is when the decision is made.
    """

    model_id: ModelId
    to_version: int
    config: ModelConfig
    keeps_credential: bool = False

    def result(self, current: ModelConfig) -> ModelConfig:
        """What becomes of the current configuration."""
        return replace(self.config, credential=current.credential) if self.keeps_credential else self.config


class RestoreModel(Struct, frozen=True):
    """Bring a deleted model back, with the configuration of `from_version`."""

    model_id: ModelId
    from_version: int
    config: ModelConfig


ModelCommand = CreateModel | UpdateModel | DeleteModel | RollBackModel | RestoreModel


# Events: what happened. A tag is stored for ever: add new ones, never rename one.


class ModelCreated(Struct, frozen=True, tag="model.created"):
    """A model went live under an id that no live model had."""

    config: ModelConfig


class ModelUpdated(Struct, frozen=True, tag="model.updated"):
    """A live model's configuration was replaced."""

    config: ModelConfig


class ModelDeleted(Struct, frozen=True, tag="model.deleted"):
    """A model went out of service; `config` is the last one that it had."""

    config: ModelConfig


class ModelRolledBack(Struct, frozen=True, tag="model.rolled_back"):
    """The configuration of an earlier version came back."""

    to_version: int
    config: ModelConfig


class ModelRestored(Struct, frozen=True, tag="model.restored"):
    """A deleted model came back."""

    from_version: int
    config: ModelConfig


ModelEvent = ModelCreated | ModelUpdated | ModelDeleted | ModelRolledBack | ModelRestored


# States.


class Absent(Struct, frozen=True):
    """Nothing was ever recorded under that id."""

    version: Literal[0] = 0


class Live(Struct, frozen=True):
    """In service, as long as its configuration says `enabled`."""

    config: ModelConfig
    version: int


class Deleted(Struct, frozen=True):
    """Out of service; `config` is what it had last."""

    config: ModelConfig
    version: int


Model = Absent | Live | Deleted


def decide(command: ModelCommand, model: Model, origins: KeyOrigins, others: Others) -> ModelEvent | None:
    """Return the event that the command causes; None when it would change nothing.

    Raises:
        ModelExists: creating or restoring what is live.
        ModelNotFound: changing what is not.
        InvalidInput: a configuration that breaks today's rules, an old one included, or that takes another
            live model's name or closes a loop of fallbacks.
    """

    def checked(config: ModelConfig) -> ModelConfig:
        problems = [*check(config.fields(), origins)[1], *_link_problems(command, config, model, others)]
        if problems:
            raise InvalidInput(problems)
        return config

    match command:
        case CreateModel(config=config):
            _refuse_live(command.model_id, model)
            return ModelCreated(checked(config))
        case UpdateModel(config=config):
            current = live(command.model_id, model)
            return None if config == current.config else ModelUpdated(checked(config))
        case DeleteModel():
            return ModelDeleted(live(command.model_id, model).config)
        case RollBackModel(to_version=version):
            current = live(command.model_id, model)
            result = command.result(current.config)
            return None if result == current.config else ModelRolledBack(version, checked(result))
        case RestoreModel(from_version=version, config=config):
            _refuse_live(command.model_id, model)
            if isinstance(model, Absent):
                raise ModelNotFound(command.model_id)
            return ModelRestored(version, checked(config))


def evolve(model: Model, event: ModelEvent) -> Model:
    """Fold one event into the state. Never refuses: what happened, happened."""
    version = model.version + 1
    match event:
        case ModelCreated() | ModelUpdated() | ModelRolledBack() | ModelRestored():
            return Live(event.config, version)
        case ModelDeleted():
            return Deleted(event.config, version)


def live(model_id: ModelId, model: Model) -> Live:
    """The model, if it is in service.

    Raises:
        ModelNotFound: it never was, or it was deleted.
    """
    match model:
        case Live():
            return model
        case Absent():
            raise ModelNotFound(model_id)
        case Deleted(version=version):
            raise ModelNotFound(model_id, version)


def _refuse_live(model_id: ModelId, model: Model) -> None:
    if isinstance(model, Live):
        raise ModelExists(model_id, model.version)


def _link_problems(
    command: ModelCommand, config: ModelConfig, model: Model, others: Others
) -> Iterator[Problem]:
    old = links_of(model.config) if isinstance(model, Live) else None
    from_the_past = isinstance(command, RollBackModel | RestoreModel)
    return check_links(command.model_id, links_of(config), old, others, from_the_past=from_the_past)
