"""The providers: calls through the SDK's client of one configuration, tried again where that may help.

Retries, time limits and the ends of calls are decided here; bytes pass untouched in both directions.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, cast
from urllib.parse import urlsplit

import anyio
import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, Omit

from application.ports import LiveModel, ProviderAnswer, ProviderCall, ProviderFailed
from domain import calls
from domain.configuration import KeyOrigins, ModelConfig
from domain.values import Origin
from infrastructure.client_pool import CannotConnect
from infrastructure.http_clients import HttpClients, WrongOrigin
from infrastructure.retries import Backoff, may_pass
from infrastructure.sdk_clients import NO_AUTHENTICATION, Route, route_of, sdk_client

BROKEN: Final = (httpx2.TransportError, ssl.SSLError, anyio.EndOfStream)
"""How a connection ends before the answer does; httpx2 lets the last two through from TLS."""


class NotBound(CannotConnect):
    """The key may not be sent to the model's origin."""


class KeyRing:
    """The keys of the credential `environment`, in memory, each bound to an origin."""

    def __init__(self, keys: Mapping[Origin, str]) -> None:
        self._keys = dict(keys)

    @property
    def origins(self) -> KeyOrigins:
        """Where a key may go."""
        return frozenset(self._keys)

    def key_for(self, config: ModelConfig) -> str | None:
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
        self._http = HttpClients()

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
        return ProviderClient(route, origin, key, self._http, self._backoff, self._o_series_max_retries)


class ProviderClient:
    """The SDK's client of one configuration; see `client_pool.Client`."""

    def __init__(
        self,
        route: Route,
        origin: Origin,
        key: str | None,
        http: HttpClients,
        backoff: Backoff,
        o_series_max_retries: int,
    ) -> None:
        self.sdk: AsyncOpenAI = sdk_client(route, key, http.take(origin))
        self._route = route
        self._origin = origin
        self._http = http
        self._backoff = backoff
        self._o_series_max_retries = o_series_max_retries
        self._headers: Mapping[str, str | Omit]
        # Identity: what passes untouched must be readable by a caller who asked for no encoding.
        self._headers = {"Accept-Encoding": "identity", **({} if key else NO_AUTHENTICATION)}
        self._secrets = _secrets(key, urlsplit(origin).hostname or "")

    def fits(self, model: LiveModel) -> bool:
        """See `client_pool.Client.fits`."""
        try:
            return route_of(model) == self._route
        except ValueError:
            return False

    async def close(self) -> None:
        """See `client_pool.Client.close`."""
        await self._http.give_back(self._origin)  # the SDK's own close would close what others share

    @asynccontextmanager
    async def send(self, model: LiveModel, call: ProviderCall) -> AsyncIterator[ProviderAnswer]:
        """See `Lease.send`."""
        tries = _Tries(calls.retries(model.model_id, model.config, self._o_series_max_retries))
        limit = asyncio.timeout(call.timeout)
        try:
            async with limit:
                response = await self._answer(call, tries, limit)
                chunks = response.aiter_raw() if response.is_success else self._error(response)
                try:
                    yield ProviderAnswer(response.status_code, response.headers, tries.made, chunks)
                finally:
                    if not response.is_closed:
                        # Shielded: a second cancellation must not leave the connection behind.
                        await asyncio.shield(_end(chunks, response))
        except TimeoutError:
            if not limit.expired():
                raise
            told = f"the provider did not answer within {call.timeout:g} seconds"
            raise ProviderFailed("timeout", told, tries.made) from None
        except WrongOrigin as error:
            raise ProviderFailed("not_bound", "the call was not sent: wrong address", tries.made) from error
        except BROKEN as error:
            raise _failed(error, tries) from error

    async def _answer(self, call: ProviderCall, tries: "_Tries", limit: asyncio.Timeout) -> httpx2.Response:
        """The first answer that another try would not better; its body is unread if it is a success."""
        answer: httpx2.Response | ProviderFailed
        while True:
            tries.made += 1
            try:
                answer = await self._post(call)
            except openai.APIConnectionError as error:
                answer = _failed(error.__cause__, tries)
            pause = _pause(answer, tries, self._backoff)
            if pause is None or asyncio.get_running_loop().time() + pause >= (limit.when() or 0):
                break
            await self._backoff.sleep(pause)
        if isinstance(answer, ProviderFailed):
            raise answer
        return answer

    async def _post(self, call: ProviderCall) -> httpx2.Response:
        try:
            response = await self.sdk.post(
                call.path,
                cast_to=httpx2.Response,
                content=call.body,
                options={"headers": {**call.headers, **self._headers}},
                stream=True,
                stream_cls=AsyncStream[object],
            )
        except openai.APIStatusError as error:
            return error.response
        return cast("httpx2.Response", response)  # as `cast_to` has it, whatever the overload says

    async def _error(self, response: httpx2.Response) -> AsyncGenerator[bytes]:
        """An error's body as callers may read it: some providers quote the key or the address."""
        yield self._secrets.sub(b"***", response.content)


class _Tries:
    """How often a call was tried, and how often it may be tried again."""

    __slots__ = ("made", "retries")

    def __init__(self, retries: int) -> None:
        self.made = 0
        self.retries = retries


def _pause(answer: httpx2.Response | ProviderFailed, tries: _Tries, backoff: Backoff) -> float | None:
    """Seconds before another try; None when there is none."""
    if tries.made > tries.retries:
        return None
    if isinstance(answer, ProviderFailed):
        return backoff.pause(tries.made) if answer.kind == "connect" else None
    if answer.is_success or not may_pass(answer.status_code, answer.headers):
        return None
    return backoff.pause(tries.made, answer.headers)


def _failed(error: BaseException | None, tries: _Tries) -> ProviderFailed:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return ProviderFailed("connect", "the provider cannot be reached", tries.made)
    return ProviderFailed("broken", "the connection to the provider broke off", tries.made)


async def _end(chunks: AsyncGenerator[bytes], response: httpx2.Response) -> None:
    await chunks.aclose()
    await response.aclose()


def _secrets(key: str | None, host: str) -> re.Pattern[bytes]:
    # A host without a dot may be a word of the message, or of its JSON.
    address = host if "." in host or ":" in host else f"//{host}"
    found = (re.escape(secret.encode()) for secret in (key, address) if secret)
    return re.compile(b"|".join(found), re.IGNORECASE)
