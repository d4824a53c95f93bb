"""A scripted upstream: the demo upstream's shapes, faults on order, exact counts, every request kept.

    with ScriptedUpstream() as up:
        up.script(Status(429, headers={"retry-after": "0"}), Reply("hello"))    # the next two calls
        up.script(Hang(), deployment="slow")                                    # a call of that deployment
        await wait_until(lambda: up.aborted == 1, within=2)

A call takes the next step of its own deployment's script, else of the script for all; else it gets an echo
that tells what arrived. It is counted like this:

    started ──┬──> finished   the step was played to its end, a fault included
              ├──> aborted    the client left before
              └──> live       neither, yet

The server has a thread and an event loop of its own: nothing that a test does with its loop delays an
answer. The counters lag a moment behind what the client saw, so wait for them; `requests` has a call before
its answer begins.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from socket import create_server
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qsl

import msgspec
import uvicorn

from web.demo.answers import Answer, ChatAnswer, EmbeddingsAnswer, ResponseAnswer, sse, words
from web.demo.requests import DemoOperation
from web.demo.upstream import EVENT_STREAM, JSON, Receive, Scope, Send, response_start, route_of


@dataclass(frozen=True)
class Reply:
    """That text, plain or word by word, as the call asks."""

    text: str


@dataclass(frozen=True)
class Stream:
    """Those chunks, `delay` seconds apart; with `hold`, all after the first chunk waits until it is set.

    A plain call gets them joined, after the same waits.
    """

    chunks: Sequence[str]
    delay: float = 0.01
    hold: Event | None = None


@dataclass(frozen=True)
class Status:
    """An error. Without `body` it has Azure's shape, with the status as its code."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: object = None


