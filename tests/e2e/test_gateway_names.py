"""Callers name a model by its id or by an alias; the official SDK does both."""

import httpx2
import openai
import pytest
from msgspec.structs import replace
from openai import AsyncOpenAI
from served_gateway import HELLO, ServedGateway, ask, error_of
from upstream import Reply

LLAMA = "meta-llama/Llama-3-8B"


@pytest.fixture
async def named(gateway: ServedGateway) -> ServedGateway:
    """`gpt-4`, also called by two other names, beside `o3`."""
    await gateway.serve(
        {"gpt-4": replace(gateway.config, aliases=(LLAMA, "chat:latest")), "o3": gateway.config}
    )
    return gateway


@pytest.mark.parametrize("name", ["gpt-4", LLAMA, "chat:latest"])
async def test_every_name_reaches_the_model_and_the_answer_says_which_it_is(
    named: ServedGateway, gateway_sdk: AsyncOpenAI, name: str
) -> None:
    named.up.script(Reply("hello to you"))
    answer = await gateway_sdk.chat.completions.with_raw_response.create(model=name, messages=HELLO)
    assert answer.headers["x-model-ledger-model"] == "gpt-4"
    assert answer.parse().choices[0].message.content == "hello to you"
    (request,) = named.up.requests
    assert request.deployment == "prod"
    assert name not in request.body.decode()


async def test_all_names_are_listed_in_order_and_each_is_read_by_itself(
    named: ServedGateway, gateway_sdk: AsyncOpenAI
) -> None:
    models = (await gateway_sdk.models.list()).data
    assert [model.id for model in models] == ["chat:latest", "gpt-4", LLAMA, "o3"]
    for model in models:
        assert await gateway_sdk.models.retrieve(model.id) == model


@pytest.mark.parametrize("path", [LLAMA, LLAMA.replace("/", "%2F"), LLAMA.replace("/", "%2f")])
async def test_a_slash_in_a_name_may_be_escaped_or_not(
    named: ServedGateway, gateway_http: httpx2.AsyncClient, path: str
) -> None:
    answer = await gateway_http.get(f"/models/{path}")
    assert (answer.status_code, answer.json()["id"]) == (200, LLAMA)


@pytest.mark.parametrize("path", ["meta-llama", "meta-llama/", f"{LLAMA}/x", "GPT-4", "gpt-4/x"])
async def test_no_other_name_is_found(
    named: ServedGateway, gateway_http: httpx2.AsyncClient, path: str
) -> None:
    answer = await gateway_http.get(f"/models/{path}")
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "model_not_found"


async def test_a_name_that_was_given_up_is_not_found_any_more(
    named: ServedGateway, gateway_sdk: AsyncOpenAI, gateway_http: httpx2.AsyncClient
) -> None:
    await named.serve()
    with pytest.raises(openai.NotFoundError):
        await gateway_sdk.models.retrieve(LLAMA)
    answer = await ask(gateway_http, model=LLAMA)
    assert answer.status_code == 404
    assert LLAMA in error_of(answer)["message"]
