"""The demo upstream: the Azure OpenAI REST API with no language model behind it.

A fresh installation can chat with it before anyone has an Azure account. Every answer quotes the question and
says how to point Model Ledger at a real upstream. These are the routes, and any deployment name will do:

    POST /openai/deployments/{deployment}/{chat/completions,embeddings}?api-version=...    classic Azure
    POST /openai/responses?api-version=...                    the same; the deployment is the body's `model`
    POST /openai/v1/{chat/completions,embeddings,responses}   v1: the deployment is the body's `model`

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
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from threading import Thread
from typing import Any, Final, cast
from urllib.parse import parse_qs
from uuid import uuid4

import msgspec
from msgspec import Struct

from web.demo.requests import DemoOperation, Refusal, invalid, read_call

# The ASGI specification's own names; its messages are open dictionaries.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

PATH: Final = re.compile(
    r"/openai/(?:deployments/(?P<deployment>[^/]+)/(?P<classic>chat/completions|embeddings)"
    r"|(?P<responses>responses)"
    r"|v1/(?P<v1>chat/completions|embeddings|responses))"
)
JSON: Final = b"application/json"
EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"
BODY_LIMIT: Final = 25 * 1024 * 1024
"""Bytes."""
WORD_DELAY: Final = 0.015
"""Seconds between two words of a stream."""
STOP_WITHIN: Final = 3
"""Seconds that running streams get when the process is told to stop; the longest answer takes less."""


class Route(Struct, frozen=True):
    """What a path asks for."""

    operation: DemoOperation
    deployment: str | None
    """None where the body names it, as its `model`."""
    versioned: bool
    """Whether the query has to name the API's version."""


def route_of(path: str) -> Route | None:
    """The route of a path; None for one that is unknown."""
    found = PATH.fullmatch(path)
    if found is None:
        return None
    operation = cast("DemoOperation", found["classic"] or found["responses"] or found["v1"])
    return Route(operation, found["deployment"], versioned=found["v1"] is None)


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
            route = _find_route(scope)
            body = await _read_body(receive)
            call = read_call(route.operation, body, needs_model=route.deployment is None)
        except Refusal as refusal:
            await _respond(send, refusal.status, msgspec.json.encode({"error": refusal.error}))
            return
        answer = call.answer()
        if call.stream:
            await _stream(send, answer.events(include_usage=call.include_usage))
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


def _check_key(scope: Scope, key: str) -> None:
    headers: dict[bytes, bytes] = dict(scope["headers"])
    bearer = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
    offered = (headers.get(b"api-key", b""), bearer)
    if not any(hmac.compare_digest(each, key.encode()) for each in offered):
        reason = "Access denied due to invalid subscription key or wrong API endpoint."
        raise Refusal(401, {"code": "401", "message": f"{reason} Make sure to provide a valid key."})


def _find_route(scope: Scope) -> Route:
    route = route_of(scope["path"])
    query: dict[bytes, list[bytes]] = parse_qs(scope["query_string"])
    if scope["method"] == "POST" and route and (b"api-version" in query or not route.versioned):
        return route
    raise Refusal(404, {"code": "404", "message": "Resource not found"})


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)  # absent when the client left: what follows reaches nobody
        if len(body) > BODY_LIMIT:
            raise invalid(f"The body is larger than {BODY_LIMIT} bytes.", status=413)
    return bytes(body)


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
