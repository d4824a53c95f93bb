"""What is told of calls while they run: spans in the callers' traces, and the sums of what became of them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from application.ports import CallLog, CallRecord, LiveModel, Operation

logger = logging.getLogger(__name__)


class TraceContext(Struct, frozen=True):
    """Where a request stands in its caller's trace (W3C Trace Context); both values are checked."""

    traceparent: str
    tracestate: str = ""
    """Empty without one."""


class Answered(Struct, frozen=True, kw_only=True):
    """What a provider says of its own answer, without any of its content."""

    model: str | None = None
    id: str | None = None
    finish_reasons: Sequence[str] = ()


class Trace(Protocol):
    """One model's part in one call, as its caller's trace sees it."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The W3C headers that the provider is sent; empty when nobody traces."""
        ...

    @property
    def detailed(self) -> bool:
        """Whether `Answered` is worth being found out."""
        ...

    def end(self, call: CallRecord, answered: Answered | None = None) -> None:
        """Say what became of it, once; never waits and never raises."""
        ...


@runtime_checkable
class Traces(Protocol):
    """Begins traces; never waits and never raises, as callers would pay for it."""

    def begin(self, operation: Operation, model: LiveModel, incoming: TraceContext | None) -> Trace:
        """Begin one, just before the provider is called.

        Args:
            operation: what is called.
            model: the model that is leased for it.
            incoming: as `web.gateway.trace_context.read_trace_context` read it from the request.
        """
        ...


class Passed:
    """A trace that this service takes no part in: its context goes on as it came."""

    __slots__ = ("headers",)
    detailed: Final = False

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers: Final = headers

    def end(self, call: CallRecord, answered: Answered | None = None) -> None:
        """See `Trace.end`."""


UNTRACED: Final = Passed({})


class Untraced:
    """Traces nothing, and stands in no other's way."""

    def begin(self, operation: Operation, model: LiveModel, incoming: TraceContext | None) -> Trace:  # noqa: ARG002
        """See `Traces.begin`."""
        return UNTRACED if incoming is None else Passed(context_headers(incoming))


def context_headers(context: TraceContext) -> Mapping[str, str]:
    """A context as headers."""
    headers = {"traceparent": context.traceparent}
    if context.tracestate:
        headers["tracestate"] = context.tracestate
    return headers


class CallLogs:
    """Several logs as one."""

    def __init__(self, *logs: CallLog) -> None:
        self._logs = logs

    def record(self, call: CallRecord) -> None:
        """See `CallLog.record`."""
        for log in self._logs:
            try:
                log.record(call)
            except Exception:  # a bug, for which neither a caller nor the other logs are to pay
                logger.exception("the record of a call is lost")
