"""Points in the past as requests name them: an instant, or a position."""

import re
from datetime import UTC, datetime
from typing import Final

from application.views import Views
from domain.errors import InvalidInput, Problem

LARGEST: Final = 2**63 - 1
EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
"""Nothing was recorded before; earlier instants mean the same."""
INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def parse_instant(text: str, field: str) -> datetime:
    """An instant with its offset (RFC 3339).

    Raises:
        InvalidInput: it is none.
    """
    # A '+' that was not escaped arrives as a space.
    sent = text.replace(" ", "+")
    try:
        # fromisoformat alone takes more than RFC 3339 has, such as weeks and any separator.
        instant = datetime.fromisoformat(sent.upper()).astimezone(UTC) if INSTANT.fullmatch(sent) else None
    except (ValueError, OverflowError):
        instant = None
    if instant is None:
        detail = "an instant with its offset, such as 2026-01-31T12:00:00Z"
        raise InvalidInput([Problem(f"/{field}", "invalid_instant", detail)])
    return max(instant, EARLIEST)


async def read_position(views: Views, as_of: str | None, at: int | None) -> int | None:
    """The position that a question about the past is about; None for the present.

    Raises:
        InvalidInput: both are given, or one of them is none.
    """
    if as_of is not None and at is not None:
        raise InvalidInput([Problem("/at", "ambiguous", "as_of or at, not both")])
    if at is not None:
        if not 0 <= at <= LARGEST:
            raise InvalidInput([Problem("/at", "invalid_value", "a position is 0 or more")])
        return at
    return await views.position_at(parse_instant(as_of, "as_of")) if as_of is not None else None