@dataclass(frozen=True)
class Raw:
    """Exactly this."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Pieces:
    """Those bytes as a stream, one piece after the other; all after the first wait until `hold` is set."""

    pieces: Sequence[bytes]
    hold: Event


@dataclass(frozen=True)
class Hang:
    """Nothing at all until `release` is set, then the echo."""

    release: Event = field(default_factory=Event)


@dataclass(frozen=True)
class CutMidStream:
    """The connection closes after so many chunks, before the end of the body; a plain answer is halved."""

    after: int = 3


@dataclass(frozen=True)
class EndWithoutDone:
    """A stream that ends properly as HTTP, after so many chunks, with neither finish reason nor `[DONE]`."""

    after: int = 3


@dataclass(frozen=True)
class ErrorFrame:
    """A stream that has an error in place of its next chunk, after so many, and ends there.

    It has the shape that the operation gives to errors in streams.
    """

    after: int = 3


JSON_HEADERS: Final = {"content-type": JSON.decode()}

Step = Reply | Stream | Status | Raw | Pieces | Hang | CutMidStream | EndWithoutDone | ErrorFrame


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived; header names are in lower case, `json` is None for a body that is none."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    json: object
    at: float
    """When the whole body was there, as `time.monotonic()`."""

    @property
    def fields(self) -> Mapping[str, object]:
        """The body's fields; empty if it is no JSON object."""
        return self.json if isinstance(self.json, dict) else {}

    @property
    def deployment(self) -> str:
        """From the path (classic) or the body's `model` (v1); empty if neither names one."""
        route = route_of(self.path)
        return (route and route.deployment) or str(self.fields.get("model", ""))

    @property
    def operation(self) -> DemoOperation:
        """What is asked for; a chat on unknown paths."""
        route = route_of(self.path)
        return route.operation if route else "chat/completions"

    @property
    def stream(self) -> bool:
        """Whether the answer is to come as a stream."""
        return bool(self.fields.get("stream")) and self.operation != "embeddings"

    def answer(self, pieces: Sequence[str]) -> Answer:
        """An answer of those pieces to this request; all embeddings are of the whole text."""
        match self.operation:
            case "chat/completions":
                return ChatAnswer(pieces)
            case "responses":
                return ResponseAnswer(pieces)
            case "embeddings":
                inputs = self.fields.get("input")
                number = len(inputs) if isinstance(inputs, list) else 1
                return EmbeddingsAnswer(["".join(pieces)] * number, dimensions=4)

    @property
    def key(self) -> str:
        """From `api-key` or the bearer token; empty without."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return self.headers.get("api-key", bearer)

    def echo(self) -> str:
        """What the echo says about this request; of the key only its last four characters."""
        api_version = self.query.get("api-version", "none")
        return f"deployment={self.deployment} api-version={api_version} key={self.key[-4:] or 'none'}"


class ScriptedUpstream:
    """The upstream on a free port of 127.0.0.1, from entering the context (sync or async) to leaving it."""

    def __init__(self) -> None:
        self.stream_chunks: int | None = None
        """How many content chunks the echo's streams have; None: one for each word."""
        self.chunk_delay = 0.0
        """Seconds between two of them, in a stream."""
        self.started = 0
        self.finished = 0
        self.aborted = 0
        self._requests: list[RecordedRequest] = []
        self._scripts: dict[str | None, deque[Step]] = defaultdict(deque)
        self._bugs: list[BaseException] = []
        self._port = 0

    @property
    def origin(self) -> str:
        """Scheme, host and port, without a slash."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests so far, oldest first."""
        return list(self._requests)

    @property
    def live(self) -> int:
        """Calls that are running now."""
        return self.started - self.finished - self.aborted

    @property
    def unplayed(self) -> int:
        """Steps that no call has taken yet."""
        return sum(len(steps) for steps in self._scripts.values())

    def script(self, *steps: Step, deployment: str | None = None) -> None:
        """Append steps for the next calls: of that deployment, or (None) of all that have no script left."""
        self._scripts[deployment].extend(steps)

    def forget(self) -> None:
        """Have no script, no requests and counters at nought, for the next test; nothing may be live."""
        self._requests.clear()
        self._scripts.clear()
        self.started = self.finished = self.aborted = 0

    def __enter__(self) -> Self:
        listener = create_server(("127.0.0.1", 0))
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",  # a bound method is taken for ASGI 2
            proxy_headers=False,
            loop="asyncio",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # faults on order would be logged as errors
            access_log=False,
            timeout_keep_alive=60,  # an idle connection that closes at a bad moment is no fault of the script
            timeout_graceful_shutdown=0,
        )
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [listener]}, name="upstream")
        self._thread.start()
        block_until(lambda: self._server.started, within=5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=5)
        assert not self._thread.is_alive(), "the scripted upstream does not stop"
        if self._bugs and error is None:
            raise self._bugs[0]

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await _record(scope, receive)
        self._requests.append(request)
        self.started += 1
        playing = asyncio.ensure_future(self._play(self._next_step(request), request, send))
        leaving = asyncio.ensure_future(_client_leaves(receive))
        try:
            await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            # The end of an answer looks like a client that left, so what was played to its end comes first.
            if playing.done():
                self.finished += 1
                self._bugs.extend(filter(None, [playing.exception()]))
            else:
                self.aborted += 1
        finally:
            playing.cancel()
            leaving.cancel()
            await asyncio.gather(playing, leaving, return_exceptions=True)

    def _next_step(self, request: RecordedRequest) -> Step:
        for name in (request.deployment, None):
            if steps := self._scripts.get(name):
                return steps.popleft()
        if route_of(request.path):
            return self._echo(request)
        return Status(404)

    def _echo(self, request: RecordedRequest) -> Stream:
        delay = self.chunk_delay if request.fields.get("stream") else 0
        if self.stream_chunks is None:
            return Stream(words(request.echo()), delay)
        rest = (f" {n}" for n in range(2, self.stream_chunks + 1))
        return Stream([request.echo(), *rest], delay)

    async def _play(self, step: Step, request: RecordedRequest, send: Send) -> None:
        match step:
            case Reply(text):
                await _send_chunks(send, request, Stream(words(text), delay=0))
            case Stream():
                await _send_chunks(send, request, step)
            case Status(status, headers, body):
                error = {"error": {"code": str(status), "message": "Ordered by the script."}}
                content = msgspec.json.encode(error if body is None else body)
                await _send_body(send, status, {**JSON_HEADERS, **headers}, content)
            case Raw(status, headers, body):
                await _send_body(send, status, headers, body)
            case Pieces(pieces, hold):
                await _send_pieces(send, pieces, hold)
            case Hang(release):
                await _is_set(release)
                await _send_chunks(send, request, self._echo(request))
            case CutMidStream(after):
                await _cut(send, request, after)
            case EndWithoutDone(after):
                await _begin_stream(send, request, after)
                await send({"type": "http.response.body", "body": b""})
            case ErrorFrame(after):
                await _begin_stream(send, request, after)
                await send({"type": "http.response.body", "body": _error_event(request)})


