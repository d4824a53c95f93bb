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


async def test_a_model_makes_embeddings_and_responses_plain_and_streamed(
    api: Api, caller: AsyncOpenAI
) -> None:
    await api.create(model_id := api.new_id())
    made = await caller.embeddings.with_raw_response.create(model=model_id, input="hello")
    assert made.headers["x-model-ledger-version"] == "1"
    assert len(made.parse().data[0].embedding) == 4
    plain = await caller.responses.create(model=model_id, input="hello")
    assert model_id in plain.output_text
    stream = await caller.responses.create(model=model_id, input="hello", stream=True)
    events = [event async for event in stream]
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert model_id in "".join(pieces)
    assert events[-1].type == "response.completed"


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


async def test_embeddings_and_responses_reach_a_model_or_the_one_that_stands_in_for_it(
    api: Api, caller: AsyncOpenAI
) -> None:
    other = await api.create()
    gone = {"azure_endpoint": "http://127.0.0.1:9", "credential": None, "max_retries": 0}
    model_id = await api.create(**gone, fallbacks=[other], aliases=[f"vendor/{other}"])
    for name in (model_id, f"vendor/{other}"):
        vectors = await caller.embeddings.with_raw_response.create(model=name, input=["one", "two"])
        assert len(vectors.parse().data) == 2
        assert vectors.headers["x-model-ledger-model"] == other
        assert vectors.headers["x-model-ledger-asked"] == name
    whole = await caller.responses.create(model=model_id, input="hello")
    async with caller.responses.stream(model=model_id, input="hello") as stream:
        streamed = await stream.get_final_response()
    assert whole.output_text == streamed.output_text != ""
