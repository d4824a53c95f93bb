"""The local snapshot: what the gateway needs while the database is away, as the content of one file.

    model-ledger snapshot <format> <SHA-256 of the rest, hexadecimal>
    {"database": ..., "saved_at": ..., "live": {...}, "callers": {...}, "demo_origin": ...}

It holds what is configured, and the digests of the access tokens; neither a token nor a provider's key. What
it says of a model is what the ledger says of it: a key that is sealed there is sealed here.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Struct

from application.ports import Caller
from domain.values import Origin
from infrastructure.live import Live

FORMAT: Final = 1
"""To be raised when a field gets another meaning; new and missing fields are noticed anyway."""
HEAD: Final = re.compile(rb"model-ledger snapshot (\d{1,9}) ([0-9a-f]{64})\n")
ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class UnusableSnapshot(Exception):
    """This content is nothing to serve from; the message says why."""


class LocalSnapshot(Struct, frozen=True):
    """What was live at a moment, and who could call it."""

    database: str
    """The database that it was read from; see `place_digest`."""
    saved_at: datetime
    """When it was last known to be the ledger's state."""
    live: Live
    callers: Mapping[str, Caller]
    """By the SHA-256 of their token, hexadecimal."""
    demo_origin: Origin | None
    """Where the demo upstream of this installation listens."""


def encode(snapshot: LocalSnapshot) -> bytes:
    """The content of the file."""
    body = ENCODER.encode(snapshot)
    return b"model-ledger snapshot %d %s\n" % (FORMAT, _checksum(body)) + body


def decode(content: bytes) -> LocalSnapshot:
    """The snapshot that `encode` was given.

    Raises:
        UnusableSnapshot: damaged, cut off, or written by a release that knows other fields.
    """
    head = HEAD.match(content)
    if head is None:
        raise UnusableSnapshot("it does not begin as a snapshot does")
    if int(head[1]) != FORMAT:
        raise UnusableSnapshot(f"its format is {int(head[1])}, and this release reads {FORMAT}")
    body = content[head.end() :]
    if _checksum(body) != head[2]:
        raise UnusableSnapshot("it is damaged")
    try:
        snapshot = msgspec.json.decode(body, type=LocalSnapshot)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnusableSnapshot(f"another release wrote it: {error}") from error
    # A field that is not known here may be a limit on who calls what: it must not get lost unnoticed.
    if ENCODER.encode(snapshot) != body:
        raise UnusableSnapshot("another release wrote it: it has other fields")
    return snapshot


def place_digest(url: str, environ: Mapping[str, str] = os.environ) -> str:
    """Tells databases apart: a digest of host, port and name, without anything of a password."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    login, _, host = parts.netloc.rpartition("@")
    user = options.get("user") or login.partition(":")[0] or environ.get("PGUSER", "")
    name = options.get("dbname") or options.get("database") or parts.path.strip("/")
    place = (
        options.get("host") or host or environ.get("PGHOST", ""),
        options.get("port") or environ.get("PGPORT", ""),
        name or environ.get("PGDATABASE") or user,  # one that is not named has the login's name
    )
    return hashlib.sha256(msgspec.json.encode(place)).hexdigest()


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
