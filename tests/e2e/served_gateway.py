"""The gateway alone, in a small application between the real SDK and a scripted upstream; its fixtures."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from socket import create_server
from threading import Thread
from typing import Any, Final, Self

import httpx2
import pytest
import uvicorn
from litestar import Litestar, Request, Response
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers.base import BaseRouteHandler
from msgspec.structs import replace
from openai import AsyncOpenAI, DefaultAsyncHttpx2Client
from upstream import ScriptedUpstream, block_until, wait_until

from application.ports import Caller, CallRecord, LiveModel
from application.telemetry import Untraced
from domain.access import Role
from domain.configuration import ModelConfig
from domain.errors import LedgerError
from domain.values import Actor, ModelId, Origin
from infrastructure.client_pool import ClientPool
from infrastructure.provider import KeyRing, Providers
from infrastructure.retries import Backoff
from web.gateway.answers import Gateway
from web.gateway.openai_errors import openai_failure
from web.gateway.routes import GatewayController

KEY: Final = "sk-the-providers-key"
TOKEN: Final = "the-callers-token"
ANNA: Final = Caller(Actor("token:anna", "Anna", "token"), Role.ADMINISTRATOR)
NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
HELLO: Final = [{"role": "user", "content": "hello"}]
JSON: Final = {"content-type": "application/json"}
EVENTS: Final = {"content-type": "text/event-stream"}


def answer_failure(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return openai_failure(error)


async def let_anna_in(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    connection.scope["user"] = ANNA


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


class ServedGateway:
    """The gateway on a free port, in a thread and loop of its own; its models are set from the test."""

    def __init__(self, up: ScriptedUpstream) -> None:
        self.up = up
        ring = KeyRing({Origin(up.origin): KEY})
        self.pool = ClientPool(Providers(ring, 3, Backoff(sleep=at_once)).connect)
        self.records: list[CallRecord] = []
        self.bugs: list[Exception] = []
        self.gateway = Gateway(self.pool, self, Untraced())
        self.app = Litestar(
            route_handlers=[GatewayController],
            guards=[let_anna_in],
            dependencies={"clients": Provide(lambda: self.pool, sync_to_thread=False)},
            exception_handlers={
                LedgerError: answer_failure,
                HTTPException: answer_failure,
                Exception: self._answer_bug,
            },
            on_startup=[self._know_loop],
            on_shutdown=[self.pool.close],
            logging_config=None,
        )
        self.app.state.gateway = self.gateway
        self._loop: asyncio.AbstractEventLoop
        self._version = 0

    @property
    def config(self) -> ModelConfig:
        """Of a model at classic Azure."""
        return ModelConfig(
            name="A model",
            max_tokens=4096,
            supports_streaming=True,
            supports_temperature=True,
            azure_endpoint=self.up.origin,
            api_version="2025-01-01-preview",
            deployment="prod",
        )

    @property
    def v1(self) -> ModelConfig:
        """Of a model at Azure's v1 API."""
        return replace(self.config, azure_endpoint=f"{self.up.origin}/openai/v1")

    @property
    def compatible(self) -> ModelConfig:
        """Of a model at a server that is compatible with OpenAI's."""
        return ModelConfig(
            name="A model",
            max_tokens=4096,
            supports_streaming=True,
            supports_temperature=True,
            provider="openai",
            base_url=f"{self.up.origin}/openai/v1",
            deployment="prod",
        )

    async def serve(self, configs: Mapping[str, ModelConfig] | None = None, **changes: Any) -> int:
        """Serve these models from now on, or `gpt-4` with changes; answers the new version."""
        self._version += 1
        configs = configs if configs is not None else {"gpt-4": replace(self.config, **changes)}
        wanted = {
            ModelId(name): LiveModel(ModelId(name), config, self._version, 100 + self._version, NOON)
            for name, config in configs.items()
        }
        change = asyncio.run_coroutine_threadsafe(self.pool.reconcile(wanted), self._loop)
        await asyncio.wrap_future(change)
        return self._version

    def record(self, call: CallRecord) -> None:
        """See `CallLog.record`."""
        self.records.append(call)

    async def recorded(self, count: int = 1) -> Sequence[CallRecord]:
        """The records, when so many are there; the caller may have its answer a moment earlier."""
        await wait_until(lambda: len(self.records) >= count, within=2)
        assert len(self.records) == count
        return self.records

    def forget(self) -> None:
        """Begin anew, for the next test."""
        self.gateway.traces = Untraced()
        self.records.clear()
        self.bugs.clear()
        self.up.forget()

    def __enter__(self) -> Self:
        listener = create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        config = uvicorn.Config(
            self.app, loop="asyncio", log_config=None, log_level="critical", access_log=False, lifespan="on"
        )
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [listener]}, name="gateway")
        self._thread.start()
        block_until(lambda: self._server.started, within=5)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)
        assert not self._thread.is_alive(), "the gateway does not stop"

    def _answer_bug(self, _: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        self.bugs.append(error)
        return openai_failure(error)

    async def _know_loop(self) -> None:
        self._loop = asyncio.get_running_loop()


@pytest.fixture(scope="session")
def gateway_server() -> Iterator[ServedGateway]:
    with ScriptedUpstream() as upstream, ServedGateway(upstream) as gateway:
        yield gateway


@pytest.fixture
async def gateway(gateway_server: ServedGateway) -> AsyncIterator[ServedGateway]:
    """The gateway, serving `gpt-4` of classic Azure; in the end nothing may be left of the test."""
    server = gateway_server
    server.forget()
    await server.serve()
    yield server
    await wait_until(lambda: server.up.live == 0 and server.pool.leases == 0, within=2)
    await wait_until(lambda: server.pool.draining == 0, within=2)
    assert server.up.unplayed == 0, "the test did not make the calls that it scripted"
    assert server.bugs == []


@pytest.fixture
async def gateway_sdk(gateway: ServedGateway) -> AsyncIterator[AsyncOpenAI]:
    http = DefaultAsyncHttpx2Client(trust_env=False, verify=False)
    async with AsyncOpenAI(base_url=gateway.url, api_key=TOKEN, max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture
async def gateway_http(gateway: ServedGateway) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, verify=False, timeout=10) as client:
        yield client


async def ask(http: httpx2.AsyncClient, **fields: Any) -> httpx2.Response:
    """Ask for a chat completion."""
    return await http.post("/chat/completions", json={"model": "gpt-4", "messages": HELLO, **fields})


async def post(
    http: httpx2.AsyncClient, body: bytes, path: str = "/chat/completions", **headers: str
) -> httpx2.Response:
    return await http.post(path, content=body, headers={**JSON, **headers})


def error_of(response: httpx2.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return dict(error)


def events_of(response: httpx2.Response) -> list[Any]:
    """What the `data` lines say."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
