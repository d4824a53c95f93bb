"""Trial calls: resolve, connect and shake hands by hand to tell what fails, then one real call.

The call goes through the client that the gateway would use, so that it has the same address, headers and
key, and the same rules of where the key may go.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import msgspec
from aiohappyeyeballs import start_connection
from msgspec import Raw
from msgspec.structs import replace

from application.connection_test import ConnectionReport, ConnectionStep, StepName
from application.ports import LiveModel, ProviderCall, ProviderFailed
from domain.calls import is_reasoning
from domain.configuration import ModelConfig
from domain.shaping import shape_chat
from domain.values import ModelId
from infrastructure.client_pool import CannotConnect
from infrastructure.connections import DEFAULT_PORTS, NEXT_ADDRESS
from infrastructure.provider import Providers

STEP_TIMEOUT: Final = 5.0
"""Seconds for each step but the call."""
CALL_TIMEOUT: Final = 20.0
"""Seconds for the call."""
AT_ONCE: Final = 4
"""Trials of one worker; further ones wait for their turn."""
MESSAGES: Final = Raw(b'[{"role":"user","content":"Answer with the word OK."}]')
LIMIT: Final = 16
REASONING_LIMIT: Final = 1_024
"""Tokens; a reasoning model thinks before its first word, and some refuse to be cut short."""
ANSWER_LIMIT: Final = 256 * 1024
"""Bytes of the answer that are read."""
DETAIL_LIMIT: Final = 300
"""Characters."""

REFUSED: Final = (401, 403)


class Failed(Exception):
    """A step failed; the message says why."""


class ProviderTester:
    """See `ConnectionTester`."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def test(self, model_id: ModelId, config: ModelConfig) -> ConnectionReport:
        """See `ConnectionTester.test`."""
        trial = _Trial(self._providers, model_id, replace(config, max_retries=0))
        steps: list[ConnectionStep] = []
        async with self._turns:
            try:
                for name, work in trial.steps():
                    steps.append(await _step(name, work))
                    if not steps[-1].ok:
                        break
            finally:
                trial.close()
        return ConnectionReport(steps[-1].ok, steps)


async def _step(name: StepName, work: Callable[[], Awaitable[str]]) -> ConnectionStep:
    loop = asyncio.get_running_loop()
    began = loop.time()
    limit = CALL_TIMEOUT + STEP_TIMEOUT if name == "authenticate" else STEP_TIMEOUT
    try:
        async with asyncio.timeout(limit):
            ok, detail = True, await work()
    except TimeoutError:
        ok, detail = False, f"nothing came of it within {limit:g} seconds"
    except Failed as error:
        ok, detail = False, str(error)
    return ConnectionStep(name, ok, _plain(detail), round(loop.time() - began, 4))


