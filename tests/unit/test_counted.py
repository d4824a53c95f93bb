"""What is counted of calls and told to Prometheus: sums over all workers, and never too many of them."""

import time
from math import inf
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from records import call

from application.ports import CallLog, CallRecord, Tokens
from application.telemetry import CallLogs
from domain.values import ModelId
from infrastructure.exposition import tell
from infrastructure.metric_table import MetricTable
from infrastructure.metrics import MODELS, SECONDS, Metrics, State, metric_table


def state(**changes: Any) -> State:
    fields = {
        "running": 0,
        "active": 0,
        "draining": 0,
        "degraded": 0,
        "position": 1,
        "current_at": time.monotonic(),
        "listening": True,
        "waiting": 0,
        "dropped": 0,
    }
    return State(**{**fields, **changes})


def worker(table: MetricTable, number: int = 0, **changes: Any) -> Metrics:
    """A worker's metrics, as it is from the beginning on."""
    metrics = Metrics(table, number, lambda: state(**changes))
    metrics.look()
    return metrics


def told(table: MetricTable) -> dict[str, float]:
    """The samples by name and label values, without the prefix."""
    found = {}
    for family in text_string_to_metric_families(tell(table).decode()):
        for sample in family.samples:
            key = " ".join([sample.name.removeprefix("model_ledger_"), *sample.labels.values()])
            assert key not in found
            found[key] = sample.value
    return found


@pytest.fixture
def table() -> MetricTable:
    return metric_table(2)


def test_calls_are_summed_over_workers_by_model_and_class_of_status(table: MetricTable) -> None:
    first, second = worker(table, 0), worker(table, 1)
    for status in (200, 204, 400, 499, 500, 504):
        first.record(call(status=status, attempts=2))
    second.record(call(model_id=ModelId("o3")))
    second.record(call())
    samples = told(table)
    assert [samples[f"gateway_requests_total gpt-4 {each}"] for each in ("2xx", "4xx", "5xx")] == [3, 2, 2]
    assert samples["gateway_requests_total o3 2xx"] == 1
    assert samples["gateway_upstream_attempts_total gpt-4"] == 13


def test_times_fall_into_the_bucket_whose_bound_they_do_not_exceed(table: MetricTable) -> None:
    metrics = worker(table)
    for seconds in (0.0, SECONDS[0], SECONDS[0] + 1e-9, SECONDS[-1] + 1):
        metrics.record(call(duration=seconds))
    samples = told(table)
    buckets = [f"gateway_duration_seconds_bucket {bound} gpt-4" for bound in (*SECONDS[:2], 300.0, "+Inf")]
    assert [samples[bucket] for bucket in buckets] == [2, 3, 3, 4]
    assert samples["gateway_duration_seconds_count gpt-4"] == 4
    assert samples["gateway_duration_seconds_sum gpt-4"] == pytest.approx(301.02)


def test_only_streams_are_timed_until_their_first_byte(table: MetricTable) -> None:
    metrics = worker(table)
    metrics.record(call(stream=True, first_byte=0.2))
    metrics.record(call(stream=True, first_byte=None, error="connect", status=502))
    metrics.record(call(first_byte=0.2))
    samples = told(table)
    assert samples["gateway_first_byte_seconds_count gpt-4"] == 1
    assert samples["gateway_first_byte_seconds_sum gpt-4"] == pytest.approx(0.2)


def test_a_stream_that_began_and_failed_is_cut_and_for_a_known_reason(table: MetricTable) -> None:
    metrics = worker(table)
    for reason in ("left", "left", "timeout", "a word that nobody thought of"):
        metrics.record(call(stream=True, error=reason, status=502))
    metrics.record(call(error="broken", status=502))
    metrics.record(call(stream=True, first_byte=None, error="timeout", status=504))
    cut = {key.split()[1]: value for key, value in told(table).items() if "streams_cut" in key}
    assert cut == {"broken": 0, "failed": 0, "left": 2, "timeout": 1, "other": 1}


