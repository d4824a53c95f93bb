"""Given what happened, when a command is decided, then this comes of it.

    given(CREATED, DELETED).when(UPDATE).then_refused(ModelNotFound)

A decision is shown only the streams that it declares, as the ledger does it.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from factories import ORIGINS

from domain import catalog, default, model
from domain.catalog import Change, Command, Event, Seen
from domain.configuration import KeyOrigins
from domain.default import Default, DefaultChanged
from domain.errors import InvalidInput, LedgerError, Problem
from domain.links import Links, links_of
from domain.model import Absent, Live, Model
from domain.values import ModelId, Stream, model_of

Refusal = TypeVar("Refusal", bound=LedgerError)


class Past:
    """Everything recorded so far, and the states that it folds into, one event after the other."""

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self.streams: dict[Stream, list[Event]] = {}
        self.models: dict[ModelId, Model] = {}
        self.default = Default()
        for change in changes:
            self.record(change)

    def record(self, change: Change) -> None:
        self.streams.setdefault(change.stream, []).append(change.event)
        model_id = model_of(change.stream)
        if isinstance(change.event, DefaultChanged):
            assert model_id is None, "only models have events of models"
            self.default = default.evolve(self.default, change.event)
        else:
            assert model_id is not None, "the default pointer has no events of models"
            self.models[model_id] = model.evolve(self.models.get(model_id, Absent()), change.event)

    def followed_by(self, changes: Iterable[Change]) -> "Past":
        """This past and what came after it; this one stays as it is."""
        after = Past()
        after.streams = {stream: list(events) for stream, events in self.streams.items()}
        after.models, after.default = dict(self.models), self.default
        for change in changes:
            after.record(change)
        return after

    def seen(self, streams: Iterable[Stream] | None = None) -> Seen:
        """The newest events of some streams, or of all."""
        shown = self.streams if streams is None else [name for name in streams if name in self.streams]
        newest = {name: (self.streams[name][-1], len(self.streams[name])) for name in shown}
        live = {model_id: state for model_id, state in self.models.items() if isinstance(state, Live)}
        links = {model_id: links_of(state.config) for model_id, state in live.items()}
        linked = {model_id: each for model_id, each in links.items() if each != Links()}
        return Seen(newest, bool(live), linked)

    def decide(self, command: Command, origins: KeyOrigins = ORIGINS) -> list[Change]:
        """What the command causes, from the streams that it declares."""
        return catalog.decide(command, self.seen(catalog.streams(command)), origins)


class Outcome:
    """What came of a command: changes or a refusal."""

    def __init__(self, past: Past, command: Command, origins: KeyOrigins) -> None:
        self._past = past
        self._changes: list[Change] = []
        self._refusal: LedgerError | None = None
        try:
            self._changes = past.decide(command, origins)
        except LedgerError as refusal:
            self._refusal = refusal
        self._subject = catalog.streams(command)[0]

    def then(self, *changes: Change) -> "Outcome":
        """It is accepted, and these are all its changes, in order."""
        assert self._refusal is None, f"refused: {self._refusal!r}"
        assert self._changes == list(changes)
        return self

    def then_accepted(self) -> list[Change]:
        """It is accepted, and changes something: this."""
        assert self._refusal is None, f"refused: {self._refusal!r}"
        return self._changes

    def then_nothing(self) -> None:
        """It is accepted, and changes nothing."""
        self.then()

    def at_version(self, version: int) -> None:
        """The command's own stream is at that version afterwards."""
        for change in self._changes:
            self._past.record(change)
        assert len(self._past.streams[self._subject]) == version

    def then_refused(self, kind: type[Refusal]) -> Refusal:
        """It is refused for exactly that reason."""
        assert self._changes == [], f"accepted: {self._changes}"
        assert type(self._refusal) is kind
        return self._refusal

    def then_invalid(self, *problems: str) -> None:
        """It is refused for exactly these problems, each told as `/pointer code`."""
        refusal = self.then_refused(InvalidInput)
        assert told(refusal.problems) == sorted(problems)


class Given:
    """A past, to which something is asked."""

    def __init__(self, past: Sequence[Change]) -> None:
        self._past = past

    def when(self, command: Command, origins: KeyOrigins = ORIGINS) -> Outcome:
        return Outcome(Past(self._past), command, origins)


def given(*past: Change) -> Given:
    return Given(past)


def told(problems: Iterable[Problem]) -> list[str]:
    """Problems as `/pointer code`, sorted."""
    return sorted(f"{problem.pointer} {problem.code}" for problem in problems)
