"""When a call is tried again, and after how long. The SDK's own retries are off: this is their one owner."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final

from msgspec import Struct

FIRST_BACKOFF: Final = 0.5
LONGEST_BACKOFF: Final = 8.0
LONGEST_ADVICE: Final = 20.0
"""Seconds. A provider that asks for more gets no further try: the caller is told instead."""

NO_HEADERS: Final[Mapping[str, str]] = {}


class Backoff(Struct, frozen=True):
    """Chance, clock and waiting, from outside so that tests have them in hand."""

    jitter: Callable[[], float] = random.random
    """A number from 0 to 1."""
    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def pause(self, attempts: int, headers: Mapping[str, str] = NO_HEADERS) -> float | None:
        """Seconds before the next try, after so many; None when the provider asks for too long a wait."""
        advice = _advice(headers, self.now())
        if advice is None:
            return self.jitter() * min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** (attempts - 1))
        return advice if advice <= LONGEST_ADVICE else None


def may_pass(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an error is one that another try may not meet."""
    told = headers.get("x-should-retry")
    if told == "false":
        return False
    return status in {408, 429} or status >= 500 or (status == 409 and told == "true")


def _advice(headers: Mapping[str, str], now: float) -> float | None:
    """`Retry-After` in seconds (RFC 9110 section 10.2.3), or its form in milliseconds; None without."""
    for name, unit in (("retry-after-ms", 1_000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        return max(seconds, 0.0) if isfinite(seconds) else None
    try:
        at = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now, 0.0)
