"""The demo upstream: the Azure OpenAI REST API with no language model behind it.

A fresh installation can chat with it before anyone has an Azure account. Every answer quotes the question and
says how to point Model Ledger at a real upstream. There are two routes, and any deployment name will do:

    POST /openai/deployments/{deployment}/chat/completions?api-version=...    classic Azure
    POST /openai/v1/chat/completions                        v1: the deployment is the body's `model`

It is a process of its own and must be up at once, so it imports neither the framework nor the SDK.
"""

import asyncio
import contextlib
import errno
import hmac
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from threading import Thread
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs
from uuid import uuid4

import msgspec
from msgspec import Meta, Struct, field

# The ASGI specification's own names; its messages are open dictionaries.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

CLASSIC_PATH: Final = re.compile(r"/openai/deployments/([^/]+)/chat/completions")
V1_PATH: Final = "/openai/v1/chat/completions"
JSON: Final = b"application/json"
EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"
BODY_LIMIT: Final = 25 * 1024 * 1024
"""Bytes."""
WORD_DELAY: Final = 0.015
"""Seconds between two words of a stream."""
QUOTE_LIMIT: Final = 120
"""Characters of the question that an answer repeats."""
STOP_WITHIN: Final = 3
"""Seconds that running streams get when the process is told to stop; the longest answer takes less."""

ABOUT: Final = (
    "This is the demonstration upstream that comes with Model Ledger, and no language model: it cannot "
    "answer you. To reach a real one, start Model Ledger with AZURE_OPENAI_ENDPOINT and "
    "AZURE_OPENAI_API_KEY of your Azure OpenAI resource, then set this model's azure_endpoint to that "
    "endpoint and its deployment to the name of a deployment there. The next message goes to it."
)


class Answer(Struct, frozen=True):
    """One answer in both forms of the API. `pieces` joined are its text; each counts as one token."""

    pieces: Sequence[str]
    prompt_tokens: int = 1
    finish_reason: Literal["stop", "length"] = "stop"
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self) -> bytes:
        """The `chat.completion` object as JSON."""
        message = {"role": "assistant", "content": "".join(self.pieces), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return msgspec.json.encode(self._object("chat.completion", [choice], {"usage": self._usage()}))

    def events(self, *, include_usage: bool = False) -> Iterator[bytes]:
        """The same as server-sent events: role, pieces, finish reason, usage if asked for, `[DONE]`."""
        nothing_yet = {"usage": None} if include_usage else {}
        yield self._event({"role": "assistant", "content": "", "refusal": None}, None, nothing_yet)
        for piece in self.pieces:
            yield self._event({"content": piece}, None, nothing_yet)
        yield self._event({}, self.finish_reason, nothing_yet)
        if include_usage:
            yield sse(self._object("chat.completion.chunk", [], {"usage": self._usage()}))
        yield b"data: [DONE]\n\n"

    def _event(self, delta: object, finish_reason: str | None, extra: Mapping[str, object]) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse(self._object("chat.completion.chunk", [choice], extra))

    def _object(self, kind: str, choices: object, extra: Mapping[str, object]) -> dict[str, object]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": "demo-upstream"}
        return {**head, "system_fingerprint": "fp_demo", "choices": choices, **extra}

    def _usage(self) -> dict[str, int]:
        completion = len(self.pieces)
        total = self.prompt_tokens + completion
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": completion, "total_tokens": total}


def words(text: str) -> list[str]:
    """The words of a text, each with the blanks before it, so that joined they are the text again."""
    return re.findall(r"\s*\S+", text)


def sse(data: object) -> bytes:
    """One server-sent event with that JSON."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def response_start(status: int, content_type: bytes, *headers: tuple[bytes, bytes]) -> Message:
    """The ASGI message that begins a response, with the request id under both of Azure's names."""
    request_id = str(uuid4()).encode()
    ids = ((b"x-request-id", request_id), (b"apim-request-id", request_id))
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [*ids, (b"content-type", content_type), *headers],
    }


def create_demo_upstream(key: str) -> ASGIApp:
    """The application; `key` is accepted in the `api-key` header or as a bearer token.

    Raises:
        ValueError: the key is empty, which would let in every call without one.
    """
    if not key:
        raise ValueError("the demo upstream needs a key")

    async def demo_upstream(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            _check_key(scope, key)
            call = _parse(await _read_body(receive), needs_model=_find_route(scope) == "v1")
        except _RefusalError as refusal:
            await _respond(send, refusal.status, msgspec.json.encode({"error": refusal.error}))
            return
        answer = _answer(call)
        if call.stream:
            await _stream(send, answer.events(include_usage=call.wants_usage()))
        else:
            await _respond(send, 200, answer.whole())

    return demo_upstream


def serve_demo_upstream(port: int, key: str = "", *, exit_with_parent: bool) -> None:
    """Serve on 127.0.0.1 until SIGINT or SIGTERM; returns when all answers are out.

    With `exit_with_parent` the first line of standard input is the key instead of `key` (no secret in
    arguments or environment), and the end of standard input stops the server: the process at its other
    end is gone. SIGINT is then left to that process. Connections are accepted at once and wait for the
    server (0.2 s).

    Raises:
        SystemExit: with a message for standard error and exit code 1; the port is taken, or there is no key.
    """
    if exit_with_parent and sys.platform != "win32":
        # Ctrl-C reaches the whole terminal group; calls that the parent still finishes would lose us.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with contextlib.suppress(KeyboardInterrupt), _listen(port) as listener:
        key = _first_line_of_stdin() if exit_with_parent else key
        if not key:
            sys.exit("demo upstream: there is no key")
        _run(create_demo_upstream(key), listener, exit_with_parent=exit_with_parent)


def _run(app: ASGIApp, listener: socket.socket, *, exit_with_parent: bool) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        interface="asgi3",
        proxy_headers=False,
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=STOP_WITHIN,
    )
    server = uvicorn.Server(config)

    def stop_with_parent() -> None:
        # Not sys.stdin: its lock, held by a thread that waits in read(), aborts the interpreter's exit.
        while os.read(0, 4096):
            pass
        server.should_exit = True

    if exit_with_parent:
        Thread(target=stop_with_parent, daemon=True).start()
    server.run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        why = "the port is taken" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        sys.exit(f"demo upstream: cannot listen on 127.0.0.1:{port}: {why}")