async def _record(scope: Scope, receive: Receive) -> RecordedRequest:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    try:
        decoded = msgspec.json.decode(body)
    except msgspec.DecodeError:
        decoded = None
    return RecordedRequest(
        method=scope["method"],
        path=scope["path"],
        query=dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True)),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        body=bytes(body),
        json=decoded,
        at=time.monotonic(),
    )


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_chunks(send: Send, request: RecordedRequest, step: Stream) -> None:
    answer = request.answer(step.chunks)
    if not request.stream:
        async for _ in _paced(step):
            pass
        await _send_body(send, 200, JSON_HEADERS, answer.whole())
        return
    options = request.fields.get("stream_options")
    events = answer.events(include_usage=isinstance(options, dict) and options.get("include_usage") is True)
    await send(response_start(200, EVENT_STREAM))
    await _send_events(send, islice(events, 1))  # the opening
    async for _ in _paced(step):
        await _send_events(send, islice(events, 1))
    await _send_events(send, events)
    await send({"type": "http.response.body", "body": b""})


async def _paced(step: Stream) -> AsyncIterator[str]:
    for number, chunk in enumerate(step.chunks):
        if number:
            await asyncio.sleep(step.delay)
        yield chunk
        if step.hold:
            await _is_set(step.hold)


async def _begin_stream(send: Send, request: RecordedRequest, chunks: int) -> None:
    pieces = [f"chunk {number} " for number in range(1, chunks + 1)]
    await send(response_start(200, EVENT_STREAM))
    await _send_events(send, islice(request.answer(pieces).events(), 1 + chunks))


async def _cut(send: Send, request: RecordedRequest, after: int) -> None:
    # No last message: the server closes the connection.
    if request.stream:
        await _begin_stream(send, request, after)
        return
    body = request.answer(words(request.echo())).whole()
    await send(response_start(200, JSON, (b"content-length", b"%d" % len(body))))
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})


def _error_event(request: RecordedRequest) -> bytes:
    error = {"message": "The server had an error.", "code": None}
    if request.operation == "responses":
        return b"event: error\n" + sse({"type": "error", "sequence_number": 99, "param": None, **error})
    return sse({"error": {**error, "type": "server_error"}})


async def _send_events(send: Send, events: Iterator[bytes]) -> None:
    for event in events:
        await send({"type": "http.response.body", "body": event, "more_body": True})


async def _send_body(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    given = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *given]})
    await send({"type": "http.response.body", "body": body})


async def _send_pieces(send: Send, pieces: Sequence[bytes], hold: Event) -> None:
    await send(response_start(200, EVENT_STREAM))
    for number, piece in enumerate(pieces):
        if number:
            await _is_set(hold)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _is_set(event: Event) -> None:
    while not event.is_set():  # noqa: ASYNC110  the event belongs to the test's thread, no loop can wait for it
        await asyncio.sleep(0.005)


async def wait_until(check: Callable[[], object], *, within: float) -> None:
    """Let other tasks run until the check is true, for at most so many seconds.

    Raises:
        AssertionError: it did not become true.
    """
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, f"did not happen within {within} s"
        await asyncio.sleep(0.005)


def block_until(check: Callable[[], object], *, within: float) -> None:
    """The same where there is no event loop, or none that matters."""
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, f"did not happen within {within} s"
        time.sleep(0.005)
