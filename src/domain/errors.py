"""Every way the ledger can say no.

LedgerError
├── InvalidInput          values that break a rule; every problem at once, each with its field
├── ModelNotFound         no live model has that id
├── VersionNotFound       the stream has no such version
├── ModelExists           a live model has that id already
├── ModelFrozen           its newest event was written by a newer release than this one
├── DefaultProtected      the default model cannot go before another one (or none) is the default
├── PatchRefused          a JSON Patch that does not apply to the current configuration
├── UndoConflict          what is to be undone was changed again since
├── PreconditionFailed    the client named a version, and the model is at another one
├── PreconditionRequired  the installation asks for If-Match, and the request has none
├── VersionConflict       someone else appended first; read again and retry
├── IdempotencyMismatch   the key was used before, for another request
├── IdempotencyInFlight   the first request with that key is still running
└── StoreUnavailable      the database is away, locked for too long, or its answer was lost
"""

from collections.abc import Sequence

from msgspec import Struct

from domain.changes import Conflict


class Problem(Struct, frozen=True):
    """One broken rule: `pointer` is a JSON pointer to the field (RFC 6901), `code` is stable."""

    pointer: str
    code: str
    detail: str


class LedgerError(Exception):
    """Base of all refusals. Never raised itself."""


class InvalidInput(LedgerError):
    """Values that break a rule."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.pointer}: {problem.detail}" for problem in problems))
        self.problems = tuple(problems)


class ModelNotFound(LedgerError):
    """No live model has that id; `deleted_at_version` tells that there was one."""

    def __init__(self, model_id: str, deleted_at_version: int | None = None) -> None:
        was = f"; it was deleted in version {deleted_at_version}" if deleted_at_version else ""
        super().__init__(f"there is no model {model_id!r}{was}")
        self.model_id = model_id
        self.deleted_at_version = deleted_at_version


class VersionNotFound(LedgerError):
    """The stream has no such version."""

    def __init__(self, model_id: str, version: int) -> None:
        super().__init__(f"model {model_id!r} has no version {version}")
        self.model_id = model_id
        self.version = version


class ModelExists(LedgerError):
    """A live model has that id already."""

    def __init__(self, model_id: str, version: int) -> None:
        super().__init__(f"model {model_id!r} exists already, at version {version}")
        self.model_id = model_id
        self.version = version


class ModelFrozen(LedgerError):
    """Its newest event was written by a newer release than this one, so nothing can be decided."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"{stream} was last changed by a newer release; upgrade this one to change it")
        self.stream = stream


class DefaultProtected(LedgerError):
    """The default model cannot go before another one (or none) is the default."""

    def __init__(self, model_id: str) -> None:
        super().__init__(
            f"{model_id!r} is the default model: name another one (?new_default=<id>), "
            'or make none the default (PUT /api/config/default with {"model_id": null})'
        )
        self.model_id = model_id


class PatchRefused(LedgerError):
    """A JSON Patch that does not apply to the current configuration (RFC 6902 section 5)."""


class UndoConflict(LedgerError):
    """Some fields of the change that is to be undone were changed again since."""

    def __init__(self, version: int, conflicts: Sequence[Conflict]) -> None:
        fields = ", ".join(conflict.field for conflict in conflicts)
        super().__init__(f"changed again since version {version}: {fields}")
        self.version = version
        self.conflicts = tuple(conflicts)


class PreconditionFailed(LedgerError):
    """The client named a version, and the model is at another one (`current`; 0 means it never was)."""

    def __init__(self, model_id: str, named: frozenset[int], current: int) -> None:
        super().__init__(f"model {model_id!r} is at version {current}, not at the version that was named")
        self.model_id = model_id
        self.named = named
        self.current = current


class PreconditionRequired(LedgerError):
    """The installation asks for If-Match on every change, and the request has none."""

    def __init__(self) -> None:
        super().__init__("this installation asks for an If-Match header on every change")


class VersionConflict(LedgerError):
    """Someone else appended first: one of the streams that the decision read has moved."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"{stream} has changed since it was read")
        self.stream = stream


class IdempotencyMismatch(LedgerError):
    """The key was used before, for another request."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used for another request; take a new key")


class IdempotencyInFlight(LedgerError):
    """The first request with that key is still running."""

    def __init__(self) -> None:
        super().__init__("a request with this Idempotency-Key is still running; ask again for its answer")


class StoreUnavailable(LedgerError):
    """The database is away, locked for too long, or its answer was lost.

    `code` is `database_unavailable`, `ledger_busy` or `outcome_unknown`; after the last one only a
    retry with the same Idempotency-Key (or a read) tells whether the change was recorded.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
