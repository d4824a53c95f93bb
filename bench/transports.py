"""`python -m bench.transports`: what one call to a provider costs, by the ways it could be sent.

Each way sends the same call to the same provider and reads the whole answer as bytes, in this process; only
its processor time is counted. Interleaved rounds, the median of each. Where aiohttp is installed (it is no
dependency: `pip install aiohttp`), the ways over it are shown too.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

import httpx2
import openai
import uvloop

from application.ports import LiveModel, ProviderCall
from domain.configuration import ModelConfig
from domain.values import ModelId, Origin
from infrastructure.provider import KeyRing, Providers

try:
    import aiohttp
except ImportError:
    aiohttp = None

ROUNDS = 5
CLIENTS = 16
MESSAGES = b'"messages":[{"role":"user","content":"hello"}]'
BODIES = {
    "plain": b'{"model":"bench",' + MESSAGES + b"}",
    "stream": b'{"model":"bench","stream":true,' + MESSAGES + b"}",
}
HEADERS = {"authorization": "Bearer key", "content-type": "application/json", "accept-encoding": "identity"}

Call = Callable[[bytes], Awaitable[object]]


@asynccontextmanager
async def sdk_create(origin: str) -> AsyncIterator[Call]:
    """The SDK as an application uses it: every answer and chunk becomes an object."""
    async with openai.AsyncOpenAI(base_url=f"{origin}/v1", api_key="key") as client:

        async def call(body: bytes) -> None:
            messages = [{"role": "user", "content": "hello"}]
            if body is BODIES["plain"]:
                await client.chat.completions.create(model="bench", messages=messages)
            else:
                stream = await client.chat.completions.create(model="bench", messages=messages, stream=True)
                async for _ in stream:
                    pass

        yield call


@asynccontextmanager
async def sdk_post(origin: str, http_client: httpx2.AsyncClient | None = None) -> AsyncIterator[Call]:
    """The SDK with the body's bytes, its answer unread: its own HTTP client, or the one given."""
    async with openai.AsyncOpenAI(
        base_url=f"{origin}/v1", api_key="key", http_client=http_client or openai.DefaultAsyncHttpx2Client()
    ) as client:

        async def call(body: bytes) -> None:
            response = await client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                content=body,
                stream=True,
                stream_cls=openai.AsyncStream[object],
                options={"headers": {"accept-encoding": "identity"}},
            )
            async for _ in response.aiter_raw():
                pass
            await response.aclose()

        yield call


@asynccontextmanager
async def plain_httpx2(origin: str) -> AsyncIterator[Call]:
    """The SDK's HTTP library alone."""
    async with httpx2.AsyncClient(base_url=origin, headers=HEADERS) as client:

        async def call(body: bytes) -> None:
            async with client.stream("POST", "/v1/chat/completions", content=body) as response:
                async for _ in response.aiter_raw():
                    pass

        yield call


@asynccontextmanager
async def plain_aiohttp(origin: str) -> AsyncIterator[Call]:
    """aiohttp alone, with the request that the SDK would build."""
    async with aiohttp.ClientSession(origin, headers=HEADERS) as session:

        async def call(body: bytes) -> None:
            async with session.post("/v1/chat/completions", data=body) as response:
                async for _ in response.content.iter_any():
                    pass

        yield call


@asynccontextmanager
async def ours(origin: str) -> AsyncIterator[Call]:
    """What the gateway does: tries, time limit and all."""
    config = ModelConfig(
        name="bench", max_tokens=4096, supports_streaming=True, supports_temperature=True, provider="openai",
        base_url=f"{origin}/v1",
    )  # fmt: skip
    model = LiveModel(ModelId("bench"), config, 1, 1, datetime.now(UTC))
    client = Providers(KeyRing({Origin(origin): "key"}), 3).connect(model)

    async def call(body: bytes) -> None:
        sent = ProviderCall("/chat/completions", body, stream=False, timeout=60, headers={})
        async with client.send(model, sent) as answer:
            async for _ in answer.chunks:
                pass

    yield call
    await client.close()


async def main(origin: str, count: int) -> None:
    """Print the table."""
    async with AsyncExitStack() as stack:
        ways = {
            "SDK, create (parsed)": await stack.enter_async_context(sdk_create(origin)),
            "SDK, post of bytes": await stack.enter_async_context(sdk_post(origin)),
            "httpx2 alone": await stack.enter_async_context(plain_httpx2(origin)),
        }
        if aiohttp:
            over_aiohttp = sdk_post(origin, openai.DefaultAioHttpClient())
            ways["SDK, post of bytes, over aiohttp"] = await stack.enter_async_context(over_aiohttp)
            ways["aiohttp alone"] = await stack.enter_async_context(plain_aiohttp(origin))
        ways["ours"] = await stack.enter_async_context(ours(origin))
        print(
            f"{'CPU, ms a call':34}{'plain c=1':>12}{'plain c=16':>12}{'stream c=1':>12}{'stream c=16':>12}"
        )
        columns = [(kind, clients) for kind in BODIES for clients in (1, CLIENTS)]
        spent: dict[str, list[list[float]]] = {name: [[] for _ in columns] for name in ways}
        for _ in range(ROUNDS):
            for number, (kind, clients) in enumerate(columns):
                for name, call in ways.items():
                    spent[name][number].append(await cpu_of(call, BODIES[kind], clients, count))
        for name, figures in spent.items():
            print(f"{name:34}" + "".join(f"{median(each):12.3f}" for each in figures))


async def cpu_of(call: Call, body: bytes, clients: int, count: int) -> float:
    """Milliseconds of processor time of this process for one call."""
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            await call(body)

    await call(body)
    before = time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    return 1_000 * (time.process_time() - before) / count


if __name__ == "__main__":
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    upstream = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "provider.py"), str(port)], stdout=subprocess.PIPE
    )
    try:
        if upstream.stdout:
            upstream.stdout.readline()
        uvloop.run(main(f"http://127.0.0.1:{port}", int(sys.argv[1]) if sys.argv[1:] else 400))
    finally:
        upstream.terminate()
        upstream.wait()
