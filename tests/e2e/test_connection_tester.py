"""Trying a configuration out: which step fails, what is told of it, and what is never sent or told."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from service import Api, free_port, path
from test_connections import contexts
from upstream import Hang, Raw, Reply, ScriptedUpstream, Status, wait_until

from application.connection_test import ConnectionReport
from domain.configuration import ModelConfig
from domain.values import ModelId, Origin
from infrastructure import connection_tester, connections
from infrastructure.connection_tester import ProviderTester
from infrastructure.provider import KeyRing, Providers

KEY = "test-key-0123456789abcdef"
"""What `running` gives the service."""
GPT = ModelId("gpt-4")
NO_COMPLETION = "what came is no chat completion"
STEPS = ["address", "resolve", "connect", "authenticate", "answer"]


async def tried(api: Api, model_id: str, **changes: Any) -> dict[str, Any]:
    answer = await api.http.post(path(model_id, "test"), json=api.config(**changes))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
    told: dict[str, Any] = answer.json()
    assert told["ok"] is all(step["ok"] for step in told["steps"])
    assert all(0 <= step["seconds"] < 30 for step in told["steps"])
    assert KEY not in answer.text
    return told


def last(told: dict[str, Any]) -> tuple[str, str]:
    step = told["steps"][-1]
    return step["name"], step["detail"]


def up(api: Api) -> ScriptedUpstream:
    assert api.service.upstream is not None
    return api.service.upstream


# What works.


async def test_values_that_are_not_saved_are_tried_by_one_small_call(api: Api) -> None:
    model_id, before = api.new_id(), await api.position()
    up(api).script(Reply("OK"), deployment=model_id)
    told = await tried(api, model_id)
    assert (told["ok"], [step["name"] for step in told["steps"]]) == (True, STEPS)
    assert "127.0.0.1" in told["steps"][1]["detail"]
    sent = [each for each in up(api).requests if model_id in each.path]
    assert len(sent) == 1
    assert sent[0].headers["api-key"] == KEY
    body = json.loads(sent[0].body)
    assert (body["max_tokens"], body["messages"][0]["role"]) == (16, "user")
    assert await api.position() == before
    assert (await api.read(model_id)).status_code == 404


async def test_without_a_body_the_saved_configuration_is_tried(api: Api) -> None:
    model_id = await api.create(deployment="saved-one")
    up(api).script(Reply("OK"), deployment="saved-one")
    told = (await api.http.post(path(model_id, "test"))).json()
    assert told["ok"] is True
    assert (await api.http.post(path(api.new_id(), "test"))).status_code == 404


async def test_a_disabled_or_reasoning_model_can_be_tried_too(api: Api) -> None:
    model_id = api.new_id()
    up(api).script(Reply("OK"), deployment=model_id)
    assert (await tried(api, model_id, enabled=False, reasoning=True, supports_temperature=False))["ok"]
    sent = [each for each in up(api).requests if model_id in each.path]
    assert json.loads(sent[0].body)["max_completion_tokens"] == 1024


# Which step fails.


async def test_a_name_without_an_address_fails_to_resolve(api: Api) -> None:
    told = await tried(api, "m", azure_endpoint="http://nowhere.invalid", credential=None)
    assert [step["name"] for step in told["steps"]] == ["address", "resolve"]
    assert last(told)[1].startswith("nowhere.invalid has no address: ")


async def test_a_port_where_nothing_listens_fails_to_connect(api: Api) -> None:
    port = free_port()
    told = await tried(api, "m", azure_endpoint=f"http://127.0.0.1:{port}", credential=None)
    assert (last(told)[0], told["ok"]) == ("connect", False)
    assert f"port {port} takes no connection" in last(told)[1]


@pytest.mark.parametrize(
    ("step", "failing", "detail"),
    [
        (Status(401), "authenticate", "the key is refused (HTTP 401)"),
        (Status(403), "authenticate", "the key is refused (HTTP 403)"),
        (
            Status(404, body={"error": {"message": "gone"}}),
            "answer",
            "HTTP 404: gone",
        ),
        (Status(429, headers={"retry-after": "60"}), "answer", "HTTP 429"),
        (Status(500), "answer", "HTTP 500"),
        (
            Raw(200, {"content-type": "text/html"}, b"<h1>Welcome"),
            "answer",
            NO_COMPLETION,
        ),
        (Raw(200, {"content-type": "application/json"}, b"[]"), "answer", NO_COMPLETION),
        (Raw(400, {}, b'{"error":"plain\\nwords \\u202e"}'), "answer", "HTTP 400: plain words"),
        (Raw(400, {}, b"\xff\xfe"), "answer", "HTTP 400"),
    ],
)
async def test_what_the_provider_refuses_is_told(api: Api, step: Any, failing: str, detail: str) -> None:
    model_id = api.new_id()
    up(api).script(step, deployment=model_id)
    told = await tried(api, model_id, max_retries=5)
    assert (last(told)[0], told["ok"]) == (failing, False)
    assert last(told)[1].startswith(detail)
    assert "\u202e" not in last(told)[1]
    assert len([each for each in up(api).requests if model_id in each.path]) == 1, (
        "a trial is not tried again"
    )


async def test_a_redirect_is_not_followed(api: Api) -> None:
    model_id = api.new_id()
    elsewhere = {"location": f"{up(api).origin}/elsewhere-{model_id}"}
    up(api).script(Raw(307, elsewhere, b""), deployment=model_id)
    told = await tried(api, model_id)
    assert last(told) == ("answer", "it leads elsewhere (HTTP 307), where no call follows")
    assert not [each for each in up(api).requests if "elsewhere" in each.path]


# Keys.


async def test_no_key_goes_where_it_may_not_be_saved_to_go(api: Api) -> None:
    with ScriptedUpstream() as stranger:
        answer = await api.http.post(path("m", "test"), json=api.config(azure_endpoint=stranger.origin))
        assert answer.status_code == 400
        assert [error["code"] for error in answer.json()["errors"]] == ["credential_not_bound"]
        assert stranger.requests == []
        told = await tried(api, "m", azure_endpoint=stranger.origin, credential=None)
        assert (told["ok"], told["steps"][3]["detail"]) == (True, "no key is asked for")
        [sent] = stranger.requests
        assert not {"api-key", "authorization"} & sent.headers.keys()


async def test_a_key_that_a_provider_quotes_is_not_told(api: Api) -> None:
    for status in (401, 400):
        model_id = api.new_id()
        quoting = {"error": {"message": f"Incorrect key {KEY} at {up(api).origin}"}}
        up(api).script(Status(status, body=quoting), deployment=model_id)
        detail = last(await tried(api, model_id))[1]
        assert "Incorrect key ***" in detail
        assert "127.0.0.1" not in detail


@pytest.mark.parametrize("body", ["[]", "{", '{"name": 5}', '"text"'])
async def test_what_is_no_configuration_is_refused_as_when_it_is_saved(api: Api, body: str) -> None:
    answer = await api.http.post(
        path("m", "test"), content=body, headers={"Content-Type": "application/json"}
    )
    saved = await api.http.post(path("m"), content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == saved.status_code == 400
    assert answer.json()["errors"] == saved.json()["errors"]


# Time and TLS.


def config(origin: str, **changes: Any) -> ModelConfig:
    return ModelConfig(
        name="A model",
        max_tokens=100,
        supports_streaming=True,
        supports_temperature=True,
        provider="openai",
        base_url=f"{origin}/openai/v1",
        **{"credential": None, **changes},
    )


def trial_calls(**keys: str) -> ProviderTester:
    return ProviderTester(Providers(KeyRing({Origin(origin): key for origin, key in keys.items()}), 3))


async def test_a_provider_that_says_nothing_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch, upstream: ScriptedUpstream
) -> None:
    monkeypatch.setattr(connection_tester, "CALL_TIMEOUT", 0.2)
    hang = Hang()
    upstream.script(hang)
    report = await trial_calls().test(GPT, config(upstream.origin))
    hang.release.set()
    assert [step.ok for step in report.steps] == [True, True, True, True, False]
    assert report.steps[-2].detail == "not known, as no answer came"
    assert report.steps[-1].detail == "the provider did not answer within 0.2 seconds"


async def test_a_host_that_takes_no_connection_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_tester, "STEP_TIMEOUT", 0.2)
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):  # fill the queue, which nobody empties
            waiting.settimeout(0)
            waiting.connect_ex(full.getsockname())
        report = await trial_calls().test(GPT, config(f"http://127.0.0.1:{full.getsockname()[1]}"))
    assert [(step.name, step.ok) for step in report.steps][-1] == ("connect", False)
    assert report.steps[-1].detail == "nothing came of it within 0.2 seconds"


@pytest.fixture
async def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A provider behind TLS, whose certificate is trusted for `localhost`."""
    server_side, client_side = contexts(tmp_path, "localhost")
    body = b'{"choices": []}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the handshake's own connection
        finally:
            writer.close()

    for module in (connections, connection_tester):
        monkeypatch.setattr(module, "_tls", lambda: client_side)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_side)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


