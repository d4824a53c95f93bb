"""The answer to a chat completion, from the lease to the last byte.

lease ──> send ──┬─ error, or nothing came ───────────> an error with its status
                 ├─ asked and answered as a stream ───> relayed; a failure becomes its last event
                 ├─ asked as a stream, answered whole ─> one stream, made of the whole answer
                 └─ asked whole ──────────────────────> buffered, then passed byte for byte
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Final

import msgspec
from litestar.types import Receive, Scope, Send

from application.ports import Clients, Lease, LiveModel, ProviderAnswer, ProviderCall, ProviderFailed
from domain.calls import Shaped, shape, timeout
from web.chat_requests import ChatRequest
from web.disconnects import CallerLeft, WhileConnected
from web.event_streams import EventStream, as_events, start
from web.openai_errors import GatewayRefusal, provider_failure
from web.provider_errors import read_refusal
from web.provider_headers import passed

ANSWER_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of an answer that is buffered."""
CUT: Final = "the provider's answer ended before it was complete"


class ChatAnswer:
    """An ASGI application: all of a call happens in one task, so that its end cannot be missed."""

    def __init__(self, clients: Clients, asked: ChatRequest) -> None:
        self._clients = clients
        self._asked = asked

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Answer; a caller who leaves ends the call.

        Raises:
            ModelNotFound, ProviderFailed, GatewayRefusal: and nothing was answered yet.
        """
        with suppress(CallerLeft):
            async with WhileConnected(receive), self._clients.lease(self._asked.model) as lease:
                await _Exchange(lease, self._asked, send).run()


class _Exchange:
    """One call to the provider and its answer, with one leased client."""

    def __init__(self, lease: Lease, asked: ChatRequest, send: Send) -> None:
        model = lease.model
        self._lease = lease
        self._asked = asked
        self._send = send
        self._shaped = shape(model.model_id, model.config, asked.fields)
        self._headers = _identity(model, self._shaped)
        self._stream = EventStream(send)

    async def run(self) -> None:
        body = msgspec.json.encode(self._shaped.fields)
        limit = timeout(self._lease.model.config, len(body), self._shaped.limit)
        call = ProviderCall("/chat/completions", body, self._shaped.stream, limit, {})
        try:
            async with self._lease.send(call) as answer:
                self._headers |= _of_provider(answer)
                await self._pass(answer)
        except GatewayRefusal as refusal:
            refusal.headers |= self._headers
            raise
        except ProviderFailed as failure:
            self._headers["x-model-ledger-attempts"] = str(failure.attempts)
            await self._fail(provider_failure(failure))

    async def _pass(self, answer: ProviderAnswer) -> None:
        if answer.status != 200:
            raise await read_refusal(answer)
        wants_events = self._shaped.stream or "stream" in self._shaped.adjusted
        if not wants_events:
            await self._say_whole(answer)
        elif answer.headers.get("content-type", "").startswith("application/json"):
            await self._say_as_stream(answer)
        elif answer.headers.get("content-encoding", "identity") != "identity":
            raise GatewayRefusal(502, "the provider's stream is encoded", code="provider_broken")
        elif not await self._stream.relay(self._headers, answer.chunks):
            await self._fail(_cut())

    async def _say_whole(self, answer: ProviderAnswer) -> None:
        body = await _collect(answer.chunks)
        told = passed(answer, "content-type", "content-encoding")
        length = {"content-length": str(len(body))}
        await self._send(start(200, {**self._headers, **told, **length}))
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _say_as_stream(self, answer: ProviderAnswer) -> None:
        try:
            events = as_events(await _collect(answer.chunks), include_usage=self._asked.include_usage())
        except (ValueError, RecursionError):
            raise _cut() from None
        await self._stream.say(self._headers, events)

    async def _fail(self, refusal: GatewayRefusal) -> None:
        if self._stream.is_complete():
            await self._stream.close()  # only the connection's end was missing
        elif self._stream.begun:
            await self._stream.fail(refusal.body())
        else:
            refusal.headers |= self._headers
            raise refusal


def _identity(model: LiveModel, shaped: Shaped) -> dict[str, str]:
    headers = {
        "x-model-ledger-model": model.model_id,
        "x-model-ledger-version": str(model.version),
        "x-model-ledger-position": str(model.position),
    }
    if shaped.adjusted:
        told = ", ".join(f"{name}={what}" for name, what in shaped.adjusted.items())
        headers["x-model-ledger-adjusted"] = told
    return headers


def _of_provider(answer: ProviderAnswer) -> Mapping[str, str]:
    headers = {"x-model-ledger-attempts": str(answer.attempts)}
    for request_id in passed(answer, "x-request-id").values():
        headers["x-provider-request-id"] = request_id
    return headers


async def _collect(chunks: AsyncIterator[bytes]) -> bytes:
    body, size = [], 0
    async for chunk in chunks:
        body.append(chunk)
        size += len(chunk)
        if size > ANSWER_LIMIT:
            told = f"the provider's answer is larger than {ANSWER_LIMIT} bytes"
            raise GatewayRefusal(502, told, code="provider_answer_too_large")
    return b"".join(body)


def _cut() -> GatewayRefusal:
    return GatewayRefusal(502, CUT, code="provider_broken")
