"""Traces and metrics as a real collector gets them, and what providers and callers notice of them."""

import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest
from collector import Collector, collecting
from service import TOKEN, Api, Databases, Service, running
from upstream import CutMidStream, RecordedRequest, Reply, ScriptedUpstream, Status, Stream, wait_until
from workers import family

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN: Final = "00f067aa0ba902b7"
CALLED: Final = {
    "traceparent": f"00-{TRACE}-{SPAN}-01",
    "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
}
PARENT: Final = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
COLLECTOR_KEY: Final = "c4n4ry-collector-key"
SOON: Final = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_METRIC_EXPORT_INTERVAL": "100"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(databases: Databases, collector: Collector) -> Iterator[Service]:
    """A service of one worker that sends everything to the collector."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-collector-key={COLLECTOR_KEY}",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        **SOON,
    }
    with (
        ScriptedUpstream() as upstream,
        databases.made() as name,
        running(databases, name, upstream, workers=1, **variables) as service,
    ):
        yield service


async def call(
    api: Api,
    model: str,
    path: str = "chat/completions",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> int:
    """Call a model with some text; the status."""
    text = {
        "chat/completions": {"messages": [{"role": "user", "content": "c4n4ry-prompt"}]},
        "responses": {"input": "c4n4ry-prompt"},
        "embeddings": {"input": "c4n4ry-prompt"},
    }
    body = {"model": model, **text[path], **more}
    return (await api.http.post(f"/v1/{path}", json=body, headers=headers)).status_code


async def make(api: Api, **changes: Any) -> str:
    """A model of its own, as soon as it is served."""
    model = await api.create(**changes)
    deadline = time.monotonic() + 15
    while (await api.http.get(f"/v1/models/{model}")).status_code != 200:
        assert time.monotonic() < deadline, f"{model} is not served"
    return model


def seen(service: Service, model: str) -> list[RecordedRequest]:
    """What the provider got for a model."""
    return [each for each in upstream_of(service).requests if each.deployment == model]


def upstream_of(service: Service) -> ScriptedUpstream:
    assert service.upstream is not None
    return service.upstream


def environment_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text()


# Spans.


async def test_a_call_is_a_span_with_the_names_of_the_conventions(
    traced: Service, collector: Collector
) -> None:
    async with traced.api() as api:
        model = await make(api)
        answer = await api.chat(model)
        assert answer.status_code == 200
        await wait_until(lambda: collector.of(model), within=5)
    (span,) = collector.of(model)
    (request,) = seen(traced, model)
    assert (span.name, span.kind, span.status) == (f"chat {model}", "client", "unset")
    assert 0 < span.seconds < 5
    told = answer.json()
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "openai.api.type": "chat_completions",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": model,
        "gen_ai.response.model": told["model"],
        "gen_ai.response.id": told["id"],
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": told["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": told["usage"]["completion_tokens"],
        "server.address": "127.0.0.1",
        "server.port": int(upstream_of(traced).origin.rpartition(":")[2]),
        "model_ledger.config.version": int(answer.headers["x-model-ledger-version"]),
        "model_ledger.retries": 0,
    }
    assert span.resource["service.name"] == "model-ledger"
    assert span.resource["deployment.environment.name"] == "test"
    assert span.resource["service.instance.id"]
    assert request.headers["traceparent"].startswith(f"00-{span.trace}-{span.id}-")


async def test_a_callers_trace_goes_on_through_the_span_to_the_provider(
    traced: Service, collector: Collector
) -> None:
    async with traced.api() as api:
        model = await make(api)
        assert await call(api, model, headers=CALLED) == 200
        await wait_until(lambda: collector.of(model), within=5)
        (request,) = seen(api.service, model)
    (span,) = collector.of(model)
    assert (span.trace, span.parent) == (TRACE, SPAN)
    assert request.headers["traceparent"] == f"00-{TRACE}-{span.id}-01"
    assert request.headers["tracestate"] == span.state == CALLED["tracestate"]


async def test_a_trace_that_is_not_valid_is_not_gone_on_with(traced: Service, collector: Collector) -> None:
    async with traced.api() as api:
        model = await make(api)
        for parent in (f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{SPAN}", "c4n4ry"):
            sent = {"traceparent": parent, "tracestate": "c4n4ry=1"}
            assert await call(api, model, headers=sent) == 200
        await wait_until(lambda: len(collector.of(model)) == 3, within=5)
        requests = seen(api.service, model)
    assert {span.parent for span in collector.of(model)} == {""}
    assert len({span.trace for span in collector.of(model)} | {TRACE}) == 4
    assert not any(
        "c4n4ry" in (each.headers["traceparent"] + str(each.headers.get("tracestate"))) for each in requests
    )


async def test_a_trace_that_its_caller_does_not_record_is_not_recorded_but_goes_on(
    traced: Service, collector: Collector
) -> None:
    async with traced.api() as api:
        model = await make(api)
        assert await call(api, model, headers={"traceparent": f"00-{TRACE}-{SPAN}-00"}) == 200
        assert await call(api, model) == 200
        await wait_until(lambda: collector.of(model), within=5)
        first, _ = seen(api.service, model)
    (span,) = collector.of(model)
    assert span.trace != TRACE
    found = PARENT.fullmatch(first.headers["traceparent"])
    assert found is not None
    assert (found[1], found[3]) == (TRACE, "00")


async def test_retries_belong_to_one_span_and_a_failure_names_its_kind(
    traced: Service, collector: Collector
) -> None:
    async with traced.api() as api:
        model = await make(api, max_retries=1)
        at_once = {"retry-after": "0"}
        steps = (Status(429, at_once), Reply("hello"), Status(503, at_once), Status(503, at_once))
        upstream_of(traced).script(*steps)
        assert [await call(api, model) for _ in range(2)] == [200, 503]
        await wait_until(lambda: len(collector.of(model)) == 2, within=5)
        requests = seen(api.service, model)
    good, bad = sorted(collector.of(model), key=lambda span: span.status)[::-1]
    assert (good.status, good.attributes["model_ledger.retries"]) == ("unset", 1)
    assert "error.type" not in good.attributes
    assert (bad.status, bad.message, bad.attributes["model_ledger.retries"]) == ("error", "", 1)
    assert bad.attributes["error.type"] == "http_503"
    parents = [request.headers["traceparent"] for request in requests]
    assert parents[0] == parents[1] != parents[2] == parents[3]


async def test_a_stream_tells_its_first_chunk_and_its_cut(traced: Service, collector: Collector) -> None:
    async with traced.api() as api:
        model = await make(api)
        upstream_of(traced).script(Stream(["a", "b"]), CutMidStream())
        for _ in range(2):
            assert await call(api, model, stream=True) == 200
        await wait_until(lambda: len(collector.of(model)) == 2, within=5)
    whole, cut = sorted(collector.of(model), key=lambda span: span.status)[::-1]
    for span in (whole, cut):
        assert span.attributes["gen_ai.request.stream"] is True
        assert 0 < span.attributes["gen_ai.response.time_to_first_chunk"] <= span.seconds
    assert (whole.status, cut.status) == ("unset", "error")
    assert whole.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert cut.attributes["error.type"] == "broken"


@pytest.mark.parametrize(
    ("path", "operation", "kind"),
    [("embeddings", "embeddings", None), ("responses", "chat", "responses")],
)
async def test_each_operation_has_its_name(
    traced: Service, collector: Collector, path: str, operation: str, kind: str | None
) -> None:
    async with traced.api() as api:
        model = await make(api)
        assert await call(api, model, path) == 200
        await wait_until(lambda: collector.of(model), within=5)
    (span,) = collector.of(model)
    assert span.name == f"{operation} {model}"
    assert span.attributes["gen_ai.operation.name"] == operation
    assert span.attributes.get("openai.api.type") == kind


# Metrics.


async def test_metrics_have_the_conventions_names_and_buckets(traced: Service, collector: Collector) -> None:
    async with traced.api() as api:
        model = await make(api, max_retries=0)
        upstream_of(traced).script(Reply("hello"), Stream(["a", "b"]), Status(503))
        statuses = [await call(api, model), await call(api, model, stream=True), await call(api, model)]
    assert statuses == [200, 200, 503]
    name = "gen_ai.client.operation"
    await wait_until(lambda: collector.points(f"{name}.duration", model).keys() == {"", "http_503"}, within=5)
    await wait_until(lambda: collector.points(f"{name}.duration", model)[""].count == 2, within=5)
    duration = collector.points(f"{name}.duration", model)
    assert duration["http_503"].count == 1
    assert (duration[""].explicit_bounds[0], duration[""].explicit_bounds[-1]) == (0.01, 81.92)
    assert collector.metrics[f"{name}.duration"].unit == "s"
    assert collector.points(f"{name}.time_to_first_chunk", model)[""].count == 1
    tokens = collector.points("gen_ai.client.token.usage", model)
    assert tokens.keys() == {"input", "output"}
    assert list(tokens["input"].explicit_bounds) == [4**power for power in range(14)]
    assert collector.metrics["gen_ai.client.token.usage"].unit == "{token}"


# What must not be told.


async def test_no_key_token_or_text_reaches_the_collector(traced: Service, collector: Collector) -> None:
    async with traced.api() as api:
        model = await make(api)
        quoted = {"error": {"message": "c4n4ry-error", "code": "c4n4ry-code"}}
        steps = (Reply("c4n4ry-answer"), Stream(["c4n4ry-", "chunk"]), Status(400, body=quoted))
        upstream_of(traced).script(*steps)
        for stream in (False, True, False):
            await call(api, model, stream=stream, user="c4n4ry-user")
        await wait_until(lambda: len(collector.of(model)) == 3, within=5)
    sent = b"".join(collector.bodies)
    assert model.encode() in sent
    for secret in ("c4n4ry", TOKEN, "test-key-0123456789abcdef"):
        assert secret.encode() not in sent


async def test_the_collectors_key_is_sent_to_it_and_kept_nowhere_else(
    traced: Service, collector: Collector
) -> None:
    await wait_until(lambda: collector.headers, within=5)
    assert {headers["x-collector-key"] for headers in collector.headers} == {COLLECTOR_KEY}
    for pid in family(traced.process.pid) - {traced.process.pid}:
        assert COLLECTOR_KEY not in environment_of(pid)
    assert COLLECTOR_KEY not in traced.said()


# A collector that is no help.


@contextmanager
def black_hole() -> Iterator[tuple[str, list[socket.socket]]]:
    """Takes connections, and never answers: its address, and those connections so far."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            try:
                while True:
                    taken.append(listener.accept()[0])
            except OSError:
                return

        thread = Thread(target=take, name="black hole")
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", taken
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in taken:
                each.close()


