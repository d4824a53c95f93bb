"""Providers and the pool against a real upstream: addresses, keys, tries, time, and ends of calls."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import httpx2
import pytest
from msgspec.structs import replace
from upstream import (
    CutMidStream,
    Hang,
    Raw,
    Reply,
    ScriptedUpstream,
    Status,
    Stream,
    wait_until,
)

from application.ports import LiveModel, ProviderAnswer, ProviderCall, ProviderFailed
from domain.configuration import ModelConfig
from domain.values import ModelId, Origin
from infrastructure.client_pool import CannotConnect, ClientPool
from infrastructure.provider import KeyRing, NotBound, ProviderClient, Providers
from infrastructure.retries import Backoff

GPT = ModelId("gpt-4")
KEY = "sk-a-secret-key-of-the-test"
MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'
PLAIN = b'{"model":"prod",' + MESSAGES + b"}"
STREAM = b'{"model":"prod","stream":true,' + MESSAGES + b"}"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Waits:
    """Stands for the passing of time between tries: it remembers, and goes on at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def backoff(self) -> Backoff:
        return Backoff(jitter=lambda: 1.0, now=NOON.timestamp, sleep=self.sleep)


def azure(up: ScriptedUpstream, **changes: object) -> ModelConfig:
    config = ModelConfig(
        name="A model",
        max_tokens=4096,
        supports_streaming=True,
        supports_temperature=True,
        azure_endpoint=up.origin,
        api_version="2025-01-01-preview",
        deployment="prod",
    )
    return replace(config, **changes)


def openai_compatible(up: ScriptedUpstream, **changes: object) -> ModelConfig:
    config = ModelConfig(
        name="A model",
        max_tokens=4096,
        supports_streaming=True,
        supports_temperature=True,
        provider="openai",
        base_url=f"{up.origin}/openai/v1",
    )
    return replace(config, **changes)


def live(config: ModelConfig, version: int = 1, model_id: ModelId = GPT) -> LiveModel:
    return LiveModel(model_id, config, version, version, NOON)


def call(body: bytes = PLAIN, timeout: float = 5) -> ProviderCall:
    return ProviderCall("/chat/completions", body, stream=body is STREAM, timeout=timeout, headers={})


async def body_of(answer: ProviderAnswer) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks])


class Caller:
    """A pool that serves one model, and calls of it."""

    def __init__(self, up: ScriptedUpstream) -> None:
        self.waits = Waits()
        self.up = up
        self.pool = ClientPool(self.providers().connect)

    def providers(self) -> Providers:
        return Providers(KeyRing({Origin(self.up.origin): KEY}), 3, self.waits.backoff())

    async def serve(self, config: ModelConfig, version: int = 1) -> None:
        await self.pool.reconcile({GPT: live(config, version)})

    async def call(self, body: bytes = PLAIN, *, seconds: float = 5) -> tuple[int, int, bytes]:
        """Status, attempts and body."""
        async with self.pool.lease(GPT) as lease, lease.send(call(body, seconds)) as answer:
            return answer.status, answer.attempts, await body_of(answer)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def up(server: ScriptedUpstream) -> AsyncIterator[ScriptedUpstream]:
    await wait_until(lambda: server.live == 0, within=2)
    server._requests.clear()
    server._scripts.clear()
    server.started = server.finished = server.aborted = 0
    yield server
    await wait_until(lambda: server.live == 0, within=2)
    assert server.unplayed == 0, "the test did not make the calls that it scripted"


@pytest.fixture
async def caller(up: ScriptedUpstream) -> AsyncIterator[Caller]:
    caller = Caller(up)
    await caller.serve(azure(up))
    yield caller
    await caller.pool.close()
    assert caller.pool.leases == 0


