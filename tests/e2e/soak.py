"""What the soaks use: callers that cost little, and a worker's open files and memory (Linux)."""

import asyncio
import json
import re
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from service import Service
from workers import workers

DATA: Final = re.compile(rb"^data: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Streamed:
    """A stream as its caller got it."""

    version: int
    """Of the configuration that answered."""
    text: str
    finish_reason: str | None
    done: bool


class Caller:
    """Streams of one connection that is kept, one after the other."""

    def __init__(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._service = service
        self._reader = reader
        self._writer = writer

    async def begin(self, model_id: str, *, stream: bool = True) -> None:
        """Send a call."""
        body = {"model": model_id, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
        content = json.dumps(body)
        self._writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            f"authorization: Bearer {self._service.token}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\n\r\n{content}".encode()
        )
        await self._writer.drain()

    async def head(self) -> dict[str, str]:
        """The headers of an answer that is a success."""
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        assert first.split()[1] == "200", first
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def chunk(self) -> bytes:
        """The next part of a stream; empty at its end."""
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def stream(self, model_id: str) -> Streamed:
        """Make a whole one."""
        await self.begin(model_id)
        version = int((await self.head())["x-model-ledger-version"])
        body = bytearray()
        while part := await self.chunk():
            body += part
        events = DATA.findall(body)
        done = bool(events) and events[-1] == b"[DONE]"
        text, finish_reason = "", None
        for event in map(json.loads, events[: -1 if done else None]):
            for choice in event.get("choices", []):
                text += choice["delta"].get("content") or ""
                finish_reason = choice["finish_reason"]
        return Streamed(version, text, finish_reason, done)

    async def leave(self) -> None:
        """Break the connection off, whatever is under way."""
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def callers(service: Service, count: int) -> AsyncIterator[list[Caller]]:
    """So many callers, who leave in the end, all at once."""
    url = urlsplit(service.url)
    # A caller's connection, and the upstream's of its call.
    with many_open_files(2 * count + 500):
        pairs = [await asyncio.open_connection(url.hostname, url.port) for _ in range(count)]
        everyone = [Caller(service, *pair) for pair in pairs]
        try:
            yield everyone
        finally:
            await asyncio.gather(*(each.leave() for each in everyone))


@contextmanager
def many_open_files(wanted: int) -> Iterator[None]:
    """Let this process open so many; the test is skipped where that is forbidden."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"at most {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def worker(service: Service) -> int:
    """The process of a service that has one worker."""
    (pid,) = workers(service)
    return pid


def open_files(pid: int) -> int:
    """How many files and sockets a process holds."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident(pid: int) -> int:
    """A process's memory in kB."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])
