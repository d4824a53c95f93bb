"""What became of calls, counted by configuration version, and the port that counts."""

from datetime import datetime
from typing import Final, Literal, Protocol, runtime_checkable

from msgspec import UNSET, Struct, UnsetType

from domain.values import ModelId

Grouping = Literal["version", "hour", "day"]
"""By version alone, or by the hours or days (UTC) in which calls started and then by version."""

MOST_ROWS: Final = 1_000
"""Rows that one answer has."""


class Percentiles(Struct, frozen=True):
    """Seconds: half of the calls took at most `p50`, all but a twentieth at most `p95`."""

    p50: float
    p95: float


class VersionUsage(Struct, frozen=True, kw_only=True):
    """The calls that one version of a model served, or its part in one call of several models.

    An error is a status of 500 or above, 429, or a stream that broke; not a caller's own mistake, and not a
    caller who left. Times are those of successful calls: a refusal is quick, and says nothing of a model.
    """

    start: datetime | UnsetType = UNSET
    """When the hour or day began; left out by version."""
    version: int
    requests: int
    errors: int
    error_share: float
    """Of all requests, from 0 to 1."""
    retried: int
    """Calls that took more than one try."""
    duration: Percentiles | None
    """Until the end of the answer; null without a success."""
    first_byte: Percentiles | None
    """Until its first byte; null without a success."""
    input_tokens: int
    """As providers told them; a call that was told none counts none."""
    output_tokens: int
    first_call_at: datetime
    last_call_at: datetime


class UsageView(Struct, frozen=True):
    """How the versions of one model did in a window of time; the newest hour, day and version first."""

    model_id: str
    by: Grouping
    since: datetime
    until: datetime
    """Calls count that started from `since` on and before `until`."""
    data: list[VersionUsage]


@runtime_checkable
class UsageReader(Protocol):
    """Counts the records of calls that are still kept."""

    async def usage(self, model_id: ModelId, *, by: Grouping, since: datetime, until: datetime) -> UsageView:
        """What became of a model's calls; of one that is deleted, too.

        Raises:
            ModelNotFound: nothing was ever recorded under that id.
            InvalidInput: it would be more than `MOST_ROWS` rows.
            StoreUnavailable: the database is away, or takes too long for so many calls.
        """
        ...