def test_tokens_are_summed_where_they_were_told(table: MetricTable) -> None:
    metrics = worker(table)
    for tokens in (Tokens(10, 20), Tokens(5, 0), None):
        metrics.record(call(tokens=tokens))
    samples = told(table)
    assert samples["gateway_tokens_total gpt-4 input"] == 15
    assert samples["gateway_tokens_total gpt-4 output"] == 20


def test_what_came_to_no_model_is_counted_as_other(table: MetricTable) -> None:
    metrics = worker(table)
    for status in (401, 404, 502):
        metrics.refused(status)
    samples = told(table)
    assert [samples[f"gateway_requests_total other {each}"] for each in ("2xx", "4xx", "5xx")] == [0, 2, 1]


def test_however_many_models_there_are_only_so_many_are_told_apart(table: MetricTable) -> None:
    metrics = worker(table)
    for number in range(100_000):
        metrics.record(call(model_id=ModelId(f"m{number}")))
    counted = {key: value for key, value in told(table).items() if key.startswith("gateway_requests_total")}
    assert sum(counted.values()) == 100_000
    assert len(counted) == 3 * (MODELS + 1)
    assert counted["gateway_requests_total other 2xx"] == 100_000 - MODELS


def test_names_of_every_length_and_kind_keep_their_counts_apart(table: MetricTable) -> None:
    metrics = worker(table)
    names = ["a", "a" * 127, "a" * 128, "A.b_c:d-9"]
    for name in (*names, "ü", "a" * 129):
        metrics.record(call(model_id=ModelId(name)))
    samples = told(table)
    assert [samples[f"gateway_requests_total {name} 2xx"] for name in names] == [1, 1, 1, 1]
    assert samples["gateway_requests_total other 2xx"] == 2


def test_who_takes_a_workers_place_counts_on(table: MetricTable) -> None:
    before = worker(table, dropped=3)
    before.record(call(stream=True, error="left"))
    table.forget(0)
    after = worker(table, dropped=2)
    after.record(call())
    samples = told(table)
    assert samples["gateway_requests_total gpt-4 2xx"] == 2
    assert samples["gateway_streams_cut_total left"] == 1
    assert samples["usage_records_dropped_total"] == 5


def test_gauges_are_those_of_the_workers_that_serve(table: MetricTable) -> None:
    now = time.monotonic()
    worker(table, 0, running=2, active=3, draining=1, degraded=1, position=9, waiting=4, current_at=now - 60)
    worker(table, 1, running=1, active=4, degraded=2, position=7, listening=False, waiting=1, current_at=now)
    samples = told(table)
    assert samples["workers"] == 2
    assert samples["gateway_running_calls"] == 3
    assert (samples["clients active"], samples["clients draining"]) == (7, 1)
    assert (samples["degraded_models"], samples["config_position"], samples["listen_connected"]) == (2, 7, 0)
    assert samples["config_lag_seconds"] == pytest.approx(60, abs=5)
    assert samples["usage_records_waiting"] == 5
    table.forget(1)
    samples = told(table)
    assert (samples["workers"], samples["config_position"], samples["listen_connected"]) == (1, 9, 1)


def test_a_worker_that_never_had_the_newest_configuration_lags_without_end(table: MetricTable) -> None:
    worker(table, 0)
    worker(table, 1, current_at=None)
    assert told(table)["config_lag_seconds"] == inf


def test_where_nobody_serves_yet_there_are_metrics_all_the_same(table: MetricTable) -> None:
    samples = told(table)
    assert (samples["workers"], samples["config_position"], samples["config_lag_seconds"]) == (0, 0, inf)


class Fails:
    def record(self, call: CallRecord) -> None:
        raise RuntimeError("a bug")


class Keeps:
    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    def record(self, call: CallRecord) -> None:
        self.records.append(call)


def test_of_several_logs_each_gets_every_record_whatever_becomes_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keeps = Keeps()
    logs: CallLog = CallLogs(Fails(), keeps)
    logs.record(record := call())
    assert keeps.records == [record]
    assert "a bug" in caplog.text
