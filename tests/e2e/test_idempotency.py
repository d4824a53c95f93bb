"""Requests that may be sent again: the Idempotency-Key."""

import asyncio
import uuid

import httpx2
import pytest
from service import Api, path


def key() -> dict[str, str]:
    return {"Idempotency-Key": f'"{uuid.uuid4()}"'}


def same(one: httpx2.Response, other: httpx2.Response) -> bool:
    """Whether the second answer is the first one, kept."""
    return (one.status_code, one.content, one.headers.get("etag")) == (
        other.status_code,
        other.content,
        other.headers.get("etag"),
    )


async def test_a_repeated_request_gets_the_first_answer_and_changes_nothing(api: Api) -> None:
    model_id, headers = api.new_id(), key()
    first = await api.http.post(path(model_id), json=api.config(), headers=headers)
    assert first.status_code == 201
    before = await api.position()
    for _ in range(3):
        assert same(first, await api.http.post(path(model_id), json=api.config(), headers=headers))
    assert await api.position() == before


async def test_every_worker_knows_the_answer(api: Api) -> None:
    model_id, headers = await api.create(), key()
    first = await api.update(model_id, headers, max_tokens=1)
    for _ in range(8):  # connections of their own land on either worker
        async with api.service.api() as other:
            assert same(first, await other.update(model_id, headers, max_tokens=1))


async def test_every_change_can_be_repeated(api: Api) -> None:
    model_id = await api.create(max_tokens=1)
    for change in (
        lambda headers: api.update(model_id, headers, max_tokens=2),
        lambda headers: api.patch(model_id, headers, max_tokens=3),
        lambda headers: api.http.post(
            path(model_id, "rollback"), json={"to_version": 1, "reason": "r"}, headers=headers
        ),
        lambda headers: api.http.delete(path(model_id), headers=headers),
        lambda headers: api.http.post(path(model_id, "restore"), headers=headers),
        lambda headers: api.http.put("/api/config/default", json={"model_id": model_id}, headers=headers),
        lambda headers: api.http.delete(path(model_id), params={"new_default": "first"}, headers=headers),
    ):
        headers = key()
        first = await change(headers)
        assert first.status_code == 200, first.text
        assert first.json()["status"] != "unchanged"
        before = await api.position()
        assert same(first, await change(headers))
        assert await api.position() == before


async def test_the_answer_stays_when_the_model_has_moved_on(api: Api) -> None:
    model_id, headers = await api.create(), key()
    first = await api.update(model_id, headers, max_tokens=1)
    await api.update(model_id, max_tokens=2)
    assert same(first, await api.update(model_id, headers, max_tokens=1))
    await api.delete(model_id)
    assert same(first, await api.update(model_id, headers, max_tokens=1))


async def test_an_answer_that_nothing_changed_is_kept_too(api: Api) -> None:
    model_id, headers = await api.create(max_tokens=1), key()
    first = await api.update(model_id, headers, max_tokens=1)
    assert first.json()["status"] == "unchanged"
    await api.update(model_id, max_tokens=2)
    before = await api.position()
    assert same(first, await api.update(model_id, headers, max_tokens=1))
    assert await api.position() == before
    assert (await api.read(model_id)).json()["max_tokens"] == 2


async def test_the_key_is_looked_up_before_the_condition(api: Api) -> None:
    model_id = await api.create()
    headers = {**key(), "If-Match": '"1"'}
    first = await api.update(model_id, headers, max_tokens=1)
    assert first.status_code == 200
    assert same(first, await api.update(model_id, headers, max_tokens=1))


async def test_a_refusal_leaves_the_key_free(api: Api) -> None:
    model_id, headers = api.new_id(), key()
    assert (await api.update(model_id, headers, max_tokens=1)).status_code == 404
    assert (await api.update(model_id, headers, max_tokens=0)).status_code == 400
    await api.create(model_id)
    assert (await api.update(model_id, headers, max_tokens=1)).json()["status"] == "updated"


async def test_a_key_serves_no_other_request(api: Api) -> None:
    model_id, headers = await api.create(), {**key(), "X-Change-Reason": "one"}
    await api.update(model_id, headers, max_tokens=1)
    before = await api.position()
    for refused in (
        await api.update(model_id, headers, max_tokens=2),
        await api.update(model_id, {**headers, "If-Match": "*"}, max_tokens=1),
        await api.update(model_id, {**headers, "X-Change-Reason": "two"}, max_tokens=1),
        await api.http.put(
            path(model_id), json=api.config(max_tokens=1), headers=headers, params={"reason": "x"}
        ),
    ):
        assert refused.status_code == 422
        assert refused.json()["type"] == "urn:model-ledger:problem:idempotency-mismatch"
    assert await api.position() == before


async def test_a_key_belongs_to_one_method_and_one_path(api: Api) -> None:
    one, other, headers = await api.create(), await api.create(), key()
    for answer in (
        await api.update(one, headers, max_tokens=1),
        await api.update(other, headers, max_tokens=1),
        await api.patch(one, headers, max_tokens=2),
        await api.http.delete(path(other), headers=headers),
    ):
        assert answer.status_code == 200
        assert answer.json()["status"] in {"updated", "deleted"}


async def test_a_key_may_stand_in_quotes_or_bare(api: Api) -> None:
    model_id, word = await api.create(), uuid.uuid4().hex
    first = await api.update(model_id, {"Idempotency-Key": word}, max_tokens=1)
    assert same(first, await api.update(model_id, {"Idempotency-Key": f'"{word}"'}, max_tokens=1))


@pytest.mark.parametrize("round_", range(3))
async def test_ten_at_once_with_one_key_are_one_event(api: Api, round_: int) -> None:
    model_id, headers = await api.create(), key()

    async def send() -> httpx2.Response:
        async with api.service.api() as own:  # a connection of its own: either worker may get it
            return await own.update(model_id, headers, max_tokens=round_ + 1)

    answers = await asyncio.gather(*(send() for _ in range(10)))
    done = [answer for answer in answers if answer.status_code == 200]
    assert done, [answer.text for answer in answers]
    assert all(same(done[0], answer) for answer in done)
    for answer in answers:
        if answer not in done:
            assert answer.status_code == 409, answer.text
            assert answer.json()["type"] == "urn:model-ledger:problem:idempotency-in-flight"
            assert answer.headers["retry-after"] == "1"
    assert len(await api.history(model_id)) == 2
    assert same(done[0], await api.update(model_id, headers, max_tokens=round_ + 1))


async def test_ten_restores_at_once_with_one_key_are_one_event(api: Api) -> None:
    model_id, headers = await api.create(), key()
    await api.delete(model_id)

    async def send() -> httpx2.Response:
        async with api.service.api() as own:
            return await own.http.post(path(model_id, "restore"), headers=headers)

    answers = await asyncio.gather(*(send() for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
    assert len(await api.history(model_id)) == 3


async def test_ten_creations_at_once_with_one_key_are_one_model(api: Api) -> None:
    model_id, headers = api.new_id(), key()
    sent = (api.http.post(path(model_id), json=api.config(), headers=headers) for _ in range(10))
    answers = await asyncio.gather(*sent)
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len(await api.history(model_id)) == 1