def _first_line_of_stdin() -> str:
    line = b""
    while b"\n" not in line and (more := os.read(0, 4096)):
        line += more
    return line.partition(b"\n")[0].decode().strip()


class _RefusalError(Exception):
    """The call gets this status and error instead of an answer."""

    def __init__(self, status: int, error: Mapping[str, str | None]) -> None:
        super().__init__(error["message"])
        self.status = status
        self.error = error


class _Part(Struct):
    text: str = ""
    """Empty for images and sound."""


class _ChatMessage(Struct):
    role: str
    content: str | list[_Part] | None = None

    def text(self) -> str:
        parts = self.content or ""
        return parts if isinstance(parts, str) else " ".join(part.text for part in parts)


class _StreamOptions(Struct):
    include_usage: bool = False


_Limit = Annotated[int, Meta(ge=1)] | None


class _Call(Struct):
    """What an answer depends on; all other fields of a request are let through unread."""

    messages: Annotated[list[_ChatMessage], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Limit = None
    max_completion_tokens: _Limit = None

    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


def _check_key(scope: Scope, key: str) -> None:
    headers: dict[bytes, bytes] = dict(scope["headers"])
    bearer = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
    offered = (headers.get(b"api-key", b""), bearer)
    if not any(hmac.compare_digest(each, key.encode()) for each in offered):
        reason = "Access denied due to invalid subscription key or wrong API endpoint."
        raise _RefusalError(401, {"code": "401", "message": f"{reason} Make sure to provide a valid key."})


def _find_route(scope: Scope) -> Literal["classic", "v1"]:
    if scope["method"] == "POST" and scope["path"] == V1_PATH:
        return "v1"
    query: dict[bytes, list[bytes]] = parse_qs(scope["query_string"])
    if scope["method"] == "POST" and CLASSIC_PATH.fullmatch(scope["path"]) and b"api-version" in query:
        return "classic"
    raise _RefusalError(404, {"code": "404", "message": "Resource not found"})


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)  # absent when the client left: what follows reaches nobody
        if len(body) > BODY_LIMIT:
            raise _invalid(f"The body is larger than {BODY_LIMIT} bytes.", status=413)
    return bytes(body)


def _parse(body: bytes, *, needs_model: bool) -> _Call:
    try:
        call = msgspec.json.decode(body, type=_Call)
    except msgspec.ValidationError as error:
        missing = re.search(r"missing required field `(\w+)`", str(error))
        place = re.search(r"`\$\.([^`]+)`$", str(error))
        param = ".".join(found[1] for found in (place, missing) if found)
        code = "missing_required_parameter" if missing else "invalid_value"
        raise _invalid(f"{error}.", param=param or None, code=code) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _invalid("We could not parse the JSON body of your request.") from None
    if needs_model and not call.model:
        missing_model = "Missing required parameter: 'model'."
        raise _invalid(missing_model, param="model", code="missing_required_parameter")
    return call


def _invalid(
    message: str, *, param: str | None = None, code: str | None = None, status: int = 400
) -> _RefusalError:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return _RefusalError(status, error)


def _answer(call: _Call) -> Answer:
    questions = [message.text() for message in call.messages if message.role == "user"]
    question = " ".join(questions[-1].split()) if questions else ""
    quote = question if len(question) <= QUOTE_LIMIT else question[:QUOTE_LIMIT].rstrip() + "..."
    pieces = words(f'You wrote: "{quote}". {ABOUT}' if quote else ABOUT)
    limit = min(call.max_tokens or len(pieces), call.max_completion_tokens or len(pieces))
    prompt_tokens = sum(len(message.text().split()) for message in call.messages)
    return Answer(pieces[:limit], prompt_tokens, "length" if limit < len(pieces) else "stop")


async def _respond(send: Send, status: int, body: bytes) -> None:
    await send(response_start(status, JSON, (b"content-length", b"%d" % len(body))))
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Send, events: Iterator[bytes]) -> None:
    # A client that leaves is not watched for: what is sent to it goes nowhere, and the last word comes soon.
    await send(response_start(200, EVENT_STREAM))
    for event in events:
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(WORD_DELAY)
    await send({"type": "http.response.body", "body": b""})
