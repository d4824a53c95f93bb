"""Sessions: people who are signed in with a browser, each on behalf of an access token."""

from datetime import datetime, timedelta
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from application.ports import Caller

IDLE: Final = timedelta(hours=12)
"""A session that nobody uses for so long is over."""
LONGEST: Final = timedelta(days=7)
"""And so is every session that old."""
LINK_LIFE: Final = timedelta(hours=24)
"""A sign-in link that nobody has used for so long is void."""


class Session(Struct, frozen=True):
    """A session that is open."""

    caller: Caller
    expires_at: datetime
    """When it ends, if it is not used until then."""


class Opened(Struct, frozen=True):
    """A session that was just opened."""

    secret: str
    """What proves it; only the browser keeps it."""

    def __repr__(self) -> str:
        """Without the secret."""
        return "Opened()"


@runtime_checkable
class Sessions(Protocol):
    """The sessions. Every method raises `StoreUnavailable` when it cannot answer."""

    async def find(self, secret: str, *, used: bool = True) -> Session | None:
        """The open session of a secret; None when there is none (any more).

        Args:
            secret: what the browser sent.
            used: whether that counts as a use, which keeps it open.
        """
        ...

    async def open(self, token: str, before: str | None) -> Opened | None:
        """Open a session for a token's holder, and end the browser's one before; None for no valid token."""
        ...

    async def redeem(self, code: str, before: str | None) -> Opened | None:
        """The same with the code of a sign-in link, which is void from then on."""
        ...

    async def close(self, secret: str) -> None:
        """End a session, in every worker."""
        ...
