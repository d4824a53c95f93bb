"""The providers: calls through the SDK's client of one configuration, tried again where that may help.

Retries, time limits and the ends of calls are decided here; bytes pass untouched in both directions.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from openai import AsyncOpenAI

from application.ports import LiveModel, ProviderAnswer, ProviderCall, ProviderFailed
from domain import calls
from domain.configuration import KeyOrigins, ModelConfig
from domain.values import Origin
from infrastructure.client_pool import CannotConnect
from infrastructure.connections import Broken, Connection, Connections, Unreachable
from infrastructure.entra import EntraTokens, NoToken
from infrastructure.retries import Backoff, may_pass
from infrastructure.sdk_clients import TOKEN, Route, WrongOrigin, request_head, route_of, sdk_client

ERROR_LIMIT: Final = 256 * 1024
"""Bytes of an error's body that are read."""
NO_WORD: Final = 20
"""Characters from which a key cannot be a word that an answer may hold; local servers take any for a key."""
HEADER: Final = re.compile(r"[A-Za-z0-9-]+: [\x20-\x7e]*")


class NotBound(CannotConnect):
    """The key may not be sent to the model's origin."""


Key = str | EntraTokens
"""What proves to a provider that a call may be made: a key, or a token that is renewed."""


class KeyRing:
    """The keys of the credential `environment`, in memory, each bound to an origin."""

    def __init__(self, keys: Mapping[Origin, Key]) -> None:
        self._keys = dict(keys)

    @property
    def origins(self) -> KeyOrigins:
        """Where a key may go."""
        return frozenset(self._keys)

    def key_for(self, config: ModelConfig) -> Key | None:
        """The key of a model's calls; None when they carry none.

        Raises:
            NotBound: no key is bound to the origin that the calls go to.
            ValueError: the address breaks a rule of `parse_endpoint`.
        """
        if config.credential is None:
            return None
        origin = config.endpoint().origin
        try:
            return self._keys[origin]
        except KeyError:
            raise NotBound(f"no key is bound to {origin}; see MODEL_LEDGER_KEY_ORIGINS") from None


class Providers:
    """Makes clients; those of one origin share their connections."""

    def __init__(self, keys: KeyRing, o_series_max_retries: int, backoff: Backoff | None = None) -> None:
        self._keys = keys
        self._o_series_max_retries = o_series_max_retries
        self._backoff = backoff or Backoff()
        self._shared = _SharedConnections()

    def connect(self, model: LiveModel) -> "ProviderClient":
        """The client of a model's configuration; nothing is sent yet.

        Raises:
            CannotConnect: the address breaks a rule, or (`NotBound`) its key may not go there.
        """
        try:
            origin, route = model.config.endpoint().origin, route_of(model)
            key = self._keys.key_for(model.config)
        except ValueError as error:
            raise CannotConnect(str(error)) from None
        return ProviderClient(route, origin, key, self._shared, self._backoff, self._o_series_max_retries)


class _SharedConnections:
    """The connections by origin, each with the number of their users."""

    def __init__(self) -> None:
        self._open: dict[Origin, tuple[Connections, int]] = {}

    def take(self, origin: Origin) -> Connections:
        connections, users = self._open.get(origin) or (Connections(origin), 0)
        self._open[origin] = (connections, users + 1)
        return connections

    def give_back(self, origin: Origin) -> None:
        connections, users = self._open.pop(origin)
        if users > 1:
            self._open[origin] = (connections, users - 1)
        else:
            connections.close()


