"""Models that stand in for one that cannot be called, and the names that callers may use."""

import asyncio
from collections.abc import Mapping
from socket import create_server
from typing import Any, Final

import httpx2
import openai
import pytest
from msgspec.structs import replace
from openai import AsyncOpenAI
from served_gateway import HELLO, ServedGateway, ask, error_of, events_of, post
from upstream import CutMidStream, ErrorFrame, Hang, Reply, Status, Step, wait_until

from domain.configuration import ModelConfig
from domain.values import ModelId

A: Final = ModelId("a")
B: Final = ModelId("b")
C: Final = ModelId("c")


@pytest.fixture
def sdk(gateway_sdk: AsyncOpenAI) -> AsyncOpenAI:
    return gateway_sdk


@pytest.fixture
def http(gateway_http: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return gateway_http


@pytest.fixture
def estate(gateway: ServedGateway) -> dict[str, ModelConfig]:
    """`a`, for which `b` and then `c` stand in; none is tried twice."""
    config = replace(gateway.config, max_retries=0)
    return {
        A: replace(config, deployment="deployed-a", fallbacks=(B, C)),
        B: replace(config, deployment="deployed-b"),
        C: replace(config, deployment="deployed-c"),
    }


def script(gateway: ServedGateway, **steps: Step) -> None:
    for name, step in steps.items():
        gateway.up.script(step, deployment=f"deployed-{name}")


def asked(gateway: ServedGateway) -> list[str]:
    """The models that were called, in order."""
    return [request.deployment.removeprefix("deployed-") for request in gateway.up.requests]


def identity(answer: httpx2.Response) -> Mapping[str, str | None]:
    names = ("model", "asked", "attempts", "adjusted")
    return {name: answer.headers.get(f"x-model-ledger-{name}") for name in names}


def nobody() -> str:
    with create_server(("127.0.0.1", 0)) as probe:
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


class TestWhoAnswers:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_the_next_one_when_a_model_is_overloaded_or_broken(
        self,
        gateway: ServedGateway,
        estate: dict[str, ModelConfig],
        http: httpx2.AsyncClient,
        status: int,
        stream: object,
    ) -> None:
        version = await gateway.serve(estate)
        script(gateway, a=Status(status), b=Reply("hello from b"))
        answer = await ask(http, model="a", stream=stream)
        assert answer.status_code == 200
        assert ("hello from b" in answer.text) is not stream
        assert identity(answer) == {"model": "b", "asked": "a", "attempts": "2", "adjusted": None}
        assert answer.headers["x-model-ledger-version"] == str(version)
        assert asked(gateway) == ["a", "b"]
        first, second = await gateway.recorded(2)
        assert (first.model_id, first.asked, first.status, first.error) == (
            "a",
            "a",
            status,
            f"http_{status}",
        )
        assert (second.model_id, second.asked, second.status, second.error) == ("b", "a", 200, None)
        assert (first.attempts, second.attempts) == (1, 1)

    async def test_the_next_one_when_a_provider_is_not_there(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient
    ) -> None:
        estate[A] = replace(estate[A], azure_endpoint=nobody(), credential=None, max_retries=2)
        await gateway.serve(estate)
        answer = await ask(http, model="a")
        assert identity(answer) == {"model": "b", "asked": "a", "attempts": "4", "adjusted": None}
        first, _ = await gateway.recorded(2)
        assert (first.status, first.error, first.attempts, first.first_byte) == (502, "connect", 3, None)

    async def test_one_after_the_other_until_one_does(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient
    ) -> None:
        await gateway.serve(estate)
        script(gateway, a=Status(503), b=Status(429))
        answer = await ask(http, model="a")
        assert identity(answer) == {"model": "c", "asked": "a", "attempts": "3", "adjusted": None}
        assert asked(gateway) == ["a", "b", "c"]

    async def test_each_after_its_own_retries(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient
    ) -> None:
        estate |= {A: replace(estate[A], max_retries=2), B: replace(estate[B], max_retries=1)}
        await gateway.serve(estate)
        gateway.up.script(*[Status(503)] * 3, deployment="deployed-a")
        gateway.up.script(*[Status(503)] * 2, deployment="deployed-b")
        answer = await ask(http, model="a")
        assert identity(answer)["attempts"] == "6"
        assert asked(gateway) == [*"aaabbc"]
        assert [record.attempts for record in await gateway.recorded(3)] == [3, 2, 1]

    async def test_one_that_is_disabled_or_has_no_client_is_left_out(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient
    ) -> None:
        # Nobody may call `unbound`: its key is for another address.
        unbound = replace(estate[B], azure_endpoint="https://unbound.example")
        await gateway.serve(
            {
                **estate,
                A: replace(estate[A], fallbacks=(ModelId("unbound"), B, C)),
                B: replace(estate[B], enabled=False),
                "unbound": unbound,
            }
        )
        script(gateway, a=Status(503))
        assert identity(await ask(http, model="a"))["model"] == "c"
        assert asked(gateway) == ["a", "c"]

    async def test_each_by_its_own_rules(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient
    ) -> None:
        estate[B] = replace(estate[B], max_tokens=10, supports_temperature=False, supports_streaming=False)
        await gateway.serve(estate)
        script(gateway, a=Status(503), b=Reply("all at once"))
        answer = await ask(http, model="a", max_tokens=100, temperature=0.5, stream=True)
        told = "max_tokens=max_completion_tokens, max_completion_tokens=10, temperature=dropped, stream=whole"
        assert identity(answer)["adjusted"] == told
        assert "all at once" in answer.text
        first, second = gateway.up.requests
        assert (first.fields["max_tokens"], first.fields["temperature"]) == (100, 0.5)
        assert second.fields == {"model": "deployed-b", "messages": HELLO, "max_completion_tokens": 10}

    @pytest.mark.parametrize(
        ("path", "body"), [("/embeddings", {"input": "x"}), ("/responses", {"input": "x", "stream": True})]
    )
    async def test_the_other_operations_have_them_too(
        self,
        gateway: ServedGateway,
        estate: dict[str, ModelConfig],
        http: httpx2.AsyncClient,
        path: str,
        body: dict[str, Any],
    ) -> None:
        await gateway.serve(estate)
        script(gateway, a=Status(500))
        answer = await http.post(path, json={"model": "a", **body})
        assert (answer.status_code, identity(answer)["model"]) == (200, "b")


class TestWhenNobodyStandsIn:
    @pytest.mark.parametrize("status", [400, 401, 404, 408, 422])
    async def test_a_refusal_is_that_of_the_model_that_was_asked(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient, status: int
    ) -> None:
        await gateway.serve(estate)
        script(gateway, a=Status(status))
        answer = await ask(http, model="a")
        assert answer.status_code == (502 if status == 401 else status)
        assert identity(answer) == {"model": "a", "asked": None, "attempts": "1", "adjusted": None}
        assert asked(gateway) == ["a"]

    async def test_an_answer_that_broke_off_may_have_been_worked_on(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient
    ) -> None:
        await gateway.serve(estate)
        script(gateway, a=CutMidStream())
        answer = await ask(http, model="a")
        assert (answer.status_code, error_of(answer)["code"]) == (502, "provider_broken")
        assert asked(gateway) == ["a"]

    @pytest.mark.parametrize("step", [CutMidStream(), ErrorFrame()])
    async def test_nor_does_anyone_in_the_middle_of_a_stream(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient, step: Step
    ) -> None:
        await gateway.serve(estate)
        script(gateway, a=step)
        answer = await ask(http, model="a", stream=True)
        assert "error" in events_of(answer)[-1]
        assert asked(gateway) == ["a"]

    async def test_nor_after_a_timeout(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient
    ) -> None:
        estate[A] = replace(estate[A], base_timeout=0.1, max_timeout=0.1)
        await gateway.serve(estate)
        script(gateway, a=Hang())
        answer = await ask(http, model="a")
        assert (answer.status_code, error_of(answer)["code"]) == (504, "provider_timeout")
        assert asked(gateway) == ["a"]

    async def test_when_all_fail_the_error_is_that_of_the_model_that_was_asked(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], sdk: AsyncOpenAI
    ) -> None:
        await gateway.serve(estate)
        script(gateway, a=Status(429, {"retry-after": "77"}), b=Status(503), c=Status(500))
        with pytest.raises(openai.RateLimitError) as failure:
            await sdk.chat.completions.create(model="a", messages=HELLO)  # type: ignore[arg-type]
        answer = failure.value.response
        assert answer.headers["retry-after"] == "77"
        assert (answer.headers["x-model-ledger-model"], answer.headers["x-model-ledger-attempts"]) == (
            "a",
            "3",
        )
        assert [record.status for record in await gateway.recorded(3)] == [429, 503, 500]

    async def test_a_fallbacks_own_refusal_says_nothing_of_the_request(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient
    ) -> None:
        # It may lack what the other one has, and the SDKs would never try again.
        await gateway.serve(estate)
        script(gateway, a=Status(503), b=Status(400))
        answer = await ask(http, model="a")
        assert (answer.status_code, identity(answer)["model"]) == (503, "a")
        assert asked(gateway) == ["a", "b"]
        assert [record.status for record in await gateway.recorded(2)] == [503, 400]

    async def test_all_of_them_share_the_first_ones_time(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig], http: httpx2.AsyncClient
    ) -> None:
        estate[A] = replace(estate[A], base_timeout=0.4, max_timeout=0.4)
        await gateway.serve(estate)
        script(gateway, a=Status(503), b=Hang())
        async with asyncio.timeout(2):
            answer = await ask(http, model="a")
        assert (answer.status_code, identity(answer)) == (
            503,
            {"model": "a", "asked": None, "attempts": "2", "adjusted": None},
        )
        await wait_until(lambda: gateway.up.aborted == 1, within=1)
        assert asked(gateway) == ["a", "b"]
        assert [record.status for record in await gateway.recorded(2)] == [503, 504]

    async def test_a_caller_who_leaves_meanwhile_ends_it(
        self, gateway: ServedGateway, estate: dict[str, ModelConfig]
    ) -> None:
        await gateway.serve(estate)
        script(gateway, a=Status(503), b=Hang())
        async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, verify=False) as http:
            asking = asyncio.create_task(ask(http, model="a"))
            await wait_until(lambda: asked(gateway) == ["a", "b"], within=2)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await wait_until(lambda: gateway.up.aborted == 1, within=1)
        first, second = await gateway.recorded(2)
        assert (first.status, second.status, second.error) == (503, 499, "left")


class TestNames:
    async def test_an_alias_is_answered_by_its_model_and_told(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        await gateway.serve(aliases=("openai/gpt-4",))
        answer = await ask(http, model="openai/gpt-4")
        assert identity(answer) == {
            "model": "gpt-4",
            "asked": "openai/gpt-4",
            "attempts": "1",
            "adjusted": None,
        }
        assert gateway.up.requests[0].fields["model"] == "prod"
        (record,) = await gateway.recorded()
        assert (record.model_id, record.asked) == ("gpt-4", "openai/gpt-4")

    async def test_a_header_never_names_what_is_no_name(
        self, gateway: ServedGateway, http: httpx2.AsyncClient
    ) -> None:
        answer = await post(http, b'{"model":"a\\r\\nset-cookie: a","messages":[1]}')
        assert answer.status_code == 404
        assert {"x-model-ledger-asked", "set-cookie"}.isdisjoint(answer.headers)
        assert gateway.records == []
