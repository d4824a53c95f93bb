"""Tokens of Microsoft Entra ID, which may stand where the environment's key stands.

azure-identity finds the identity (managed, workload, a service principal in AZURE_CLIENT_ID and its kin, a
developer's sign-in); it is an extra, and imported only when a scope is set.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

logger = logging.getLogger(__name__)

REFRESH: Final = 300.0
"""Seconds before its end from which a token is renewed, beside the calls that still use it."""
PATIENCE: Final = 30.0
"""Seconds between tries to renew one that still holds."""


class NoToken(Exception):
    """There is no valid token; the message is for operators."""


class Token(Protocol):
    """What azure-identity hands out."""

    @property
    def token(self) -> str:
        """The bearer token."""
        ...

    @property
    def expires_on(self) -> int:
        """Its end, as Unix time."""
        ...


class EntraTokens:
    """The current token of one scope."""

    def __init__(self, fetch: Callable[[], Token], now: Callable[[], float] = time.time) -> None:
        """`fetch` blocks, and is run in a thread; `azure_identity` makes one."""
        self._fetch = fetch
        self._now = now
        self._token: Token | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._next_try = 0.0

    async def token(self) -> str:
        """The token; waits only when there is none that holds.

        Raises:
            NoToken: Entra ID gave none.
        """
        now = self._now()
        current = self._token
        if current is None or current.expires_on <= now:
            await asyncio.shield(self._renewing())
            current = self._token
            if current is None or current.expires_on <= self._now():
                raise NoToken("Entra ID gave no token; the log says why")
        elif current.expires_on - now < REFRESH and now >= self._next_try:
            self._renewing()
        return current.token

    def _renewing(self) -> asyncio.Task[None]:
        """The one renewal that is under way; all who need it wait for the same."""
        if self._renewal is None or self._renewal.done():
            self._next_try = self._now() + PATIENCE
            self._renewal = asyncio.create_task(self._renew())
        return self._renewal

    async def _renew(self) -> None:
        try:
            self._token = await asyncio.to_thread(self._fetch)
        except Exception as error:  # azure-identity's own, and what its ways to sign in raise
            logger.error("Entra ID gave no token: %s", type(error).__name__)  # noqa: TRY400 - may quote it
            logger.debug("what azure-identity says", exc_info=error)


def azure_identity(scope: str) -> Callable[[], Token]:
    """A way to fetch tokens of that scope, such as `https://cognitiveservices.azure.com/.default`.

    Raises:
        ImportError: the extra `entra` is not installed.
    """
    from azure.identity import DefaultAzureCredential

    credential = DefaultAzureCredential()
    return lambda: credential.get_token(scope)
