"""What the application needs from the outside, and the values that cross that border."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from domain.access import Role
from domain.catalog import Change, Seen
from domain.configuration import ModelConfig
from domain.values import Actor, ModelId, Stream

Source = Literal["ui", "api", "cli", "import", "system"]
Status = Literal["created", "updated", "deleted", "rolled_back", "restored", "unchanged"]


# Who asks.


class Caller(Struct, frozen=True):
    """Who a token belongs to, and the role that it has."""

    actor: Actor
    role: Role


class Authenticator(Protocol):
    """Knows the tokens, without asking anyone."""

    def authenticate(self, token: str) -> Caller | None:
        """Who the token belongs to; None for one that is unknown or revoked.

        Raises:
            StoreUnavailable: nothing is known of any token yet.
        """
        ...


# The ledger.


class Context(Struct, frozen=True):
    """Who asks, through what, why, and in which request."""

    actor: Actor
    source: Source
    request_id: str
    reason: str | None = None


class Idempotency(Struct, frozen=True):
    """A caller's key, in its scope. `fingerprint` is a digest of the whole request."""

    actor: str
    method: str
    path: str
    key: str
    fingerprint: bytes


class Place(Struct, frozen=True):
    """Where a stream stands: its newest event's version, position and hash (hexadecimal)."""

    version: int = 0
    position: int = 0
    hash: str = ""


class Look(Struct, frozen=True):
    """One consistent look at some streams; a stream without events has no place."""

    seen: Seen
    places: Mapping[Stream, Place]


class Receipt(Struct, frozen=True):
    """The answer to a change, fit to be kept: what came of it, and where it stands in the ledger."""

    status: Status
    model_id: str | None
    version: int
    position: int
    hash: str
    """SHA-256 of the chain at `position`, hexadecimal; empty when nothing was ever recorded."""


class Append(Struct, frozen=True):
    """What one append writes, all or nothing. Without changes only the answer is kept for its key."""

    changes: Sequence[Change]
    expected: Mapping[Stream, int]
    """The version of every stream that the decision looked at; 0 for one without events."""
    context: Context
    receipt: Receipt
    """The answer; the append puts its own position and hash in when there are changes."""
    idempotency: Idempotency | None


class EventStore(Protocol):
    """The append-only ledger."""

    async def look(self, streams: Sequence[Stream]) -> Look:
        """Read the newest event of each stream.

        Raises:
            ModelFrozen: one of them cannot be read by this release.
            StoreUnavailable: the database is away.
        """
        ...

    async def answered(self, idempotency: Idempotency) -> Receipt | None:
        """The answer that was given under that key; None when there was none.

        Raises:
            IdempotencyMismatch: it was given to another request.
        """
        ...

    async def append(self, append: Append) -> Receipt:
        """Record the changes, and the answer under its key, in one transaction.

        Raises:
            VersionConflict: a stream is not at the expected version.
            IdempotencyMismatch: the key was used meanwhile, for another request.
            StoreUnavailable: the database is away or busy, or its answer was lost.
        """
        ...


# The providers.


class LiveModel(Struct, frozen=True):
    """A model as the gateway serves it: a configuration, and the event that made it."""

    model_id: ModelId
    config: ModelConfig
    version: int
    position: int
    recorded_at: datetime


class ProviderCall(Struct, frozen=True):
    """One call as the provider gets it."""

    path: Literal["/chat/completions", "/embeddings", "/responses"]
    body: bytes
    stream: bool
    timeout: float
    """Seconds, over all tries."""
    headers: Mapping[str, str]
    """Headers that callers may pass on; none of them says where the call goes or with which key."""


class ProviderAnswer(Struct, frozen=True):
    """A provider's answer, unread: its bytes come as they arrive."""

    status: int
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    attempts: int
    """Tries that reached for the provider, this one included."""
    chunks: AsyncIterator[bytes]
    """The body as it was sent. Of an error it is bounded, and holds neither the key nor the address.

    An empty chunk says that nothing came for 15 seconds.
    """


class ProviderFailed(Exception):
    """No answer came, or it broke off. `kind` is fit for metrics, the message for callers."""

    def __init__(
        self,
        kind: Literal["connect", "timeout", "broken", "not_bound", "not_authorized"],
        message: str,
        attempts: int,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.attempts = attempts


class Lease(Protocol):
    """The use of one configuration version's client by one call, from its start to its end."""

    @property
    def model(self) -> LiveModel:
        """The version that was current when the call started."""
        ...

    def send(self, call: ProviderCall) -> AbstractAsyncContextManager[ProviderAnswer]:
        """Call the provider; leaving the context ends the call, whatever is still under way.

        One task enters the context, reads the answer and leaves. What fails while the answer is read
        comes out of the context, too: at its end, not where the body is iterated.

        Raises:
            ProviderFailed: no answer came within the call's timeout, after all tries, or it broke off.
        """
        ...


@runtime_checkable
class Clients(Protocol):
    """The pool of clients, always at the newest configuration that this worker knows."""

    def lease(self, name: str) -> AbstractAsyncContextManager[Lease]:
        """Lend the client of the current version; it stays open until it is given back.

        Args:
            name: a model's id or one of its aliases.

        Raises:
            ModelNotFound: no enabled model serves under that name.
            ProviderFailed: there is one, but no client can be built from its configuration.
        """
        ...

    def names(self) -> Mapping[str, LiveModel]:
        """Every name that callers can use now, ids and aliases, and the model that it means; sorted."""
        ...

    def fallbacks(self, model_id: ModelId) -> Sequence[ModelId]:
        """The models to try after that one, in order, each once and never the model itself.

        Depth first: after a fallback come its own ones, also after one that cannot be called now and is
        left out itself.
        """
        ...


# What is known of calls afterwards.

Operation = Literal["chat", "embeddings", "responses"]


class Tokens(Struct, frozen=True):
    """What a call used, as its provider told it."""

    input: int
    output: int


class CallRecord(Struct, frozen=True, kw_only=True):
    """One model's part in one call, without any of its content.

    A call whose first model failed has one record for each model that was tried.
    """

    model_id: ModelId
    version: int
    asked: str
    """The name in the caller's request: this model's id or alias, or those of one that fell back to it."""
    caller: Actor
    operation: Operation
    stream: bool
    """Whether the caller asked for a stream."""
    status: int
    """As the caller got it or would have got it; 499 when the caller left, 502 for a stream that broke."""
    error: str | None
    """Why it is no success, in one word fit for metrics: `connect`, `timeout`, `broken`, `http_429`, ..."""
    attempts: int
    """Tries that reached for the provider."""
    started_at: datetime
    first_byte: float | None
    """Seconds until the answer's first byte; None without one."""
    duration: float
    """Seconds until the end."""
    tokens: Tokens | None
    """None when the provider told nothing."""


class CallLog(Protocol):
    """Takes the records of calls; never waits and never raises, as callers would pay for it."""

    def record(self, call: CallRecord) -> None:
        """Take one."""
        ...
