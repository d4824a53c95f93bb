"""The only way in: read, decide, append."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final
from weakref import WeakValueDictionary

from msgspec import Struct

from application.patch import PatchModel
from application.ports import Append, Context, EventStore, Idempotency, Look, Place, Receipt, Status
from domain import catalog
from domain.catalog import Change, Command, Event
from domain.configuration import KeyOrigins
from domain.default import DefaultChanged
from domain.errors import (
    IdempotencyInFlight,
    InvalidInput,
    LedgerError,
    PreconditionFailed,
    Problem,
    StoreUnavailable,
    VersionConflict,
)
from domain.model import (
    CreateModel,
    Live,
    ModelCreated,
    ModelDeleted,
    ModelRestored,
    ModelRolledBack,
    ModelUpdated,
    RestoreModel,
)
from domain.values import DEFAULT_STREAM, ModelId, Stream

ATTEMPTS: Final = 20
"""Decisions on ever newer states before a change that keeps losing the race is given up."""


Prepare = Callable[[], Awaitable[Command | PatchModel]]
"""Looks up what a command needs; may refuse as the command itself."""


LONGEST_WAIT: Final = 5.0
"""Seconds that a change waits for those before it."""


class Condition(Struct, frozen=True):
    """What the client saw: one of `versions` (If-Match), or that there is no such model (`absent`).

    Neither means `If-Match: *`, which holds for whatever is there.
    """

    versions: frozenset[int] = frozenset()
    absent: bool = False


class Ledger:
    """Turns commands into recorded events."""

    def __init__(self, store: EventStore, origins: KeyOrigins) -> None:
        self._store = store
        self._origins = origins
        self._in_flight: set[tuple[str, str, str, str]] = set()
        self._turns: WeakValueDictionary[Stream, asyncio.Lock] = WeakValueDictionary()

    async def execute(
        self,
        command: Command | PatchModel | Prepare,
        context: Context,
        *,
        condition: Condition | None = None,
        idempotency: Idempotency | None = None,
    ) -> Receipt:
        """Record what the command causes; a command that changes nothing records nothing.

        A command that has to be looked up first is given as a way to do so, as a repeated request gets
        its first answer whatever has become of the model since.

        Raises:
            PreconditionFailed: the subject is not as the client saw it.
            IdempotencyMismatch, IdempotencyInFlight: the key serves another request.
            StoreUnavailable: the database is away, or others kept changing what the decision reads.
            LedgerError: the rules refuse it; see `decide` of the aggregate.
        """
        with self._running(idempotency):
            if idempotency and (answer := await self._store.answered(idempotency)):
                return answer
            try:
                prepared = await command() if callable(command) else command
                return await self._record(prepared, context, condition, idempotency)
            except StoreUnavailable:
                raise
            except LedgerError:
                # Another worker may have done just this meanwhile, under the same key.
                if idempotency and (answer := await self._store.answered(idempotency)):
                    return answer
                raise

    async def _record(
        self,
        command: Command | PatchModel,
        context: Context,
        condition: Condition | None,
        idempotency: Idempotency | None,
    ) -> Receipt:
        async with self._turn(_streams(command)[0]):
            for _ in range(ATTEMPTS):
                append = await self._decide(command, context, condition, idempotency)
                if not append.changes and idempotency is None:
                    return append.receipt
                try:
                    return await self._store.append(append)
                except VersionConflict:
                    continue
        raise StoreUnavailable("ledger_busy", "others keep changing this model; try again")

    async def _decide(
        self,
        command: Command | PatchModel,
        context: Context,
        condition: Condition | None,
        idempotency: Idempotency | None,
    ) -> Append:
        look, command, streams = await self._look(command, condition)
        changes = catalog.decide(command, look.seen, self._origins)
        expected = {stream: look.places.get(stream, Place()).version for stream in streams}
        receipt = _receipt(command.model_id, changes, look.places.get(streams[0], Place()), streams[0])
        return Append(changes, expected, context, receipt, idempotency)

    async def _look(
        self, command: Command | PatchModel, condition: Condition | None
    ) -> tuple[Look, Command, Sequence[Stream]]:
        """Look at all streams that the command names; those of a patch show once it is applied."""
        streams = _streams(command)
        while True:
            look = await self._store.look(streams)
            if condition:
                _require(condition, command, look, streams[0])
            if not isinstance(command, PatchModel):
                return look, command, streams
            update = command.command(look.seen, self._origins)
            more = [stream for stream in catalog.streams(update) if stream not in streams]
            if not more:
                return look, update, streams
            streams = [*streams, *more]

    async def problems(self, command: Command | PatchModel) -> Sequence[Problem]:
        """What the rules say against a command now; empty when they would let it through.

        Raises:
            LedgerError: it would be refused for something else than its values.
        """
        try:
            look, command, _ = await self._look(command, None)
            catalog.decide(command, look.seen, self._origins)
        except InvalidInput as refused:
            return refused.problems
        return ()

    @asynccontextmanager
    async def _turn(self, subject: Stream) -> AsyncIterator[None]:
        """Have this worker's changes of one subject follow one another, instead of losing to each other.

        It saves work and nothing rests on it: between workers the expected versions decide.
        """
        lock = self._turns.setdefault(subject, asyncio.Lock())
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                await lock.acquire()
        except TimeoutError:
            raise StoreUnavailable("ledger_busy", "too many changes wait; nothing was recorded") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _running(self, idempotency: Idempotency | None) -> Iterator[None]:
        """Refuse a second request with a key whose first one is still running in this worker.

        Across workers the append's lock decides: the later one gets the earlier one's answer.
        """
        if idempotency is None:
            yield
            return
        scope = (idempotency.actor, idempotency.method, idempotency.path, idempotency.key)
        if scope in self._in_flight:
            raise IdempotencyInFlight
        self._in_flight.add(scope)
        try:
            yield
        finally:
            self._in_flight.discard(scope)


def _streams(command: Command | PatchModel) -> list[Stream]:
    return command.streams() if isinstance(command, PatchModel) else catalog.streams(command)


def _require(condition: Condition, command: Command | PatchModel, look: Look, subject: Stream) -> None:
    """Compare what the client saw with what is there.

    A model that is not there is refused by its rules, which say more (RFC 9110 section 13.2.1); only
    what may bring it into being is held to the version that was named.
    """
    version = look.places.get(subject, Place()).version
    is_live = subject == DEFAULT_STREAM or isinstance(look.seen.model(ModelId(command.model_id or "")), Live)
    stale = bool(condition.versions) and version not in condition.versions
    matters = is_live or isinstance(command, CreateModel | RestoreModel)
    if (condition.absent and is_live) or (stale and matters):
        named = "default" if subject == DEFAULT_STREAM else command.model_id
        raise PreconditionFailed(named or "", condition.versions, version)


def _receipt(model_id: str | None, changes: Sequence[Change], place: Place, subject: Stream) -> Receipt:
    """The answer, but for the position and hash that the append will give it."""
    own = [change.event for change in changes if change.stream == subject]
    if not own:
        return Receipt("unchanged", model_id, place.version, place.position, place.hash)
    return Receipt(STATUS[type(own[-1])], model_id, place.version + len(own), 0, "")


STATUS: Final[Mapping[type[Event], Status]] = {
    ModelCreated: "created",
    ModelUpdated: "updated",
    ModelDeleted: "deleted",
    ModelRolledBack: "rolled_back",
    ModelRestored: "restored",
    DefaultChanged: "updated",
}
