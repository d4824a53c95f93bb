"""What is noted of one model's part in a call while it runs, and becomes its record at the end."""

from datetime import UTC, datetime
from time import perf_counter

from application.ports import CallRecord, LiveModel, Tokens
from web.gateway.provider_errors import ProviderRefusal
from web.gateway.requests import GatewayRequest


class CallNotes:
    """Notes that start as those of a success; a failure is noted where it shows."""

    __slots__ = (
        "_asked",
        "_began",
        "_error",
        "_model",
        "_started_at",
        "_status",
        "attempts",
        "first_at",
        "tokens",
    )

    def __init__(self, asked: GatewayRequest, model: LiveModel) -> None:
        self._asked = asked
        self._model = model
        self._started_at = datetime.now(UTC)
        self._began = perf_counter()
        self._status = 200
        self._error: str | None = None
        self.attempts = 0
        self.first_at: float | None = None
        """When the answer's first byte came, by `time.perf_counter`."""
        self.tokens: Tokens | None = None

    def refused(self, refusal: ProviderRefusal) -> None:
        """It did not come to an answer, or not to the end of one."""
        self._status, self._error = refusal.status, refusal.reason

    def failed(self) -> None:
        """Its stream told of a failure itself."""
        self._status, self._error = 502, "failed"

    def left(self) -> None:
        """Nobody waits for it any more."""
        self._status, self._error = 499, "left"

    def record(self) -> CallRecord:
        """The record, as of now."""
        asked, model, began, first_at = self._asked, self._model, self._began, self.first_at
        return CallRecord(
            model_id=model.model_id,
            version=model.version,
            asked=asked.model,
            caller=asked.caller,
            operation=asked.operation.name,
            stream=asked.stream,
            status=self._status,
            error=self._error,
            attempts=self.attempts,
            started_at=self._started_at,
            first_byte=None if first_at is None else first_at - began,
            duration=perf_counter() - began,
            tokens=self.tokens,
        )