async def test_a_collector_that_never_answers_delays_neither_calls_nor_the_end(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    queue = {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4", **SOON}
    with black_hole() as (url, taken):
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **queue}
        with running(databases, database, upstream, workers=1, **variables) as service:
            async with service.api() as api:
                assert await call(api, "first") == 200
                await wait_until(lambda: taken, within=5)
                begun = time.monotonic()
                for _ in range(50):
                    assert await call(api, "first") == 200
                assert time.monotonic() - begun < 5
            begun = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - begun < 8


async def test_what_is_not_sent_yet_is_sent_at_the_end(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    with collecting() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
            "OTEL_METRIC_EXPORT_INTERVAL": "600000",
            "OTEL_SERVICE_NAME": "ours",
        }
        with running(databases, database, upstream, workers=1, **variables) as service:
            async with service.api() as api:
                for _ in range(3):
                    assert await call(api, "first") == 200
            assert collector.spans == []
            assert service.stop() == 0
        assert len(collector.of("first")) == 3
        assert {span.resource["service.name"] for span in collector.spans} == {"ours"}
        assert collector.points("gen_ai.client.operation.duration", "first")[""].count == 3


# Without a collector.


async def test_without_a_collector_a_valid_trace_passes_as_it_came(
    api: Api, shared_upstream: ScriptedUpstream
) -> None:
    model = await make(api)
    assert await call(api, model, headers=CALLED) == 200
    assert await call(api, model, headers={"traceparent": "nonsense", "tracestate": "a=1"}) == 200
    assert await call(api, model) == 200
    traced, nonsense, untraced = seen(api.service, model)
    assert {name: traced.headers[name] for name in CALLED} == CALLED
    for request in (nonsense, untraced):
        assert {"traceparent", "tracestate"}.isdisjoint(request.headers)


# Variables that are wrong.


def test_a_variable_that_only_the_sdk_finds_wrong_stops_the_start_too(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    wrong = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_ATTRIBUTE_COUNT_LIMIT": "many"}
    with (
        pytest.raises(
            AssertionError, match=r"did not start: .*OTEL_\*\) do not allow a start: OTEL_ATTRIBUTE"
        ),
        running(databases, database, upstream, workers=2, **wrong),
    ):
        raise RuntimeError("it started")
