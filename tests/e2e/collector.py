"""An OpenTelemetry collector for the tests: it takes OTLP over HTTP, and keeps what it was sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

KINDS: Final = {1: "internal", 2: "server", 3: "client"}
STATUSES: Final = {0: "unset", 1: "ok", 2: "error"}


@dataclass(frozen=True)
class ReceivedSpan:
    """A span; ids are hexadecimal, `parent` is empty for a root."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    status: str
    message: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    seconds: float


@dataclass
class Collector:
    """What came so far."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    spans: list[ReceivedSpan] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    """The newest of each name, as protocol buffers."""

    def of(self, model: str) -> list[ReceivedSpan]:
        """The spans of one model's calls, oldest first."""
        return [span for span in self.spans if span.attributes.get("gen_ai.request.model") == model]

    def points(self, metric: str, model: str) -> dict[str, Any]:
        """A histogram's points for one model, by token type or error, "" without either."""
        found = {}
        for point in self.metrics[metric].histogram.data_points if metric in self.metrics else ():
            attributes = values(point.attributes)
            if attributes["gen_ai.request.model"] == model:
                found[attributes.get("gen_ai.token.type", attributes.get("error.type", ""))] = point
        return found

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        if path == "/v1/traces":
            self.spans.extend(spans_of(ExportTraceServiceRequest.FromString(body)))
        elif path == "/v1/metrics":
            for each in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in each.scope_metrics:
                    self.metrics |= {metric.name: metric for metric in scope.metrics}
        self.bodies.append(body)
        self.headers.append(headers)


def spans_of(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for each in request.resource_spans:
        for scope in each.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    name=span.name,
                    kind=KINDS[span.kind],
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    state=span.trace_state,
                    status=STATUSES[span.status.code],
                    message=span.status.message,
                    attributes=values(span.attributes),
                    resource=values(each.resource.attributes),
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                )


def values(pairs: Any) -> dict[str, Any]:
    return {pair.key: value(pair.value) for pair in pairs}


def value(told: AnyValue) -> Any:
    kind = told.WhichOneof("value")
    if kind == "array_value":
        return [value(each) for each in told.array_value.values]
    return getattr(told, kind)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run one on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(self.path, {name.lower(): text for name, text in self.headers.items()}, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="collector")
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
