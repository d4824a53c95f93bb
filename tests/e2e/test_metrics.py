"""The metrics: those of all workers at once, whichever is scraped, and nothing that callers can blow up."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from threading import Event

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from raw import exchange
from service import TOKEN, Api, Databases, Service, running
from upstream import CutMidStream, ErrorFrame, Raw, Reply, ScriptedUpstream, Status, Stream, wait_until
from workers import each_worker, workers

Samples = Mapping[str, float]
"""By `name{label="value",...}`, labels in the order of their names, the prefix left out."""


def samples(text: str) -> Samples:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("model_ledger_")
            assert name != sample.name
            key = f"{name}{{{labels}}}" if labels else name
            assert key not in found, f"{key} stands twice"
            found[key] = sample.value
    return found


async def scrape(api: Api) -> Samples:
    answer = await api.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answer.text)


async def scraped(api: Api, key: str, value: float) -> Samples:
    """Scrape until a sample has that value: a call is counted just after its last byte."""
    deadline = time.monotonic() + 15
    while (found := await scrape(api)).get(key) != value:
        assert time.monotonic() < deadline, f"{key} is {found.get(key)}, not {value}"
    return found


async def served(api: Api, model: str) -> None:
    """Wait until the worker behind this client knows the model."""
    deadline = time.monotonic() + 15
    while (await api.http.get(f"/v1/models/{model}")).status_code != 200:
        assert time.monotonic() < deadline, f"{model} is not served"


def requests(model: str, status_class: str = "2xx") -> str:
    return f'gateway_requests_total{{model="{model}",status_class="{status_class}"}}'


@pytest.fixture(scope="module")
def own_service(databases: Databases) -> Iterator[Service]:
    """Two workers that nobody else calls, open to programs of this machine."""
    with (
        ScriptedUpstream() as upstream,
        databases.made() as name,
        running(databases, name, upstream, workers=2, MODEL_LEDGER_LOCAL_METRICS="true") as service,
    ):
        yield service


async def test_each_worker_tells_the_calls_of_all(api: Api, shared_service: Service) -> None:
    model = await api.create()
    async with each_worker(shared_service) as found:
        for calls, worker in enumerate(found.values(), start=2):
            await served(worker, model)
            for _ in range(calls):
                assert (await worker.chat(model)).status_code == 200
        for worker in found.values():
            told = await scraped(worker, requests(model), 2 + 3)
            assert told[f'gateway_upstream_attempts_total{{model="{model}"}}'] == 5
            assert told[f'gateway_duration_seconds_count{{model="{model}"}}'] == 5
            assert told[f'gateway_duration_seconds_bucket{{le="+Inf",model="{model}"}}'] == 5
            assert 0 < told[f'gateway_duration_seconds_sum{{model="{model}"}}'] < 5


async def test_tries_failures_and_tokens_are_counted_by_model(
    api: Api, shared_upstream: ScriptedUpstream
) -> None:
    model = await api.create(deployment="counted")
    await served(api, model)
    at_once = {"retry-after": "0"}
    shared_upstream.script(Status(429, at_once), Reply("hello"), Status(400), deployment="counted")
    assert [(await api.chat(model)).status_code for _ in range(2)] == [200, 400]
    told = await scraped(api, requests(model, "4xx"), 1)
    assert told[requests(model)] == 1
    assert told[f'gateway_upstream_attempts_total{{model="{model}"}}'] == 3
    seen = [each for each in shared_upstream.requests if each.deployment == "counted"]
    assert len(seen) == 3
    assert told[f'gateway_tokens_total{{model="{model}",type="input"}}'] > 0
    assert told[f'gateway_tokens_total{{model="{model}",type="output"}}'] > 0


async def test_streams_are_timed_until_their_first_byte_and_those_cut_short_are_counted_by_reason(
    api: Api, shared_upstream: ScriptedUpstream
) -> None:
    model = await api.create(deployment="streamed")
    await served(api, model)
    before = await scrape(api)
    steps = (Stream(["a", "b"]), CutMidStream(), ErrorFrame())
    shared_upstream.script(*steps, deployment="streamed")
    for _ in steps:
        assert (await api.chat(model, stream=True)).status_code == 200
    told = await scraped(api, f'gateway_first_byte_seconds_count{{model="{model}"}}', 3)
    cut = {reason: f'gateway_streams_cut_total{{reason="{reason}"}}' for reason in ("broken", "failed")}
    assert {reason: told[key] - before[key] for reason, key in cut.items()} == {"broken": 1, "failed": 1}
    assert told[requests(model)] == 1
    assert told[requests(model, "5xx")] == 2


async def test_names_that_no_model_has_are_counted_together(
    api: Api, shared_service: Service, dice: random.Random
) -> None:
    names = [f"{dice.getrandbits(64):x}" for _ in range(150)]
    before = await scrape(api)
    for name in names:
        assert (await api.chat(name)).status_code == 404
    exchange(shared_service, "POST", "/v1/chat/completions", [], token="wrong")
    told = await scrape(api)
    assert told[requests("other", "4xx")] - before[requests("other", "4xx")] == len(names) + 1
    assert len(told) == len(before)
    assert not any(name in key for name in names for key in told)


async def test_a_scrape_tells_how_the_service_is(own_service: Service) -> None:
    async with own_service.api() as api:
        await api.create()
        await scraped(api, "workers", 2)
        await scraped(api, "config_position", await api.position())
        told = await scraped(api, "listen_connected", 1)
    assert 0 <= told["config_lag_seconds"] < 5
    assert told["degraded_models"] == 0
    assert told["usage_records_dropped_total"] == 0
    assert told['clients{state="active"}'] >= 2
    assert [value for key, value in told.items() if key.startswith("build_info{")] == [1]


async def test_running_calls_and_draining_clients_show(own_service: Service) -> None:
    upstream = own_service.upstream
    assert upstream is not None
    async with own_service.api() as api:
        model = await api.create()
        await served(api, model)
        upstream.script(Stream(["a", "b"], hold=(hold := Event())))
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        async with api.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            await scraped(api, "gateway_running_calls", 1)
            await api.update(model, azure_endpoint=f"{upstream.origin}/elsewhere")
            told = await scraped(api, 'clients{state="draining"}', 1)
            assert told["gateway_running_calls"] == 1
            hold.set()
            await answer.aread()
        told = await scraped(api, 'clients{state="draining"}', 0)
        assert told["gateway_running_calls"] == 0


async def test_what_a_killed_worker_counted_stays(own_service: Service) -> None:
    async with own_service.api() as api:
        model = await api.create()
    async with each_worker(own_service) as found:
        for worker in found.values():
            await served(worker, model)
            assert (await worker.chat(model)).status_code == 200
        (killed, _), (_, survivor) = found.items()
        await scraped(survivor, requests(model), 2)
        os.kill(killed, signal.SIGKILL)
        told = await scraped(survivor, "workers", 1)
        assert told[requests(model)] == 2
        await wait_until(lambda: len(workers(own_service) - {killed}) == 2, within=10)
        told = await scraped(survivor, "workers", 2)
        assert told[requests(model)] == 2
    async with each_worker(own_service) as found:
        for calls, worker in enumerate(found.values(), start=3):
            await served(worker, model)
            assert (await worker.chat(model)).status_code == 200
            await scraped(worker, requests(model), calls)


async def test_no_key_token_or_text_is_told(api: Api, shared_upstream: ScriptedUpstream) -> None:
    model = await api.create(deployment="canary", name="c4n4ry-name")
    await served(api, model)
    quoted = {"error": {"message": "c4n4ry-error", "code": "c4n4ry-code", "type": "c4n4ry-type"}}
    shared_upstream.script(Reply("c4n4ry-answer"), Status(400, body=quoted), deployment="canary")
    shared_upstream.script(Raw(418, {"c4n4ry": "header"}, b"c4n4ry"), deployment="canary")
    for _ in range(3):
        await api.chat(model, messages=[{"role": "user", "content": "c4n4ry-prompt"}], user="c4n4ry-user")
    await scraped(api, requests(model, "4xx"), 2)
    text = (await api.http.get("/metrics")).text
    assert model in text
    for secret in ("c4n4ry", TOKEN, "test-key-0123456789abcdef"):
        assert secret not in text


def test_without_a_token_nothing_is_told(shared_service: Service) -> None:
    for token in ("", "wrong"):
        answer = exchange(shared_service, "GET", "/metrics", [], token=token)
        assert answer.status == 401
        assert b"gateway" not in answer.body


async def ask(service: Service, **headers: str) -> int:
    """The status that a program of this machine gets, by the headers that it sends."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx2.AsyncClient(base_url=service.url, headers=sent, trust_env=False, verify=False) as http:
        return (await http.get("/metrics")).status_code


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
async def test_where_it_is_allowed_programs_of_this_machine_need_none(
    own_service: Service, host: str
) -> None:
    assert await ask(own_service, host=host) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "metrics.example"},
        {"host": "localhost.example:8000"},
        {"x_forwarded_for": "203.0.113.7"},
        {"forwarded": "for=203.0.113.7"},
        {"via": "1.1 proxy"},
    ],
)
async def test_what_comes_through_a_proxy_or_by_another_name_needs_one_even_there(
    own_service: Service, headers: dict[str, str]
) -> None:
    assert await ask(own_service, **headers) == 401
    assert await ask(own_service, **headers, authorization=f"Bearer {TOKEN}") == 200


def test_a_start_waits_for_no_library_that_only_scrapes_and_collectors_need() -> None:
    code = "import sys, web.workers; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules = done.stdout.split()
    assert "infrastructure.metrics" in modules
    assert {"prometheus_client", "opentelemetry"}.isdisjoint(modules)
