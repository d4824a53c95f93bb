"""What changed under a client that named an older version: the content of a 412."""

from datetime import datetime

from msgspec import Struct

from application.views import Entry, EventFilter, Views
from domain.changes import Value, difference
from domain.default import DefaultChanged
from domain.errors import PreconditionFailed, VersionNotFound
from domain.values import Actor, ModelId

DEFAULT_CHANGED = str(DefaultChanged.__struct_config__.tag)


class Newer(Struct, frozen=True):
    """The newest version of what the client wanted to change."""

    current_version: int
    changed_by: Actor
    changed_at: datetime
    change_reason: str | None
    changed_fields: list[str] | None
    """The fields that differ from the version that was named; null when it names none that there was."""
    current: dict[str, Value]
    """The configuration now, of a deleted model the last one; of the default pointer its `model_id`."""


class ChangedMeanwhile(PreconditionFailed):
    """The same refusal, with what the client needs to merge."""

    def __init__(self, failed: PreconditionFailed, newer: Newer, detail: str) -> None:
        super().__init__(failed.model_id, failed.named, newer.current_version)
        self.args = (detail,)
        self.newer = newer


async def explain(views: Views, failed: PreconditionFailed, *, of_default: bool) -> PreconditionFailed:
    """Look up what the client did not know; the refusal stays as it is when nothing was ever recorded."""
    model_id = ModelId(failed.model_id)
    if failed.current == 0:
        return failed
    if of_default:
        page = await views.events(EventFilter(type=DEFAULT_CHANGED), before=None, limit=1)
    else:
        page = await views.history(model_id, before=None, limit=1)
    newest = page.data[0]
    base = max((version for version in failed.named if 0 <= version < newest.version), default=None)
    if of_default:
        current: dict[str, Value] = {"model_id": newest.model_id}
        fields = None if base is None else ["model_id"]
    else:
        current = newest.config.fields() if newest.config else {}
        fields = None if base is None else await _changed_fields(views, model_id, base, current)
    newer = Newer(newest.version, newest.actor, newest.at, newest.reason, fields, current)
    return ChangedMeanwhile(failed, newer, _detail(failed, newest, of_default=of_default))


async def _changed_fields(
    views: Views, model_id: ModelId, base: int, current: dict[str, Value]
) -> list[str] | None:
    try:
        named = await views.config(model_id, base)
    except VersionNotFound:
        return None
    return [change.field for change in difference(named.fields(), current)]


def _detail(failed: PreconditionFailed, newest: Entry, *, of_default: bool) -> str:
    subject = "the default" if of_default else f"model {failed.model_id!r}"
    if failed.named:
        return f"{subject} is at version {newest.version}, not at the version that was named"
    return f"{subject} exists already, at version {newest.version}"