class _Trial:
    """One configuration on trial; each step builds on what the one before found."""

    def __init__(self, providers: Providers, model_id: ModelId, config: ModelConfig) -> None:
        self._providers = providers
        self._model = LiveModel(model_id, config, 0, 0, datetime.now(UTC))
        origin = urlsplit(config.endpoint().origin)
        self._host = origin.hostname or ""
        self._port = origin.port or DEFAULT_PORTS[origin.scheme]
        self._is_tls = origin.scheme == "https"
        self._found: Sequence[Any] = ()
        self._socket: socket.socket | None = None
        self._reply: tuple[int, bytes] | ProviderFailed | None = None

    def steps(self) -> Iterator[tuple[StepName, Callable[[], Awaitable[str]]]]:
        """What to do, in order."""
        yield "address", self._address
        yield "resolve", self._resolve
        yield "connect", self._connect
        if self._is_tls:
            yield "tls", self._shake_hands
        yield "authenticate", self._authenticate
        yield "answer", self._answer

    def close(self) -> None:
        """Let go of what is open."""
        if self._socket is not None:
            self._socket.close()

    async def _address(self) -> str:
        return f"{self._model.config.endpoint().origin} may be called with this credential"

    async def _resolve(self) -> str:
        loop = asyncio.get_running_loop()
        try:
            self._found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Failed(f"{self._host} has no address: {_reason(error)}") from None
        return ", ".join(dict.fromkeys(str(found[4][0]) for found in self._found))

    async def _connect(self) -> str:
        try:
            self._socket = await start_connection(self._found, happy_eyeballs_delay=NEXT_ADDRESS)
        except OSError as error:
            raise Failed(f"port {self._port} takes no connection: {_reason(error)}") from None
        return f"{self._socket.getpeername()[0]}, port {self._port}"

    async def _shake_hands(self) -> str:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(
                asyncio.Protocol, sock=self._socket, ssl=_tls(), server_hostname=self._host
            )
        except ssl.SSLCertVerificationError as error:
            raise Failed(f"the certificate is not trusted: {error.verify_message}") from None
        except OSError as error:
            raise Failed(f"no TLS: {_reason(error)}") from None
        self._socket = None  # the transport's from here on
        told = f"{transport.get_extra_info('ssl_object').version()}, certificate trusted"
        transport.abort()
        return told

    async def _authenticate(self) -> str:
        """Make the call; all that it comes to but a refusal is told by the next step."""
        self.close()  # the call opens its own
        reply = self._reply = await self._call()
        sends_key = self._model.config.credential is not None
        match reply:
            case ProviderFailed(kind="not_bound" | "not_authorized"):
                raise Failed(str(reply))
            case ProviderFailed():
                return "not known, as no answer came"
            case status, body if status in REFUSED:
                told = "the key is refused" if sends_key else "a key is asked for, and none is sent"
                raise Failed(f"{told} (HTTP {status}){_message(body)}")
            case status, _ if 200 <= status < 300:
                return "the key is accepted" if sends_key else "no key is asked for"
            case status, _:
                return f"the {'key' if sends_key else 'call'} is not refused"

    async def _answer(self) -> str:
        match self._reply:
            case ProviderFailed() as failure:
                raise Failed(str(failure))
            case status, body if 200 <= status < 300:
                if not _is_completion(body):
                    raise Failed("what came is no chat completion")
                return "a chat completion"
            case status, _ if 300 <= status < 400:
                raise Failed(f"it leads elsewhere (HTTP {status}), where no call follows")
            case status, body:
                raise Failed(f"HTTP {status}{_message(body)}")
            case _:
                raise Failed("there was no call")

    async def _call(self) -> tuple[int, bytes] | ProviderFailed:
        model_id, config = self._model.model_id, self._model.config
        limit = REASONING_LIMIT if is_reasoning(model_id, config) else LIMIT
        shaped = shape_chat(model_id, config, {"messages": MESSAGES, "max_tokens": Raw(str(limit).encode())})
        call = ProviderCall(
            path="/chat/completions",
            body=msgspec.json.encode(shaped.fields),
            stream=False,
            timeout=CALL_TIMEOUT,
            headers={},
        )
        try:
            client = self._providers.connect(self._model)
        except CannotConnect as error:
            return ProviderFailed("not_bound", str(error), 0)
        try:
            async with client.send(self._model, call) as answer:
                body = bytearray()
                async for chunk in answer.chunks:
                    body += chunk
                    if len(body) > ANSWER_LIMIT:
                        break
                return answer.status, bytes(body)
        except ProviderFailed as failure:
            return failure
        finally:
            await client.close()


def _message(body: bytes) -> str:
    """What a provider says of an error; the client has blanked the key and the address in it."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        told = msgspec.json.decode(body)
        if isinstance(told, dict):
            error = told.get("error", told)
            message = error.get("message") if isinstance(error, dict) else error
            if isinstance(message, str) and message.strip():
                return f": {message.strip()}"
    return ""


def _is_completion(body: bytes) -> bool:
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(told, dict) and isinstance(told.get("choices"), list)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _plain(text: str) -> str:
    """One line that can be shown, whatever a server made of it."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown if len(shown) <= DETAIL_LIMIT else shown[: DETAIL_LIMIT - 1] + "…"


@cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