class ProviderClient:
    """The client of one configuration; see `client_pool.Client`."""

    def __init__(
        self,
        route: Route,
        origin: Origin,
        key: Key | None,
        shared: _SharedConnections,
        backoff: Backoff,
        o_series_max_retries: int,
    ) -> None:
        self.sdk: AsyncOpenAI = sdk_client(route, TOKEN if isinstance(key, EntraTokens) else key)
        self._route = route
        self._origin = origin
        self._key = key
        self._shared = shared
        self._connections = shared.take(origin)
        self._backoff = backoff
        self._o_series_max_retries = o_series_max_retries
        self._heads: dict[str, bytes] = {}

    def fits(self, model: LiveModel) -> bool:
        """See `client_pool.Client.fits`."""
        try:
            return route_of(model) == self._route
        except ValueError:
            return False

    async def close(self) -> None:
        """See `client_pool.Client.close`."""
        self._shared.give_back(self._origin)

    @asynccontextmanager
    async def send(self, model: LiveModel, call: ProviderCall) -> AsyncIterator[ProviderAnswer]:
        """See `Lease.send`."""
        exchange = _Exchange(
            self._connections,
            self._backoff,
            calls.retries(model.model_id, model.config, self._o_series_max_retries),
        )
        limit = asyncio.timeout(call.timeout)
        try:
            async with limit:
                secret = await self._key.token() if isinstance(self._key, EntraTokens) else self._key
                head = await self._head(call, secret)
                connection = await exchange.run(head, call.body, limit)
                connection.secret = secret.encode("ascii") if secret and len(secret) >= NO_WORD else b""
                status = connection.status
                chunks = connection if 200 <= status < 300 else self._error(connection, secret)
                yield ProviderAnswer(status, connection.headers, exchange.attempts, chunks)
        except TimeoutError:
            if not limit.expired():
                raise
            told = f"the provider did not answer within {call.timeout:g} seconds"
            raise ProviderFailed("timeout", told, exchange.attempts) from None
        except WrongOrigin as error:
            told = "the call was not sent: wrong address"
            raise ProviderFailed("not_bound", told, exchange.attempts) from error
        except NoToken as error:
            told = "the gateway has no token for the provider; whoever runs it can correct that"
            raise ProviderFailed("not_authorized", told, exchange.attempts) from error
        except Unreachable as error:
            raise ProviderFailed("connect", "the provider cannot be reached", exchange.attempts) from error
        except Broken as error:
            told = "the connection to the provider broke off"
            raise ProviderFailed("broken", told, exchange.attempts) from error
        finally:
            exchange.end()

    async def _head(self, call: ProviderCall, secret: str | None) -> bytes:
        """Everything before the body."""
        head = self._heads.get(call.path)
        if head is None:
            head = await request_head(self.sdk, call.path, self._origin, key=self._key is not None)
            self._heads[call.path] = head
        if secret is not None and secret is not self._key:
            head = head.replace(TOKEN.encode(), secret.encode("ascii"))
        lines = [f"{name}: {value}" for name, value in call.headers.items()]
        if not all(map(HEADER.fullmatch, lines)):
            raise ValueError("a header that no request may carry")
        lines.append(f"content-length: {len(call.body)}\r\n\r\n")
        return head + "\r\n".join(lines).encode("ascii")

    async def _error(self, chunks: AsyncIterator[bytes], secret: str | None) -> AsyncIterator[bytes]:
        """An error's body as callers may read it: some providers quote the key or the address."""
        body = bytearray()
        try:
            async for chunk in chunks:
                body += chunk
                if len(body) > ERROR_LIMIT:
                    break
        except Broken:
            pass  # the status tells enough
        yield _blanked(bytes(body), secret, urlsplit(self._origin).hostname or "")


class _Exchange:
    """The tries of one call, up to the answer that another one would not better; one connection at a time."""

    __slots__ = ("_backoff", "_connection", "_connections", "_retries", "attempts")

    def __init__(self, connections: Connections, backoff: Backoff, retries: int) -> None:
        self._connections = connections
        self._backoff = backoff
        self._retries = retries
        self._connection: Connection | None = None
        self.attempts = 0

    async def run(self, head: bytes, body: bytes, limit: asyncio.Timeout) -> Connection:
        """The connection, with its answer's body unread.

        Raises:
            Unreachable, Broken: the last try came to no answer.
        """
        while True:
            self.attempts += 1
            try:
                self._connection = connection = await self._connections.take()
                await connection.ask(head, body)
                if 200 <= connection.status < 300:
                    return connection
                pause = self._pause(connection)
            except Unreachable:
                pause = self._backoff.pause(self.attempts) if self.attempts <= self._retries else None
                if not self._fits(pause, limit):
                    raise
            else:
                if not self._fits(pause, limit):
                    return connection
            self.end()
            await self._backoff.sleep(pause or 0.0)

    def end(self) -> None:
        """Give the connection back; what is still under way on it ends."""
        if self._connection is not None:
            self._connections.give_back(self._connection)
            self._connection = None

    def _pause(self, answer: Connection) -> float | None:
        """Seconds before another try; None when there is none."""
        if self.attempts > self._retries or not may_pass(answer.status, answer.headers):
            return None
        return self._backoff.pause(self.attempts, answer.headers)

    def _fits(self, pause: float | None, limit: asyncio.Timeout) -> bool:
        return pause is not None and asyncio.get_running_loop().time() + pause < (limit.when() or 0)


def _blanked(text: bytes, secret: str | None, host: str) -> bytes:
    # A host without a dot may be a word of the message, or of its JSON.
    address = host if "." in host or ":" in host else f"//{host}"
    found = (re.escape(word.encode()) for word in (secret, address) if word)
    return re.sub(b"|".join(found), b"***", text, flags=re.IGNORECASE)
