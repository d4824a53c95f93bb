"""Changes told as patches: RFC 7396 (merge patch) and RFC 6902 (JSON Patch)."""

from collections.abc import Callable, Mapping, Sequence

import jsonpatch
import jsonpointer
from msgspec import Struct

from domain.catalog import Seen
from domain.changes import Fields
from domain.configuration import NULLABLE, KeyOrigins, check
from domain.errors import InvalidInput, PatchRefused, Problem
from domain.model import UpdateModel, live
from domain.values import ModelId, Stream, model_stream

Apply = Callable[[Fields], Mapping[str, object]]
"""Makes new plain values from the current ones; raises `PatchRefused` when it cannot."""


class PatchModel(Struct, frozen=True):
    """Change a live model relative to whatever it is when the decision is made."""

    model_id: ModelId
    apply: Apply

    def streams(self) -> list[Stream]:
        """The streams that the decision looks at."""
        return [model_stream(self.model_id)]

    def command(self, seen: Seen, origins: KeyOrigins) -> UpdateModel:
        """The update that the patch comes to.

        Raises:
            ModelNotFound: the model is not live.
            PatchRefused: the patch does not apply.
            InvalidInput: the result breaks a rule.
        """
        current = live(self.model_id, seen.model(self.model_id))
        config, problems = check(self.apply(current.config.fields()), origins)
        if config is None:
            raise InvalidInput(problems)
        return UpdateModel(self.model_id, config)


def merge_patch(document: object) -> Apply:
    """A merge patch: null removes a field, so that it takes its default again.

    A field of `NULLABLE` becomes null instead: whoever takes a credential away must not end up with
    another one.

    Raises:
        InvalidInput: the document is no object.
    """
    if not isinstance(document, dict):
        raise InvalidInput([Problem("", "invalid_type", "a merge patch is a JSON object")])

    def apply(fields: Fields) -> Mapping[str, object]:
        kept = {name: value for name, value in fields.items() if name not in document}
        given = {name: value for name, value in document.items() if value is not None or name in NULLABLE}
        return {**kept, **given}

    return apply


def json_patch(document: object) -> Apply:
    """A JSON Patch: a list of operations, applied in order or not at all.

    Raises:
        InvalidInput: the document is no list of operations.
    """
    try:
        patch = jsonpatch.JsonPatch(document)  # type: ignore[arg-type]  # it checks what it is given
    except (jsonpatch.InvalidJsonPatch, jsonpointer.JsonPointerException, TypeError, AttributeError) as error:
        raise InvalidInput([Problem("", "invalid_patch", f"not a JSON Patch: {error}")]) from None
    if _may_grow(patch.patch):
        detail = "a configuration is flat: a patch that copies brings in no objects and no lists"
        raise InvalidInput([Problem("", "invalid_patch", detail)])

    def apply(fields: Fields) -> Mapping[str, object]:
        try:
            result = patch.apply(dict(fields))
        except jsonpatch.JsonPatchTestFailed:
            raise PatchRefused("a test of the patch does not hold for the current configuration") from None
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError):
            raise PatchRefused(
                "an operation of the patch names what is not there, or lacks a member"
            ) from None
        except RecursionError:
            raise PatchRefused("the patch does not apply: nested too deep") from None
        if not isinstance(result, dict):
            raise PatchRefused("the patch replaces the whole configuration by something else")
        return result

    return apply


def _may_grow(operations: Sequence[Mapping[str, object]]) -> bool:
    """Whether copies may hold copies: each of a few dozen operations could double the document."""
    copies = [operation for operation in operations if operation["op"] == "copy"]
    whole = any(operation.get("from") == "" for operation in copies)
    return bool(copies) and (whole or any(_brings_nested(operation) for operation in operations))


def _brings_nested(operation: Mapping[str, object]) -> bool:
    value = operation.get("value")
    if operation["op"] == "test":
        return False
    if operation["path"] == "" and isinstance(value, dict):
        return any(isinstance(inner, dict | list) for inner in value.values())
    return isinstance(value, dict | list)
