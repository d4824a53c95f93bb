"""What a provider did instead of answering, in words that are fit for callers."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from application.ports import ProviderAnswer, ProviderFailed
from web.gateway.openai_errors import GatewayRefusal
from web.gateway.provider_headers import passed

ANSWER_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of an answer, or of one line of a stream, that are buffered."""
NO_RETRY: Final = {"x-should-retry": "false"}
"""Tells the OpenAI SDKs that the next try would end alike."""
AUTH: Final = "the provider refused the gateway's own credential; whoever runs this gateway can correct it"
REDIRECT: Final = "the provider redirects to another address, which the gateway does not follow"


class ProviderRefusal(GatewayRefusal):
    """A call that its provider did not answer, or not to the end."""

    def __init__(
        self,
        reason: str,
        status: int,
        message: str,
        *,
        type: str | None = None,  # noqa: A002 - the API's own name
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        elsewhere: bool = False,
    ) -> None:
        super().__init__(status, message, type=type, param=param, code=code, headers=headers)
        self.reason = reason
        """One word, as in `CallRecord.error`."""
        self.elsewhere = elsewhere
        """Whether another model may be asked instead: this one's provider is away, or overloaded."""


def provider_failure(failure: ProviderFailed) -> ProviderRefusal:
    """A call without an answer: 504 when its time ran out, else 502."""
    kind = failure.kind
    return ProviderRefusal(
        kind,
        504 if kind == "timeout" else 502,
        str(failure),
        code=f"provider_{kind}",
        headers=NO_RETRY if kind == "not_bound" else {},
        elsewhere=kind == "connect",
    )


def cut() -> ProviderRefusal:
    """An answer that stopped short."""
    told = "the provider's answer ended before it was complete"
    return ProviderRefusal("broken", 502, told, code="provider_broken")


def encoded() -> ProviderRefusal:
    """A stream that nobody asked to be encoded, and that could not be judged."""
    return ProviderRefusal("broken", 502, "the provider's stream is encoded", code="provider_broken")


def too_large() -> ProviderRefusal:
    """An answer that is not buffered to its end."""
    told = f"the provider's answer is larger than {ANSWER_LIMIT} bytes"
    return ProviderRefusal("too_large", 502, told, code="provider_answer_too_large")


def server_stopping() -> ProviderRefusal:
    """A call that the gateway itself ends."""
    told = "the gateway is being stopped, and the call was not done in time; try again"
    return ProviderRefusal("stopping", 503, told, code="server_stopping")


class _Error(Struct):
    """Azure sends a part of it, and codes that are numbers; all of it may be null."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Body(Struct):
    error: _Error


async def read_refusal(answer: ProviderAnswer) -> ProviderRefusal:
    """Read an answer that is no success; its status is passed where it speaks of the caller's request."""
    status = answer.status
    reason = f"http_{status}"
    if status in {401, 403}:
        # The caller's own token is good. The message stays here too: it may quote parts of the key.
        return ProviderRefusal(reason, 502, AUTH, code="provider_auth", headers=NO_RETRY)
    if status < 300:
        told = f"the provider answered with status {status}, which is no answer to this call"
        return ProviderRefusal(reason, 502, told, code="provider_broken", headers=NO_RETRY)
    if status < 400:
        return ProviderRefusal(reason, 502, REDIRECT, code="provider_redirect", headers=NO_RETRY)
    body = b"".join([chunk async for chunk in answer.chunks])
    headers = passed(answer, "retry-after", "retry-after-ms")
    elsewhere = status == 429 or status >= 500
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except (ValueError, RecursionError):
        told = f"the provider answered with status {status}"
        return ProviderRefusal(reason, status, told, headers=headers, elsewhere=elsewhere)
    return ProviderRefusal(
        reason,
        status,
        error.message,
        type=error.type,
        param=error.param,
        code=None if error.code is None else str(error.code),
        headers=headers,
        elsewhere=elsewhere,
    )
