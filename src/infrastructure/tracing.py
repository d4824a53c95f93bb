"""OpenTelemetry: a span for each call in its caller's trace, and the metrics of calls, to a collector.

    begin ──> span ──> provider gets its context ──> end ──> queue (bounded) ──> thread ──> collector

Whatever the collector does, a call only ever adds to the queue; when that is full, the oldest spans go.
This module imports the SDK, so that it is imported only where a collector is configured.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from threading import Thread
from typing import Any, Final
from uuid import uuid4

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from application.ports import CallRecord, LiveModel, Operation
from application.telemetry import Answered, Trace, TraceContext, context_headers
from infrastructure.genai_spans import (
    DURATION,
    FIRST_CHUNK,
    SCOPE,
    SECONDS,
    TOKEN_USAGE,
    TOKENS,
    Described,
    describe,
    outcome,
)

logger = logging.getLogger(__name__)

FLUSH: Final = 2.0
"""Seconds that a stop waits for what is not sent yet."""
QUIET: Final = 60.0
"""Seconds between two lines of the log about a collector that takes nothing."""
DESCRIBED: Final = 1_000
"""Models whose description is kept."""
NOWHERE: Final = Context()


class OpenTelemetry:
    """Begins spans and counts calls; see `Traces`."""

    def __init__(self, tracing: TracerProvider | None, metering: MeterProvider | None) -> None:
        release = version("model-ledger")
        self._providers = [provider for provider in (tracing, metering) if provider is not None]
        self._tracer = tracing.get_tracer(SCOPE, release) if tracing else None
        self._metrics = _Metrics(metering, release) if metering else None
        self._described: dict[tuple[Operation, str], tuple[LiveModel, Described]] = {}

    def begin(self, operation: Operation, model: LiveModel, incoming: TraceContext | None) -> Trace:
        """See `Traces.begin`."""
        described = self._describe(operation, model)
        span = self._span(self._tracer, described, incoming) if self._tracer else None
        return _Call(described, span, incoming, self._metrics)

    async def close(self) -> None:
        """Send what is left, if that is done soon."""
        # In a thread that may be left behind: the SDK waits for a collector longer than a stop may take.
        closing = Thread(target=self._shut_down, name="telemetry's end", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, FLUSH)

    def _shut_down(self) -> None:
        for provider in self._providers:
            try:
                provider.shutdown()
            except Exception:
                logger.exception("the telemetry was not closed")

    def _describe(self, operation: Operation, model: LiveModel) -> Described:
        known = self._described.get((operation, model.model_id))
        if known is not None and known[0] is model:
            return known[1]
        if len(self._described) >= DESCRIBED:
            self._described.clear()
        described = describe(operation, model)
        self._described[operation, model.model_id] = model, described
        return described

    def _span(self, tracer: Tracer, described: Described, incoming: TraceContext | None) -> Span:
        parent = NOWHERE if incoming is None else _context(incoming)
        return tracer.start_span(described.span_name, parent, SpanKind.CLIENT, described.of_span)


class _Metrics:
    """The instruments."""

    def __init__(self, provider: MeterProvider, release: str) -> None:
        meter = provider.get_meter(SCOPE, release)

        def histogram(name: str, unit: str, told: str, bounds: Sequence[float]) -> Histogram:
            return meter.create_histogram(name, unit, told, explicit_bucket_boundaries_advisory=bounds)

        self._duration = histogram(DURATION, "s", "Calls until their end.", SECONDS)
        self._first_chunk = histogram(FIRST_CHUNK, "s", "Streams until their first chunk.", SECONDS)
        self._tokens = histogram(TOKEN_USAGE, "{token}", "Tokens that calls used.", TOKENS)

    def record(self, described: Described, call: CallRecord) -> None:
        attributes = described.of_metrics
        of_call = attributes if call.error is None else {**attributes, "error.type": call.error}
        self._duration.record(call.duration, of_call, NOWHERE)
        if call.stream and call.first_byte is not None:
            self._first_chunk.record(call.first_byte, attributes, NOWHERE)
        if call.tokens is not None:
            self._tokens.record(call.tokens.input, described.of_input, NOWHERE)
            self._tokens.record(call.tokens.output, described.of_output, NOWHERE)


class _Call:
    """See `Trace`."""

    __slots__ = ("_described", "_metrics", "_span", "headers")

    def __init__(
        self,
        described: Described,
        span: Span | None,
        incoming: TraceContext | None,
        metrics: _Metrics | None,
    ) -> None:
        self._described = described
        self._span = span
        self._metrics = metrics
        self.headers = _headers(span, incoming)

    @property
    def detailed(self) -> bool:
        return self._span is not None and self._span.is_recording()

    def end(self, call: CallRecord, answered: Answered | None = None) -> None:
        if self._metrics is not None:
            self._metrics.record(self._described, call)
        span = self._span
        if span is not None and span.is_recording():
            span.set_attributes(outcome(call, answered))
            if call.error is not None:
                span.set_status(StatusCode.ERROR)
            span.end()


def open_telemetry(variables: Mapping[str, str], *, traces: bool, metrics: bool) -> OpenTelemetry:
    """Open the way to the collector that OpenTelemetry's variables name.

    Raises:
        ValueError: one of them has a value that the SDK does not take.
    """
    # It would tell a lost collector's address again and again, and headers that are not well formed.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    with _environment(variables):
        resource = _resource()
        tracing = metering = None
        if traces:
            tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
            tracing.add_span_processor(BatchSpanProcessor(_Spans()))
        if metrics:
            reader = PeriodicExportingMetricReader(_Sums())
            metering = MeterProvider([reader], resource, shutdown_on_exit=False)
    return OpenTelemetry(tracing, metering)


class _Complaints:
    """Says now and then that a collector takes nothing; its address may be nobody's business."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._quiet_until = 0.0

    def tell(self) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            logger.warning("the collector takes no %s; they are lost until it does", self._what)


class _Spans(OTLPSpanExporter):
    def __init__(self) -> None:
        super().__init__()
        self._complaints = _Complaints("spans")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._complaints.tell()
        return result


class _Sums(OTLPMetricExporter):
    def __init__(self) -> None:
        super().__init__()
        self._complaints = _Complaints("metrics")

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **more: Any
    ) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **more)
        if result is not MetricExportResult.SUCCESS:
            self._complaints.tell()
        return result


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Let the SDK find its variables, for as long as it reads them."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)


def _resource() -> Resource:
    """Who sends; each worker is an instance of its own, as sums of two must not be taken for one's."""
    found = Resource.create({"service.version": version("model-ledger")})
    instance = found.attributes.get(SERVICE_INSTANCE_ID)
    more: dict[str, str] = {SERVICE_INSTANCE_ID: f"{instance}-{os.getpid()}" if instance else str(uuid4())}
    if str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        more[SERVICE_NAME] = "model-ledger"
    return found.merge(Resource(more))


def _context(incoming: TraceContext) -> Context:
    _, trace_id, span_id, flags = incoming.traceparent.split("-")[:4]
    state = TraceState.from_header([incoming.tracestate]) if incoming.tracestate else None
    parent = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=state,
    )
    return set_span_in_context(NonRecordingSpan(parent), NOWHERE)


def _headers(span: Span | None, incoming: TraceContext | None) -> Mapping[str, str]:
    """What the provider is sent: the span's place in the trace, and the caller's state as it came."""
    if span is None:
        return {} if incoming is None else context_headers(incoming)
    own = span.get_span_context()
    parent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
    return context_headers(TraceContext(parent, incoming.tracestate if incoming else ""))
