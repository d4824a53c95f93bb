"""Taking back what one version changed, and keeping what later ones did.

    what it left  ──later changes──>  current
         │                               │
    taken back                      taken back
         ▼                               ▼
    what was before               the new version

A field that was changed again since is a conflict, which only a person can settle.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

from msgspec import Struct

from application.ledger import Ledger
from application.patch import PatchModel
from application.views import Views
from domain.changes import Conflict, FieldChange, Fields, difference, merge
from domain.errors import InvalidInput, Problem, UndoConflict
from domain.model import ModelRolledBack, ModelUpdated
from domain.values import ModelId

UNDOABLE: Final = {kind.__struct_config__.tag for kind in (ModelUpdated, ModelRolledBack)}


class UndoPreview(Struct, frozen=True):
    """What an undo would do, without doing it."""

    model_id: str
    version: int
    """The version whose change would be taken back."""
    current_version: int
    changes: list[FieldChange]
    """What becomes of the current configuration; empty when it would record nothing."""
    conflicts: list[Conflict]
    """The fields that were changed again since; empty when it would not be refused for them."""
    problems: list[Problem]
    """Why it would be refused under today's rules; empty when it would not."""


async def undo_command(views: Views, model_id: ModelId, version: int) -> PatchModel:
    """The change that takes a version's change back.

    Raises:
        ModelNotFound: the model is not live.
        VersionNotFound: it has no such version.
        InvalidInput: that version did more, or less, than change a configuration.
    """
    before, after = await _around(views, model_id, version)
    return PatchModel(model_id, partial(_undone, version, before, after))


async def preview_undo(views: Views, ledger: Ledger, model_id: ModelId, version: int) -> UndoPreview:
    """Tell what an undo would do. Raises as `undo_command`."""
    before, after = await _around(views, model_id, version)
    current = await views.model(model_id)
    now = current.config().fields()
    result, conflicts = merge(after, now, before)
    command = PatchModel(model_id, partial(_undone, version, before, after))
    return UndoPreview(
        model_id,
        version,
        current.version,
        difference(now, result),
        conflicts,
        [] if conflicts or now == result else list(await ledger.problems(command)),
    )


async def _around(views: Views, model_id: ModelId, version: int) -> tuple[Fields, Fields]:
    """The configurations before and after a version."""
    await views.model(model_id)
    after = await views.config(model_id, version)
    [entry] = (await views.history(model_id, before=version + 1, limit=1)).data
    if entry.type not in UNDOABLE:
        detail = "only a changed configuration is undone: delete what was created, restore what was deleted"
        raise InvalidInput([Problem("/version", "not_undoable", detail)])
    before = await views.config(model_id, version - 1)
    return before.fields(), after.fields()


def _undone(version: int, before: Fields, after: Fields, current: Fields) -> Mapping[str, object]:
    result, conflicts = merge(after, current, before)
    if conflicts:
        raise UndoConflict(version, conflicts)
    return result
