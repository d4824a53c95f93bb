"""Errors as the OpenAI API tells them: what every failure below /v1 becomes."""

from collections.abc import Mapping
from typing import Final

import msgspec
from litestar import Response
from litestar.exceptions import HTTPException
from msgspec import Struct

from domain.errors import ModelNotFound, StoreUnavailable

TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
CODES: Final = {401: "invalid_api_key"}
BUG: Final = "something broke here; the log has it under the request's id"


class ErrorObject(Struct, frozen=True):
    """What stands under `error`."""

    message: str
    type: str
    param: str | None
    code: str | None


class GatewayRefusal(Exception):
    """The gateway's own no, or a provider's in words that are fit for callers."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,  # noqa: A002 - the API's own name
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.error = ErrorObject(message, type or error_type(status), param, code)

    def body(self) -> bytes:
        """The error as JSON."""
        return msgspec.json.encode({"error": self.error})


def error_type(status: int) -> str:
    """The type that the API gives to errors of a status."""
    return TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def openai_failure(error: Exception) -> Response[bytes]:
    """The answer to whatever went wrong below /v1; of a bug it tells nothing."""
    return _answer(_refusal(error))


def _refusal(error: Exception) -> GatewayRefusal:
    match error:
        case GatewayRefusal():
            return error
        case ModelNotFound(model_id=model_id):
            told = f"the model {model_id[:128]!r} does not exist"
            return GatewayRefusal(404, told, param="model", code="model_not_found")
        case StoreUnavailable(code=code):
            return GatewayRefusal(503, str(error), code=code, headers={"Retry-After": "1"})
        case HTTPException(status_code=status, detail=detail, headers=headers) if status < 500:
            return GatewayRefusal(status, detail, code=CODES.get(status), headers=headers)
        case _:
            return GatewayRefusal(500, BUG)


def _answer(refusal: GatewayRefusal) -> Response[bytes]:
    return Response(
        refusal.body(), status_code=refusal.status, media_type="application/json", headers=refusal.headers
    )
