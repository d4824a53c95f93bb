"""One model's part in a call: the request to its provider, and the answer on its way to the caller.

send ──┬─ error, or nothing came ───────────> a refusal, for another model to mend or for the caller
       ├─ asked and answered as a stream ───> relayed; a failure becomes its last event
       ├─ asked as a stream, answered whole ─> one stream, made of the whole answer
       └─ asked whole ──────────────────────> buffered, then passed byte for byte
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from time import perf_counter

import msgspec
from litestar.types import Send
from msgspec import Raw

from application.ports import CallRecord, Lease, LiveModel, ProviderAnswer, ProviderCall, ProviderFailed
from application.telemetry import Answered
from domain.calls import timeout
from domain.shaping import Shaped
from web.gateway.answered import of_stream, of_whole
from web.gateway.call_notes import CallNotes
from web.gateway.event_streams import EventStream, start
from web.gateway.provider_errors import (
    ANSWER_LIMIT,
    ProviderRefusal,
    cut,
    encoded,
    provider_failure,
    read_refusal,
    server_stopping,
    too_large,
)
from web.gateway.provider_headers import passed
from web.gateway.requests import GatewayRequest
from web.gateway.token_counts import read_tokens
from web.stopping import Stopped, Stopping


class Exchange:
    """One call to the provider of a leased client, and its answer."""

    def __init__(self, lease: Lease, asked: GatewayRequest, send: Send, tried: int) -> None:
        """`tried` are the attempts that other models took before, in the same call."""
        model, operation = lease.model, asked.operation
        self._lease = lease
        self._asked = asked
        self._send = send
        self._tried = tried
        self._shaped = operation.shape(model.model_id, model.config, asked.fields)
        self._body = msgspec.json.encode(self._shaped.fields)
        self._headers = _identity(model, asked, self._shaped)
        self._stream = EventStream(send, operation.form) if asked.stream and operation.form else None
        self._told: Mapping[str, str] = {}
        self._whole = b""
        self._notes = CallNotes(asked, model)
        self.timeout = timeout(model.config, len(self._body), self._shaped.limit)
        """Seconds that the model's configuration gives to this request."""

    @property
    def attempts(self) -> int:
        """Tries that reached for this model's provider."""
        return self._notes.attempts

    async def run(
        self, headers: Mapping[str, str], within: float, stopping: Stopping
    ) -> ProviderRefusal | None:
        """Call the provider and answer; a refusal when nothing was answered yet.

        Args:
            headers: for the provider, as in `ProviderCall`.
            within: seconds that all of it may take.
            stopping: what ends it when the server ends.
        """
        path = self._asked.operation.path
        call = ProviderCall(path, self._body, self._shaped.stream, within, headers)
        try:
            with stopping.until():
                async with self._lease.send(call) as answer:
                    self._count(answer.attempts)
                    whole = await self._read(answer)
            if whole is not None:
                await self._say(whole)
        except Stopped:
            return await self._fail(server_stopping())
        except ProviderRefusal as refusal:
            return await self._fail(refusal)
        except ProviderFailed as failure:
            self._count(failure.attempts)
            return await self._fail(provider_failure(failure))
        except asyncio.CancelledError:
            self._notes.left()
            raise
        return None

    def record(self) -> CallRecord:
        """What became of it, as of now."""
        if self._stream is not None and self._stream.first_at is not None:
            self._notes.first_at = self._stream.first_at
            self._notes.tokens = read_tokens(self._stream.lines)
        return self._notes.record()

    def answered(self) -> Answered:
        """What the provider said of its answer."""
        return (
            of_whole(self._whole) if self._whole else of_stream(self._stream.lines if self._stream else b"")
        )

    def _count(self, attempts: int) -> None:
        self._notes.attempts = attempts
        self._headers["x-model-ledger-attempts"] = str(self._tried + attempts)

    async def _read(self, answer: ProviderAnswer) -> bytes | None:
        """The whole answer; None when it was a stream, and is passed on."""
        for request_id in passed(answer, "x-request-id").values():
            self._headers["x-provider-request-id"] = request_id
        if answer.status != 200:
            raise await read_refusal(answer)
        if self._stream is None:
            self._told = passed(answer, "content-type", "content-encoding")
        elif not answer.headers.get("content-type", "").startswith("application/json"):
            await self._relay(self._stream, answer)
            return None
        return await self._collect(answer.chunks)

    async def _relay(self, stream: EventStream, answer: ProviderAnswer) -> None:
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise encoded()
        await stream.relay(self._headers, answer.chunks)
        ending = stream.ending()
        if ending == "cut":
            raise cut()
        if ending == "failed":
            self._notes.failed()
        await stream.close()

    async def _collect(self, chunks: AsyncIterator[bytes]) -> bytes:
        body: list[bytes] = []
        size = 0
        async for chunk in chunks:
            if chunk and not body:
                self._notes.first_at = perf_counter()
            body.append(chunk)
            size += len(chunk)
            if size > ANSWER_LIMIT:
                raise too_large()
        return body[0] if len(body) == 1 else b"".join(body)

    async def _say(self, whole: bytes) -> None:
        self._whole = whole
        self._notes.tokens = read_tokens(whole)
        if self._stream is not None:
            await self._stream.say(self._headers, whole, self._asked.fields)
            return
        if "content-encoding" not in self._told and not _is_json(whole):
            raise cut()  # also where nothing but the connection's end told its length
        length = {"content-length": str(len(whole))}
        await self._send(start(200, {**self._headers, **self._told, **length}))
        await self._send({"type": "http.response.body", "body": whole, "more_body": False})

    async def _fail(self, refusal: ProviderRefusal) -> ProviderRefusal | None:
        stream = self._stream
        if stream is None or not stream.begun:
            self._notes.refused(refusal)
            refusal.headers.update(self._headers)
            return refusal
        if stream.ending() in {"done", "failed"}:
            await stream.close()  # only the connection's end was missing
        else:
            self._notes.refused(refusal)
            await stream.fail(refusal.error)
        return None


def _is_json(whole: bytes) -> bool:
    try:
        msgspec.json.decode(whole, type=Raw)
    except (ValueError, RecursionError):
        return False
    return True


def _identity(model: LiveModel, asked: GatewayRequest, shaped: Shaped) -> dict[str, str]:
    headers = {
        "x-model-ledger-model": model.model_id,
        "x-model-ledger-version": str(model.version),
        "x-model-ledger-position": str(model.position),
    }
    if asked.model != model.model_id:
        headers["x-model-ledger-asked"] = asked.model
    if shaped.adjusted:
        told = ", ".join(f"{name}={what}" for name, what in shaped.adjusted.items())
        headers["x-model-ledger-adjusted"] = told
    return headers
