"""The one place where errors become answers: RFC 9457 problems, and OpenAI's shape below /v1."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.params import ParameterKwarg
from msgspec import Struct

from domain.changes import Conflict
from domain.errors import (
    DefaultProtected,
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidInput,
    LedgerError,
    ModelExists,
    ModelFrozen,
    ModelNotFound,
    PatchRefused,
    PreconditionFailed,
    PreconditionRequired,
    Problem,
    StoreUnavailable,
    UndoConflict,
    VersionConflict,
    VersionNotFound,
)
from web.bodies import pointer
from web.gateway.openai_errors import openai_failure
from web.identity import ESCAPED_SLASH, has_escaped_slash, request_id
from web.stale import ChangedMeanwhile, Newer

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
MOST_ERRORS: Final = 100
"""Broken rules that an answer names; a body can break thousands."""
MOST_TOLD: Final = 5
"""Of them in its `detail`."""

MISSING: Final = re.compile("Missing required query parameter '([^']*)'")
"""As Litestar words it, who names the parameter nowhere else."""

ANSWERS: Final[dict[type[LedgerError], tuple[int, str, str]]] = {
    # refusal: status, the problem's stable name, its title
    InvalidInput: (400, "invalid-input", "The request breaks a rule"),
    ModelNotFound: (404, "model-not-found", "There is no such model"),
    VersionNotFound: (404, "version-not-found", "There is no such version"),
    ModelExists: (400, "model-exists", "The model exists already"),
    ModelFrozen: (503, "model-frozen", "The model was changed by a newer release"),
    DefaultProtected: (400, "default-protected", "The default model cannot be deleted"),
    UndoConflict: (409, "undo-conflict", "It was changed again since"),
    PatchRefused: (409, "patch-refused", "The patch does not apply"),
    PreconditionFailed: (412, "precondition-failed", "The model has changed"),
    ChangedMeanwhile: (412, "precondition-failed", "The model has changed"),
    PreconditionRequired: (428, "precondition-required", "If-Match is required"),
    VersionConflict: (409, "version-conflict", "Someone else changed it first"),
    IdempotencyMismatch: (422, "idempotency-mismatch", "The Idempotency-Key was used before"),
    IdempotencyInFlight: (409, "idempotency-in-flight", "The first request is still running"),
    StoreUnavailable: (503, "store-unavailable", "The ledger cannot answer now"),
}

HTTP_ANSWERS: Final[dict[int, tuple[str, str]]] = {
    400: ("bad-request", "The request is not understood"),
    401: ("unauthenticated", "A token is needed"),
    403: ("forbidden", "This is not allowed"),
    404: ("not-found", "There is nothing here"),
    405: ("method-not-allowed", "This method is not allowed here"),
    413: ("too-large", "The body is too large"),
    415: ("unsupported-media-type", "The media type is not accepted"),
    429: ("too-many-requests", "Too many requests"),
    503: ("unavailable", "Not available now"),
}


class ProblemDetails(Struct, frozen=True, omit_defaults=True):
    """An error as RFC 9457 tells it; `errors` names each field that is wrong."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Problem] = []
    code: str = ""


class Conflicts(Struct, frozen=True):
    """What hinders an undo: each field with what the version left (`base`), what it is now (`theirs`), and
    what it would be again (`mine`)."""

    conflicts: list[Conflict]


def answer_refusal(request: Request[Any, Any, Any], error: LedgerError) -> Response[Any]:
    """The answer to a refusal of the ledger."""
    if _is_gateway(request):
        return openai_failure(error)
    status, name, title = ANSWERS[type(error)]
    retry = {"Retry-After": "1"}
    match error:
        case InvalidInput(problems=problems):
            return _problem(request, status, name, title, _detail(problems), {}, errors=problems)
        case ChangedMeanwhile(newer=newer):
            return _problem(request, status, name, title, str(error), {}, more=newer)
        case UndoConflict(conflicts=conflicts):
            return _problem(request, status, name, title, str(error), {}, more=Conflicts([*conflicts]))
        case StoreUnavailable(code=code):
            return _problem(request, status, name, title, str(error), retry, code=code)
        case _:
            headers = retry if isinstance(error, IdempotencyInFlight) else {}
            return _problem(request, status, name, title, str(error), headers)


def answer_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """The answer to what the framework refuses: unknown routes, methods, sizes, parameters."""
    if _is_gateway(request):
        return openai_failure(error)
    status = error.status_code
    if status >= 500:
        return answer_bug(request, error)
    if status == 404 and has_escaped_slash(request.scope):
        return answer_refusal(request, InvalidInput([ESCAPED_SLASH]))
    errors = _parameters(request, error)
    if errors:
        return answer_refusal(request, InvalidInput(errors))
    name, title = HTTP_ANSWERS.get(status, ("refused", "The request is refused"))
    return _problem(request, status, name, title, error.detail, dict(error.headers or {}))


def answer_bug(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """The answer to a bug: nothing of it is told but the request's id, under which the log has it."""
    logger.error("request %s failed", request_id(request.scope), exc_info=error)
    if _is_gateway(request):
        return openai_failure(error)
    detail = "something broke here; the log has it under the request's id"
    return _problem(request, 500, "internal-error", "Something broke", detail, {})


def _problem(
    request: Request[Any, Any, Any],
    status: int,
    name: str,
    title: str,
    detail: str,
    headers: Mapping[str, str],
    *,
    errors: Sequence[Problem] = (),
    code: str = "",
    more: Newer | Conflicts | None = None,
) -> Response[bytes]:
    details = ProblemDetails(
        f"urn:model-ledger:problem:{name}",
        title,
        status,
        detail,
        request_id(request.scope),
        list(errors[:MOST_ERRORS]),
        code,
    )
    members = {**msgspec.to_builtins(details), **(msgspec.to_builtins(more) if more else {})}
    body = msgspec.json.encode(members)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers))


def _detail(problems: Sequence[Problem]) -> str:
    told = [f"{problem.pointer}: {problem.detail}".removeprefix(": ") for problem in problems[:MOST_TOLD]]
    more = len(problems) - len(told)
    return "; ".join([*told, f"and {more} more"] if more else told)


def _parameters(request: Request[Any, Any, Any], error: HTTPException) -> list[Problem]:
    """What the framework found wrong with parameters, under the names that callers know."""
    missing = MISSING.match(error.detail)
    if missing:
        return [Problem(pointer(missing[1]), "required", "this query parameter is required")]
    told = [item for item in error.extra or [] if isinstance(item, dict)]
    return [
        Problem(
            pointer(_public_name(request, str(item.get("key", "")))),
            "invalid_value",
            str(item.get("message", "")).replace("`", "'"),
        )
        for item in told
    ]


def _public_name(request: Request[Any, Any, Any], key: str) -> str:
    field = request.route_handler.parsed_fn_signature.parameters.get(key)
    definition = field.kwarg_definition if field else None
    return (definition.name if isinstance(definition, ParameterKwarg) else None) or key


def _is_gateway(request: Request[Any, Any, Any]) -> bool:
    path = request.scope.get("path", "")
    return path == "/v1" or path.startswith("/v1/")
