"""The ways back to an earlier configuration: what they would do, and the commands they lead to."""

from typing import Literal

from msgspec import Struct

from application.ledger import Ledger
from application.views import Views
from domain.changes import FieldChange, difference
from domain.errors import ModelExists, ModelNotFound, Problem
from domain.model import RestoreModel, RollBackModel
from domain.values import ModelId

CredentialChoice = Literal["keep", "target"]
"""Keep the credential of today, or take back the one of the target version."""


class Preview(Struct, frozen=True):
    """What a rollback would do, without doing it."""

    model_id: str
    from_version: int
    to_version: int
    changes: list[FieldChange]
    """What becomes of the current configuration, field by field; empty when it would record nothing."""
    stays: list[FieldChange]
    """What the target version has and the rollback does not bring back."""
    problems: list[Problem]
    """Why it would be refused under today's rules; empty when it would not."""


async def rollback_command(
    views: Views, model_id: ModelId, to_version: int, credential: CredentialChoice
) -> RollBackModel:
    """The command that brings a version's configuration back.

    Raises:
        ModelNotFound: the model is not live.
        VersionNotFound: it has no such version.
    """
    await views.model(model_id)
    target = await views.config(model_id, to_version)
    return RollBackModel(model_id, to_version, target, keeps_credential=credential == "keep")


async def preview_rollback(
    views: Views, ledger: Ledger, model_id: ModelId, to_version: int, credential: CredentialChoice
) -> Preview:
    """Tell what a rollback would do. Raises as `rollback_command`."""
    current = await views.model(model_id)
    target = await views.config(model_id, to_version)
    command = RollBackModel(model_id, to_version, target, keeps_credential=credential == "keep")
    now = current.config().fields()
    result = command.result(current.config()).fields()
    return Preview(
        model_id,
        current.version,
        to_version,
        difference(now, result),
        difference(result, target.fields()),
        list(await ledger.problems(command)),
    )


async def restore_command(views: Views, model_id: ModelId, version: int | None) -> RestoreModel:
    """The command that brings a deleted model back, by default as it was when it was deleted.

    Raises:
        ModelExists: the model is live.
        ModelNotFound: nothing was ever recorded under that id.
        VersionNotFound: it has no such version.
    """
    liveness, newest = await views.liveness(model_id)
    match liveness:
        case "live":
            raise ModelExists(model_id, newest)
        case "absent":
            raise ModelNotFound(model_id)
        case "deleted":
            wanted = newest if version is None else version
            return RestoreModel(model_id, wanted, await views.config(model_id, wanted))
