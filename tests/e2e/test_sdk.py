"""The official SDK as a caller of the whole service: its own token check, its ledger, its workers."""

from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpx2Client
from service import Api, Service

HELLO = [{"role": "user", "content": "hello"}]


def sdk(service: Service, token: str) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=f"{service.url}/v1",
        api_key=token,
        max_retries=0,
        http_client=DefaultAsyncHttpx2Client(trust_env=False),
    )


@pytest.fixture
async def caller(shared_service: Service) -> AsyncIterator[AsyncOpenAI]:
    async with sdk(shared_service, shared_service.token) as client:
        yield client


async def test_a_model_of_the_ledger_is_listed_and_answers_plain_and_streamed(
    api: Api, caller: AsyncOpenAI
) -> None:
    await api.create(model_id := api.new_id())
    assert (await caller.models.retrieve(model_id)).id == model_id
    assert model_id in [model.id async for model in caller.models.list()]
    plain = await caller.chat.completions.with_raw_response.create(model=model_id, messages=HELLO)
    assert plain.headers["x-model-ledger-version"] == "1"
    assert model_id in (plain.parse().choices[0].message.content or "")
    stream = await caller.chat.completions.create(model=model_id, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert model_id in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_each_refusal_is_raised_as_its_own_class(
    api: Api, caller: AsyncOpenAI, shared_service: Service
) -> None:
    await api.create(model_id := api.new_id())
    async with sdk(shared_service, "mlk_unknown") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(model=model_id, messages=HELLO)
    with pytest.raises(openai.NotFoundError) as missing:
        await caller.chat.completions.create(model=api.new_id(), messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as empty:
        await caller.chat.completions.create(model=model_id, messages=[])
    assert empty.value.param == "messages"
    assert all(refused.value.request_id for refused in (missing, empty))