def step(report: ConnectionReport, name: str) -> tuple[bool, str]:
    [found] = [each for each in report.steps if each.name == name]
    return found.ok, found.detail


async def test_the_handshake_is_a_step_of_its_own(secure: str) -> None:
    report = await trial_calls().test(GPT, config(secure))
    assert report.ok
    assert step(report, "tls") == (True, "TLSv1.3, certificate trusted")


async def test_a_certificate_for_another_name_is_told(secure: str) -> None:
    report = await trial_calls().test(GPT, config(secure.replace("localhost", "127.0.0.1")))
    ok, detail = step(report, "tls")
    assert not ok
    assert detail.startswith("the certificate is not trusted: ")
    assert [each.name for each in report.steps][-1] == "tls"


async def test_a_server_that_speaks_no_tls_is_told(upstream: ScriptedUpstream) -> None:
    report = await trial_calls().test(GPT, config(upstream.origin.replace("http:", "https:")))
    ok, detail = step(report, "tls")
    assert not ok
    assert detail.startswith("no TLS: ")


async def test_a_trial_leaves_nothing_open(upstream: ScriptedUpstream) -> None:
    one = trial_calls()
    reports = await asyncio.gather(*(one.test(GPT, config(upstream.origin)) for _ in range(20)))
    assert [report for report in reports if not report.ok] == []
    await wait_until(lambda: upstream.live == 0, within=5)
