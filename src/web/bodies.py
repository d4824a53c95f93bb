"""Request bodies under /api: strict JSON, read once, refused with the field's name."""

import json
from collections.abc import Iterator
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import HTTPException
from msgspec import Struct

from domain.errors import InvalidInput, Problem

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"

T = TypeVar("T", bound=Struct)


async def read_json(request: Request[Any, Any, Any], *media_types: str) -> tuple[object, str]:
    """The body as plain values, and its media type.

    Raises:
        InvalidInput: no JSON, nested too deep, a doubled key, or text that is no Unicode.
        HTTPException: 415 for another media type.
    """
    accepted = media_types or (JSON,)
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent not in accepted:
        raise HTTPException(
            status_code=415,
            detail=f"the body is {sent or 'of no media type'}; send {' or '.join(accepted)}",
            headers={"Accept-Patch" if MERGE_PATCH in accepted else "Accept": ", ".join(accepted)},
        )
    return parse_json(await request.body()), sent


def parse_json(body: bytes) -> object:
    """Plain values from JSON (RFC 8259), stricter than the standard library.

    Raises:
        InvalidInput: see `read_json`.
    """
    try:
        # msgspec refuses what is no JSON or no Unicode, json notices doubled keys.
        msgspec.json.decode(body)
        return json.loads(body, object_pairs_hook=_once, parse_constant=_refuse_constant)
    except RecursionError:
        raise _refusal("too_deep", "nested too deep") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise _refusal("invalid_json", f"not valid JSON: {error}") from None


async def read_struct(request: Request[Any, Any, Any], kind: type[T], *, optional: bool = False) -> T:
    """The body as a Struct; an empty one counts as `{}` where it is optional.

    Raises:
        InvalidInput: see `read_json`; or fields of another type, missing, or unknown, all of them.
    """
    if optional and not await request.body():
        return msgspec.convert({}, kind)
    value, _ = await read_json(request)
    if not isinstance(value, dict):
        raise _refusal("invalid_type", "the body is a JSON object")
    problems = [*_field_problems(value, kind)]
    if problems:
        raise InvalidInput(problems)
    return msgspec.convert(value, kind)


def pointer(name: str) -> str:
    """The JSON pointer to a field of the body (RFC 6901), cut where a name is no name any more."""
    return "/" + name[:200].replace("~", "~0").replace("/", "~1")


def _field_problems(value: dict[str, object], kind: type[Struct]) -> Iterator[Problem]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name in value:
        if name not in fields:
            yield Problem(pointer(name), "unknown_field", "there is no such field")
    for name, field in fields.items():
        if name not in value:
            if field.required:
                yield Problem(f"/{name}", "required", "this field is required")
            continue
        try:
            msgspec.convert(value[name], field.type)
        except msgspec.ValidationError as error:
            yield Problem(f"/{name}", "invalid_value", str(error).replace("`", "'"))


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value: dict[str, object] = {}
    for name, inner in pairs:
        if name in value:
            detail = "this key stands twice in one object"
            raise InvalidInput([Problem(pointer(name), "doubled_key", detail)])
        value[name] = inner
    return value


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _refusal(code: str, detail: str) -> InvalidInput:
    return InvalidInput([Problem("", code, detail)])
