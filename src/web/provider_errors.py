"""A provider's error in words that are fit for callers."""

from typing import Final

import msgspec
from msgspec import Struct

from application.ports import ProviderAnswer
from web.openai_errors import NO_RETRY, GatewayRefusal
from web.provider_headers import passed

AUTH: Final = "the provider refused the gateway's own credential; whoever runs this gateway can correct it"
REDIRECT: Final = "the provider redirects to another address, which the gateway does not follow"


class _Error(Struct):
    """Azure sends a part of it, and codes that are numbers; all of it may be null."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Body(Struct):
    error: _Error


async def read_refusal(answer: ProviderAnswer) -> GatewayRefusal:
    """Read an answer that is no success; its status is passed where it speaks of the caller's request."""
    status = answer.status
    if status in {401, 403}:
        # The caller's own token is good. The message stays here too: it may quote parts of the key.
        return GatewayRefusal(502, AUTH, code="provider_auth", headers=NO_RETRY)
    if status < 400:
        return GatewayRefusal(502, REDIRECT, code="provider_redirect", headers=NO_RETRY)
    body = b"".join([chunk async for chunk in answer.chunks])
    headers = passed(answer, "retry-after", "retry-after-ms")
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except (ValueError, RecursionError):
        return GatewayRefusal(status, f"the provider answered with status {status}", headers=headers)
    code = None if error.code is None else str(error.code)
    return GatewayRefusal(
        status, error.message, type=error.type, param=error.param, code=code, headers=headers
    )