class TestWhereCallsGo:
    async def test_classic_azure_has_the_deployment_in_the_path(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        await caller.call()
        (request,) = up.requests
        assert request.path == "/openai/deployments/prod/chat/completions"
        assert request.query == {"api-version": "2025-01-01-preview"}
        assert request.headers["api-key"] == KEY
        assert "authorization" not in request.headers
        assert request.body == PLAIN

    @pytest.mark.parametrize("slash", ["", "/"])
    async def test_azures_v1_has_it_in_the_body_and_no_version(
        self, up: ScriptedUpstream, caller: Caller, slash: str
    ) -> None:
        await caller.serve(azure(up, azure_endpoint=f"{up.origin}/openai/v1{slash}"))
        await caller.call()
        (request,) = up.requests
        assert (request.path, request.query, request.body) == ("/openai/v1/chat/completions", {}, PLAIN)
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert "api-key" not in request.headers

    async def test_an_openai_compatible_server_is_called_below_its_base_url(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        await caller.serve(openai_compatible(up))
        await caller.call()
        (request,) = up.requests
        assert (request.path, request.query) == ("/openai/v1/chat/completions", {})
        assert request.headers["authorization"] == f"Bearer {KEY}"

    async def test_bytes_pass_untouched_both_ways(self, up: ScriptedUpstream, caller: Caller) -> None:
        odd = b'{ "model" : "prod","messages":[1.50,1e2,"\\u00e9"],"x":{"a":null} }'
        answer = b'{ "choices":[ ],"x_vendor": 1.2300 }'
        up.script(Raw(200, {"content-type": "application/json"}, answer))
        assert await caller.call(odd) == (200, 1, answer)
        assert up.requests[0].body == odd

    async def test_a_redirect_is_never_followed(self, up: ScriptedUpstream, caller: Caller) -> None:
        up.script(Raw(307, {"location": f"{up.origin}/elsewhere"}, b""))
        assert (await caller.call())[:2] == (307, 1)
        assert len(up.requests) == 1

    async def test_cookies_are_forgotten(self, up: ScriptedUpstream, caller: Caller) -> None:
        up.script(Raw(200, {"set-cookie": "session=1; Path=/"}, b"{}"))
        await caller.call()
        await caller.call()
        assert "cookie" not in up.requests[1].headers


class TestKeys:
    @pytest.mark.parametrize("make", [azure, openai_compatible])
    async def test_without_a_credential_no_key_is_sent(
        self, up: ScriptedUpstream, caller: Caller, make: type[ModelConfig]
    ) -> None:
        await caller.serve(make(up, credential=None))
        await caller.call()
        assert {"authorization", "api-key"}.isdisjoint(up.requests[0].headers)

    @pytest.mark.parametrize("credential", ["environment", None])
    @pytest.mark.parametrize("make", [azure, openai_compatible])
    async def test_nothing_of_the_environment_reaches_the_provider(
        self,
        up: ScriptedUpstream,
        monkeypatch: pytest.MonkeyPatch,
        make: type[ModelConfig],
        credential: str | None,
    ) -> None:
        planted = {
            name: f"planted-{name}"
            for name in (
                "OPENAI_API_KEY",
                "OPENAI_ADMIN_KEY",
                "OPENAI_ORG_ID",
                "OPENAI_PROJECT_ID",
                "OPENAI_API_VERSION",
                "OPENAI_WEBHOOK_SECRET",
                "AZURE_OPENAI_API_KEY",
                "AZURE_OPENAI_AD_TOKEN",
            )
        }
        planted["OPENAI_BASE_URL"] = planted["AZURE_OPENAI_ENDPOINT"] = "http://planted.invalid"
        planted["HTTP_PROXY"] = planted["http_proxy"] = "http://127.0.0.1:9"
        custom = "X-Planted: planted\nAuthorization: Bearer planted\nUser-Agent: planted\napi-key: planted"
        planted["OPENAI_CUSTOM_HEADERS"] = custom
        for name, value in planted.items():
            monkeypatch.setenv(name, value)
        caller = Caller(up)
        await caller.serve(make(up, credential=credential))
        await caller.call()
        await caller.pool.close()
        (request,) = up.requests
        assert "planted" not in repr(request)
        assert {"openai-organization", "openai-project"}.isdisjoint(request.headers)
        assert request.key == (KEY if credential else "")

    def test_a_key_is_bound_to_its_origin(self, up: ScriptedUpstream) -> None:
        ring = KeyRing({Origin("https://bound.example"): KEY})
        with pytest.raises(NotBound, match="MODEL_LEDGER_KEY_ORIGINS"):
            ring.key_for(azure(up))
        assert ring.key_for(azure(up, credential=None)) is None
        assert ring.key_for(azure(up, azure_endpoint="https://BOUND.example:443/x")) == KEY
        assert KEY not in f"{ring!r}{ring}"

    async def test_a_model_whose_key_is_not_bound_is_degraded(self, up: ScriptedUpstream) -> None:
        pool = ClientPool(Providers(KeyRing({}), 3).connect)
        await pool.reconcile({GPT: live(azure(up))})
        assert up.origin in pool.degraded[GPT]
        with pytest.raises(ProviderFailed):
            async with pool.lease(GPT):
                pass
        assert up.requests == []

    def test_an_old_address_that_breaks_todays_rules_makes_no_client(self, up: ScriptedUpstream) -> None:
        config = azure(up, azure_endpoint="http://169.254.169.254/", credential=None)
        with pytest.raises(CannotConnect, match="link-local"):
            Providers(KeyRing({}), 3).connect(live(config))

    async def test_a_live_client_sends_nothing_to_another_origin(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        client = caller.providers().connect(live(azure(up)))
        with ScriptedUpstream() as attacker:
            client.sdk.base_url = httpx2.URL(f"{attacker.origin}/openai/")
            with pytest.raises(ProviderFailed) as failure:
                async with client.send(live(azure(up)), call()):
                    pass
            assert attacker.requests == []
        assert failure.value.kind == "not_bound"
        await client.close()

    async def test_an_error_quotes_neither_the_key_nor_the_address(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        host = up.origin.removeprefix("http://").partition(":")[0]
        up.script(Status(400, body={"error": {"message": f"{KEY} is wrong at {up.origin}"}}))
        status, _, body = await caller.call()
        assert status == 400
        assert KEY.encode() not in body
        assert host.encode() not in body
        assert b"is wrong at" in body


class TestTries:
    async def test_it_is_tried_again_until_it_works(self, up: ScriptedUpstream, caller: Caller) -> None:
        up.script(Status(500), Status(503), Status(429), Reply("at last"))
        status, attempts, body = await caller.call()
        assert (status, attempts, len(up.requests)) == (200, 4, 4)
        assert b"at last" in body
        assert caller.waits.seconds == [0.5, 1.0, 2.0]
        assert [request.body for request in up.requests] == [PLAIN] * 4

    @pytest.mark.parametrize("retries", [0, 1, 5])
    async def test_the_last_error_is_the_answer(
        self, up: ScriptedUpstream, caller: Caller, retries: int
    ) -> None:
        await caller.serve(azure(up, max_retries=retries))
        up.script(*[Status(500)] * (retries + 1))
        assert (await caller.call(seconds=60))[:2] == (500, retries + 1)
        assert len(up.requests) == retries + 1

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
    async def test_what_the_next_try_would_not_better_is_not_tried_again(
        self, up: ScriptedUpstream, caller: Caller, status: int
    ) -> None:
        up.script(Status(status))
        assert (await caller.call())[:2] == (status, 1)

    async def test_a_content_filter_is_final(self, up: ScriptedUpstream, caller: Caller) -> None:
        up.script(
            Status(400, {"x-should-retry": "true"}, {"error": {"code": "content_filter", "message": "no"}})
        )
        assert (await caller.call())[:2] == (400, 1)

    async def test_a_conflict_is_tried_again_when_the_provider_says_so(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        up.script(Status(409, {"x-should-retry": "true"}), Reply("ok"))
        assert (await caller.call())[:2] == (200, 2)

    async def test_no_means_no(self, up: ScriptedUpstream, caller: Caller) -> None:
        up.script(Status(500, {"x-should-retry": "false"}))
        assert (await caller.call())[:2] == (500, 1)

    @pytest.mark.parametrize(
        ("headers", "wait"),
        [
            ({"retry-after": "0"}, 0.0),
            ({"retry-after": "3"}, 3.0),
            ({"retry-after": "-3"}, 0.0),
            ({"retry-after-ms": "1500", "retry-after": "3"}, 1.5),
            ({"retry-after": "Thu, 01 Jan 2026 12:00:04 GMT"}, 4.0),
            ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
            ({"retry-after": "soon"}, 0.5),
            ({"retry-after": "nan"}, 0.5),
        ],
    )
    async def test_the_providers_advice_is_kept(
        self, up: ScriptedUpstream, caller: Caller, headers: dict[str, str], wait: float
    ) -> None:
        up.script(Status(429, headers), Reply("ok"))
        assert (await caller.call())[:2] == (200, 2)
        assert caller.waits.seconds == [wait]

    @pytest.mark.parametrize(
        "headers", [{"retry-after": "21"}, {"retry-after": "inf", "retry-after-ms": "20001"}]
    )
    async def test_advice_to_wait_too_long_is_handed_to_the_caller(
        self, up: ScriptedUpstream, caller: Caller, headers: dict[str, str]
    ) -> None:
        up.script(Status(429, headers))
        assert (await caller.call(seconds=60))[:2] == (429, 1)
        assert caller.waits.seconds == []

    async def test_a_wait_that_does_not_fit_the_timeout_is_not_begun(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        up.script(Status(429, {"retry-after": "5"}))
        assert (await caller.call(seconds=4))[:2] == (429, 1)

    async def test_a_server_that_is_not_there_is_tried_again_and_then_unreachable(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            origin = f"http://127.0.0.1:{probe.getsockname()[1]}"
        waits = Waits()
        pool = ClientPool(Providers(KeyRing({}), 3, waits.backoff()).connect)
        config = ModelConfig(
            name="Gone",
            max_tokens=1,
            supports_streaming=True,
            supports_temperature=True,
            provider="openai",
            base_url=origin,
            credential=None,
        )
        await pool.reconcile({GPT: live(config)})
        async with pool.lease(GPT) as lease:
            with pytest.raises(ProviderFailed) as failure:
                async with lease.send(call()):
                    pass
        assert (failure.value.kind, failure.value.attempts) == ("connect", 4)
        assert len(waits.seconds) == 3
        assert origin not in str(failure.value)
        await pool.close()

    async def test_a_reply_that_breaks_off_is_not_tried_again(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        up.script(CutMidStream())
        with pytest.raises(ProviderFailed) as failure:
            await caller.call()
        assert (failure.value.kind, len(up.requests)) == ("broken", 1)


class TestTime:
    @pytest.mark.parametrize("body", [PLAIN, STREAM])
    async def test_silence_ends_with_the_timeout(
        self, up: ScriptedUpstream, caller: Caller, body: bytes
    ) -> None:
        up.script(Hang())
        with pytest.raises(ProviderFailed) as failure:
            await caller.call(body, seconds=0.2)
        assert (failure.value.kind, failure.value.attempts) == ("timeout", 1)
        await wait_until(lambda: up.aborted == 1, within=1)

    async def test_a_trickle_does_not_outlast_it(self, up: ScriptedUpstream, caller: Caller) -> None:
        up.script(Stream(["drop"] * 1_000, delay=0.02))
        with pytest.raises(ProviderFailed) as failure:
            await caller.call(STREAM, seconds=0.3)
        assert failure.value.kind == "timeout"
        await wait_until(lambda: up.aborted == 1, within=1)

    async def test_all_tries_share_it(self, up: ScriptedUpstream, caller: Caller) -> None:
        up.script(Status(500), Hang())
        with pytest.raises(ProviderFailed) as failure:
            await caller.call(seconds=0.7)
        assert (failure.value.kind, failure.value.attempts) == ("timeout", 2)
        await wait_until(lambda: up.aborted == 1, within=1)

    async def test_a_timeout_of_the_callers_own_stays_their_own(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        up.script(Hang())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await caller.call()
        await wait_until(lambda: up.aborted == 1, within=1)


class TestEnds:
    async def test_leaving_early_ends_the_call(self, up: ScriptedUpstream, caller: Caller) -> None:
        up.script(Stream(["more"] * 1_000, delay=0.01))
        async with caller.pool.lease(GPT) as lease, lease.send(call(STREAM)) as answer:
            assert await anext(answer.chunks)
        await wait_until(lambda: up.aborted == 1, within=1)

    async def test_an_answer_that_nobody_reads_ends_too(self, up: ScriptedUpstream, caller: Caller) -> None:
        up.script(Stream(["more"] * 1_000, delay=0.01))
        async with caller.pool.lease(GPT) as lease, lease.send(call(STREAM)) as answer:
            assert answer.status == 200
        await wait_until(lambda: up.aborted == 1, within=1)

    async def test_a_cancelled_call_ends_however_often_it_is_cancelled(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        up.script(Stream(["more"] * 1_000, delay=0.01), Hang())
        calls = [asyncio.create_task(caller.call(STREAM, seconds=60)) for _ in range(2)]
        await wait_until(lambda: up.live == 2, within=2)
        while not all(each.done() for each in calls):
            for each in calls:
                each.cancel()
            await asyncio.sleep(0)
        await wait_until(lambda: up.aborted == 2, within=1)
        assert caller.pool.leases == 0

    async def test_hundreds_of_aborted_calls_leave_no_connection_behind(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        async def abort() -> None:
            async with caller.pool.lease(GPT) as lease, lease.send(call(STREAM)) as answer:
                await anext(answer.chunks)

        up.stream_chunks = 50
        for _ in range(3):
            await asyncio.gather(*[abort() for _ in range(100)])
        up.stream_chunks = None
        assert (await caller.call())[0] == 200
        await wait_until(lambda: up.live == 0, within=5)

    async def test_a_refresh_cuts_no_call_and_later_ones_use_the_new_client(
        self, up: ScriptedUpstream, caller: Caller
    ) -> None:
        up.script(Stream(["old"] * 20, delay=0.01), deployment="prod")
        async with caller.pool.lease(GPT) as lease, lease.send(call(STREAM)) as answer:
            first = await anext(answer.chunks)
            await caller.serve(azure(up, deployment="next"), 2)
            await caller.call()
            body = first + await body_of(answer)
        assert body.count(b'"old"') == 20
        assert body.endswith(b"data: [DONE]\n\n")
        assert [request.deployment for request in up.requests] == ["prod", "next"]
        assert (caller.pool.open, caller.pool.draining) == (1, 0)


class TestSharing:
    async def test_clients_of_one_origin_share_connections_until_the_last_is_closed(
        self, up: ScriptedUpstream
    ) -> None:
        providers = Providers(KeyRing({Origin(up.origin): KEY}), 3)
        models = [live(azure(up, deployment=f"d{number}")) for number in range(3)]
        clients = [providers.connect(model) for model in models]

        async def use(client: ProviderClient, model: LiveModel) -> int:
            async with client.send(model, call()) as answer:
                return answer.status

        async with AsyncExitStack() as stack:
            for client, model in zip(clients, models, strict=True):
                assert await use(client, model) == 200
                stack.push_async_callback(client.close)
            await stack.pop_all().aclose()
        again = providers.connect(models[0])
        assert await use(again, models[0]) == 200
        await again.close()

    async def test_a_big_error_is_cut_and_still_an_error(self, up: ScriptedUpstream, caller: Caller) -> None:
        up.script(Raw(400, {"content-type": "text/html"}, b"x" * 3_000_000))
        status, _, body = await caller.call()
        assert status == 400
        assert len(body) < 1_000_000
