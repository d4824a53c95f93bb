"""The trace that a request belongs to, read from its headers as W3C Trace Context has it."""

import re
from collections.abc import Iterable
from typing import Final

from application.telemetry import TraceContext

PARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]*)?"
)
PARENT_LIMIT: Final = 256
"""Bytes; later versions of the standard may add to the 55 of today."""
MEMBER: Final = re.compile(
    rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
MEMBERS: Final = 32
STATE_LIMIT: Final = 512
"""Bytes, as many as the standard asks everyone to pass on; members after them are left out."""


def read_trace_context(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext | None:
    """The request's context; None without one that is valid.

    Args:
        headers: as ASGI has them, names in lower case.
    """
    parent = None
    states = []
    for name, value in headers:
        if name == b"traceparent":
            if parent is not None:
                return None  # which of them it is would be a guess
            parent = value
        elif name == b"tracestate":
            states.append(value)
    if parent is None or not _is_parent(parent):
        return None
    return TraceContext(parent.decode("ascii"), _state(states) if states else "")


def _is_parent(text: bytes) -> bool:
    found = PARENT.fullmatch(text) if len(text) <= PARENT_LIMIT else None
    return found is not None and (found[1] != b"00" or found[2] is None)


def _state(lines: Iterable[bytes]) -> str:
    """The members of all lines, as one line; empty when one of them is not valid."""
    members = [stripped for member in b",".join(lines).split(b",") if (stripped := member.strip(b" \t"))]
    if len(members) > MEMBERS or not all(map(MEMBER.fullmatch, members)):
        return ""
    while len(state := b",".join(members)) > STATE_LIMIT:
        members.pop()
    return state.decode("ascii")
