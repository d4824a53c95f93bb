"""The metrics of all workers as Prometheus reads them."""

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from math import inf
from operator import add
from typing import Final

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from infrastructure.metric_table import MetricTable
from infrastructure.metrics import (
    ACTIVE,
    ATTEMPTS,
    CLASSES,
    CURRENT_AT,
    CUT,
    DEGRADED,
    DRAINING,
    DROPPED,
    DURATION,
    FIRST_BYTE,
    INPUT,
    LISTENING,
    OUTPUT,
    POSITION,
    REASONS,
    RUNNING,
    SECONDS,
    SERVING,
    WAITING,
)

BOUNDS: Final = (*map(str, SECONDS), "+Inf")

Rows = Mapping[str, Sequence[float]]
"""By model, what all workers counted together."""


def tell(table: MetricTable) -> bytes:
    """The metrics in the text format, version 0.0.4."""
    return generate_latest(_Families(table))


class _Families(Collector):
    def __init__(self, table: MetricTable) -> None:
        self._parts = list(table.parts())
        self._serving = [part for part in self._parts if part.cells[SERVING]]
        self._columns = table.columns

    def collect(self) -> Iterator[Metric]:
        """All of them, in the order in which they are told."""
        yield from self._of_calls(self._rows())
        yield from self._of_workers()
        told = ("version", "python")
        build = GaugeMetricFamily("model_ledger_build_info", "What runs here; always 1.", labels=told)
        build.add_metric([version("model-ledger"), platform.python_version()], 1)
        yield build

    def _rows(self) -> Rows:
        rows: dict[str, list[float]] = {}
        for part in self._parts:
            for name, first in part.named():
                row = part.cells[first : first + self._columns]
                known = rows.get(name)
                rows[name] = [*row] if known is None else [*map(add, known, row)]
        return rows

    def _of_calls(self, rows: Rows) -> Iterator[Metric]:
        yield _counter(
            "gateway_requests",
            "Calls, one for each model that was tried; `other` came to none.",
            {(model, name): row[at] for model, row in rows.items() for at, name in enumerate(CLASSES)},
            "model",
            "status_class",
        )
        yield _counter(
            "gateway_upstream_attempts",
            "Requests to providers, retries included.",
            {(model,): row[ATTEMPTS] for model, row in rows.items()},
            "model",
        )
        yield _histogram("gateway_duration_seconds", "Calls until their end.", rows, DURATION)
        yield _histogram("gateway_first_byte_seconds", "Streams until their first byte.", rows, FIRST_BYTE)
        yield _counter(
            "gateway_tokens",
            "Tokens that calls used, as providers told them.",
            {
                (model, kind): row[at]
                for model, row in rows.items()
                for kind, at in (("input", INPUT), ("output", OUTPUT))
            },
            "model",
            "type",
        )
        yield _counter(
            "gateway_streams_cut",
            "Streams that ended before they were complete.",
            {(reason,): self._counted(CUT + at) for at, reason in enumerate(REASONS)},
            "reason",
        )

    def _of_workers(self) -> Iterator[Metric]:
        yield _gauge("workers", "Workers that serve.", self._sum(SERVING))
        yield _gauge("gateway_running_calls", "Calls that are under way.", self._sum(RUNNING))
        clients = GaugeMetricFamily("model_ledger_clients", "Clients of providers.", labels=["state"])
        clients.add_metric(["active"], self._sum(ACTIVE))
        clients.add_metric(["draining"], self._sum(DRAINING))
        yield clients
        yield _gauge(
            "degraded_models",
            "Models whose newest configuration no client fits.",
            max((part.cells[DEGRADED] for part in self._serving), default=0.0),
        )
        yield _gauge(
            "config_position",
            "The ledger's position that every worker serves, or a later one.",
            min((part.cells[POSITION] for part in self._serving), default=0.0),
        )
        yield _gauge(
            "config_lag_seconds",
            "Time since the worker that is furthest behind served the newest configuration.",
            max(map(_lag, (part.cells[CURRENT_AT] for part in self._serving)), default=inf),
        )
        yield _gauge(
            "listen_connected",
            "1 when every worker gets the ledger's notifications.",
            min((part.cells[LISTENING] for part in self._serving), default=0.0),
        )
        yield _gauge("usage_records_waiting", "Usage records not yet written.", self._sum(WAITING))
        yield _counter("usage_records_dropped", "Usage records that were lost.", {(): self._counted(DROPPED)})

    def _sum(self, gauge: int) -> float:
        return sum(part.cells[gauge] for part in self._serving)

    def _counted(self, counter: int) -> float:
        return sum(part.cells[counter] for part in self._parts)


def _lag(current_at: float) -> float:
    return max(time.monotonic() - current_at, 0.0) if current_at else inf


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"model_ledger_{name}", told, value)


def _counter(name: str, told: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    family = CounterMetricFamily(f"model_ledger_{name}", told, labels=labels)
    for named, value in values.items():
        family.add_metric(named, value)
    return family


def _histogram(name: str, told: str, rows: Rows, first: int) -> Metric:
    family = HistogramMetricFamily(f"model_ledger_{name}", told, labels=["model"])
    for model, row in rows.items():
        counts = accumulate(row[first : first + len(BOUNDS)])
        buckets = list(zip(BOUNDS, counts, strict=True))
        if buckets[-1][1]:
            family.add_metric([model], buckets, row[first + len(BOUNDS)])
    return family
