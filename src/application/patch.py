"""Changes told as patches: RFC 7396 (merge patch) and RFC 6902 (JSON Patch)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jsonpatch
from jsonpointer import JsonPointerException, resolve_pointer
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


class _CopyOfOneValue(jsonpatch.CopyOperation):
    """A copy of a single value: a list that may be copied into itself doubles with every operation."""

    def apply(self, obj: Any) -> Any:
        source = self.operation.get("from")
        if isinstance(source, str) and isinstance(resolve_pointer(obj, source, None), list | dict):
            raise PatchRefused("only single values are copied: send a list as a value")
        return super().apply(obj)


class _Patch(jsonpatch.JsonPatch):
    operations = MappingProxyType({**jsonpatch.JsonPatch.operations, "copy": _CopyOfOneValue})


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
        patch = _Patch(document)  # type: ignore[arg-type]  # it checks what it is given
    except (jsonpatch.InvalidJsonPatch, JsonPointerException, TypeError, AttributeError) as error:
        raise InvalidInput([Problem("", "invalid_patch", f"not a JSON Patch: {error}")]) from None

    def apply(fields: Fields) -> Mapping[str, object]:
        try:
            result = patch.apply(dict(fields))
        except jsonpatch.JsonPatchTestFailed:
            raise PatchRefused("a test of the patch does not hold for the current configuration") from None
        except (jsonpatch.JsonPatchException, JsonPointerException, TypeError):
            raise PatchRefused(
                "an operation of the patch names what is not there, or lacks a member"
            ) from None
        except RecursionError:
            raise PatchRefused("the patch does not apply: nested too deep") from None
        if not isinstance(result, dict):
            raise PatchRefused("the patch replaces the whole configuration by something else")
        return result

    return apply
