"""Pages of entries: cursors, limits, and the link to the next page (RFC 8288)."""

from typing import Any, Final
from urllib.parse import urlencode

from litestar import Request

from domain.errors import InvalidInput, Problem

LARGEST_PAGE: Final = 500


def read_cursor(cursor: str | None, pointer: str = "/cursor") -> int | None:
    """Where the page begins: below this version or position; None for the newest.

    Raises:
        InvalidInput: it is none that an answer gave.
    """
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidInput([Problem(pointer, "invalid_cursor", "take the one that an answer gave")])
    return int(cursor)


def read_limit(limit: int) -> int:
    """How many entries a page has.

    Raises:
        InvalidInput: not from 1 to `LARGEST_PAGE`.
    """
    if not 1 <= limit <= LARGEST_PAGE:
        raise InvalidInput([Problem("/limit", "invalid_value", f"from 1 to {LARGEST_PAGE}")])
    return limit


def next_link(request: Request[Any, Any, Any], cursor: str | None) -> dict[str, str]:
    """The headers of a page: where the next one is, unless this is the last."""
    headers = {"Cache-Control": "no-store"}
    if cursor is not None:
        query = {**dict(request.query_params), "cursor": cursor}
        headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
    return headers
