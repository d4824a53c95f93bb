"""Requests as their very bytes: what a client would correct, or refuse to send."""

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from service import Service


@dataclass(frozen=True)
class RawAnswer:
    """What came back; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


def exchange(
    service: Service,
    method: str,
    target: str | bytes,
    headers: Sequence[bytes] = (),
    body: bytes | None = None,
    *,
    token: str | None = None,
) -> RawAnswer:
    """Send one request on a connection of its own; the token is the service's, "" sends none."""
    url = urlsplit(service.url)
    sent_token = service.token if token is None else token
    lines = [
        b"%s %s HTTP/1.1" % (method.encode(), target.encode() if isinstance(target, str) else target),
        b"Host: localhost",
        b"Connection: close",
        *([b"Authorization: Bearer " + sent_token.encode()] if sent_token else []),
        *([b"Content-Length: %d" % len(body)] if body is not None else []),
        *headers,
    ]
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        with suppress(ConnectionError):  # a refusal may come before the end of a long body
            connection.sendall(b"\r\n".join([*lines, b"", b""]) + (body or b""))
        answer = b""
        with suppress(ConnectionResetError):  # likewise
            while part := connection.recv(65_536):
                answer += part
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    assert first, "the connection was closed without an answer"
    pairs = (line.partition(": ") for line in rest)
    return RawAnswer(int(first.split()[1]), {name.lower(): value for name, _, value in pairs}, content)
