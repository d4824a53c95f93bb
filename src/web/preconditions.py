"""Conditional and repeatable requests: ETags (RFC 9110 section 13) and the Idempotency-Key."""

import hashlib
import re
from typing import Any, Final

from litestar import Request

from application.ledger import Condition
from application.ports import Idempotency
from domain.errors import InvalidInput, Problem
from domain.values import Actor

VERSION_TAG: Final = re.compile(r'(?:W/)?"([0-9]{1,9})"')
ANY_TAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
KEY: Final = re.compile(r'"([\x20\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')


def etag(version: int) -> str:
    """The entity tag of a version."""
    return f'"{version}"'


def read_condition(request: Request[Any, Any, Any]) -> Condition | None:
    """What the client says it saw: `If-Match` with versions or `*`, or `If-None-Match: *`.

    Raises:
        InvalidInput: a header that is no entity tag.
    """
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if none_match is not None:
        if none_match.strip() != "*":
            detail = 'on a change it is "*": only if there is no such model'
            raise InvalidInput([Problem("/if-none-match", "invalid_etag", detail)])
        return Condition(absent=True)
    if match is None:
        return None
    if match.strip() == "*":
        return Condition()
    versions = _versions(match, "If-Match")
    # A strong comparison: weak tags never match (RFC 9110 section 8.8.3.2), nor do other tags.
    return Condition(frozenset(versions) or frozenset({-1}))


def not_modified(request: Request[Any, Any, Any], version: int) -> bool:
    """Whether the client has that version already (`If-None-Match`)."""
    header = request.headers.get("if-none-match")
    if header is None:
        return False
    return header.strip() == "*" or version in _versions(header, "If-None-Match", weak=True)


def read_idempotency(request: Request[Any, Any, Any], actor: Actor, body: bytes) -> Idempotency | None:
    """The caller's key in its scope, with a digest of everything that makes the request what it is.

    Raises:
        InvalidInput: a key that is no string of 1 to 255 visible characters.
    """
    header = request.headers.get("idempotency-key")
    if header is None:
        return None
    found = KEY.fullmatch(header.strip())
    if found is None:
        detail = "a key has 1 to 255 visible ASCII characters, in double quotes or bare"
        raise InvalidInput([Problem("/idempotency-key", "invalid_key", detail)])
    told = [request.url.query, *(request.headers.get(name, "") for name in TELLING), body.hex()]
    fingerprint = hashlib.sha256("\n".join(told).encode("utf-8", "surrogatepass")).digest()
    key = found.group(1) or found.group(2)
    return Idempotency(actor.id, request.method, request.url.path, key, fingerprint)


TELLING: Final = ("content-type", "if-match", "if-none-match", "x-change-reason")
"""The headers that belong to what a request asks for."""


def _versions(header: str, name: str, *, weak: bool = False) -> set[int]:
    versions = set()
    for tag in header.split(","):
        text = tag.strip()
        if not ANY_TAG.fullmatch(text):
            detail = f'{name} is "*" or entity tags such as "7", separated by commas'
            raise InvalidInput([Problem(f"/{name.lower()}", "invalid_etag", detail)])
        found = VERSION_TAG.fullmatch(text)
        if found and (weak or not text.startswith("W/")):
            versions.add(int(found.group(1)))
    return versions
