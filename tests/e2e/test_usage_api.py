"""`GET /api/config/models/{id}/usage` on a running service, over records that its table holds."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
from records import call
from service import TOKEN, Api, Databases, Service, path, running
from upstream import Reply, ScriptedUpstream, Status

from application.ports import CallRecord, Tokens
from domain.values import ModelId
from infrastructure.database import Database
from infrastructure.usage import PostgresUsage

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = {"since": "2026-03-01T00:00:00Z", "until": "2026-03-03T00:00:00Z"}

Put = Callable[..., Coroutine[None, None, None]]


@pytest.fixture
def put(databases: Databases, api: Api) -> Put:
    """Writes records as a worker does."""

    async def put(*records: CallRecord) -> None:
        async with Database(databases.app_url(api.service.database)).pool(1) as pool:
            await PostgresUsage(pool).write(1, records)

    return put


async def usage(api: Api, model_id: str, **query: str) -> httpx2.Response:
    return await api.http.get(path(model_id, "usage"), params=query)


async def test_versions_are_told_side_by_side_the_newest_first(api: Api, put: Put) -> None:
    model_id = ModelId(await api.create())
    await put(
        *(call(model_id=model_id, version=1, started_at=NOON, duration=n / 10) for n in range(1, 102)),
        call(model_id=model_id, version=2, started_at=NOON, duration=3.0, first_byte=0.25, attempts=2),
        call(model_id=model_id, version=2, started_at=NOON, status=429, error="http_429", tokens=None),
        call(model_id=model_id, version=2, started_at=NOON, status=400, error="http_400", tokens=None),
        call(model_id=model_id, version=2, started_at=NOON, status=499, error="left", tokens=None),
    )
    answer = await usage(api, model_id, **WINDOW)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    instant = "2026-03-01T12:00:00Z"
    assert answer.json() == {
        "model_id": model_id,
        "by": "version",
        **WINDOW,
        "data": [
            {
                "version": 2,
                "requests": 4,
                "errors": 1,
                "error_share": 0.25,
                "retried": 1,
                "duration": {"p50": 3.0, "p95": 3.0},
                "first_byte": {"p50": 0.25, "p95": 0.25},
                "input_tokens": 10,
                "output_tokens": 20,
                "first_call_at": instant,
                "last_call_at": instant,
            },
            {
                "version": 1,
                "requests": 101,
                "errors": 0,
                "error_share": 0.0,
                "retried": 0,
                "duration": {"p50": 5.1, "p95": 9.6},
                "first_byte": {"p50": 0.5, "p95": 0.5},
                "input_tokens": 1010,
                "output_tokens": 2020,
                "first_call_at": instant,
                "last_call_at": instant,
            },
        ],
    }


@pytest.mark.parametrize(
    ("by", "starts"),
    [
        ("hour", ["2026-03-02T12:00:00Z", "2026-03-01T13:00:00Z", "2026-03-01T12:00:00Z"]),
        ("day", ["2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z"]),
    ],
)
async def test_a_chart_over_time_has_the_hours_or_days_and_in_them_the_versions(
    api: Api, put: Put, by: str, starts: list[str]
) -> None:
    model_id = ModelId(await api.create())
    times = [(NOON, 1), (NOON + timedelta(hours=1), 2), (NOON + timedelta(hours=24), 2)]
    await put(*(call(model_id=model_id, started_at=time, version=version) for time, version in times))
    rows = (await usage(api, model_id, by=by, **WINDOW)).json()["data"]
    assert [(row["start"], row["version"], row["requests"]) for row in rows] == [
        (start, version, 1) for start, version in zip(starts, (2, 2, 1), strict=True)
    ]


async def test_without_a_window_the_last_seven_days_are_told(api: Api, put: Put) -> None:
    model_id, now = ModelId(await api.create()), datetime.now(UTC)
    ages = [timedelta(days=6, hours=23), timedelta(days=7, hours=1)]
    await put(*(call(model_id=model_id, started_at=now - age) for age in ages))
    answer = (await usage(api, model_id)).json()
    assert [row["requests"] for row in answer["data"]] == [1]
    since, until = (datetime.fromisoformat(answer[name]) for name in ("since", "until"))
    assert until - since == timedelta(days=7)
    assert abs(until - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_deleted_models_usage_can_still_be_read(api: Api, put: Put) -> None:
    model_id = ModelId(await api.create())
    await put(call(model_id=model_id, started_at=NOON))
    assert (await api.delete(model_id)).status_code == 200
    assert [row["requests"] for row in (await usage(api, model_id, **WINDOW)).json()["data"]] == [1]


async def test_a_model_that_nobody_called_has_no_rows_and_an_unknown_one_is_not_found(api: Api) -> None:
    model_id = await api.create()
    assert (await usage(api, model_id)).json()["data"] == []
    answer = await usage(api, api.new_id())
    assert answer.status_code == 404
    assert answer.json()["type"].endswith(":model-not-found")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"by": "week"}, "/by"),
        ({"since": "yesterday"}, "/since"),
        ({"until": "2026-03-01"}, "/until"),
        ({"since": "2026-03-02T00:00:00Z", "until": "2026-03-01T00:00:00Z"}, "/since"),
        ({"since": "2026-03-02T00:00:00Z", "until": "2026-03-02T00:00:00Z"}, "/since"),
        ({"since": "9999-01-01T00:00:00Z"}, "/since"),
        ({"until": "0001-01-01T00:00:00Z", "since": "0001-01-01T00:00:00Z"}, "/since"),
        ({"window": "1h"}, "/window"),
    ],
)
async def test_a_question_that_is_none_is_refused_by_its_parameter(
    api: Api, query: dict[str, str], pointer: str
) -> None:
    answer = await usage(api, await api.create(), **query)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_the_earliest_until_there_is_can_be_asked_for(api: Api) -> None:
    answer = await usage(api, await api.create(), until="0001-01-01T00:00:00Z")
    assert answer.json()["data"] == []


async def test_more_rows_than_an_answer_has_are_refused_with_what_to_do(api: Api, put: Put) -> None:
    model_id = ModelId(await api.create())
    await put(*(call(model_id=model_id, started_at=NOON, version=n) for n in range(1, 1_002)))
    answer = await usage(api, model_id, **WINDOW)
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/since", "too_many")
    assert "shorter" in error["detail"]


async def test_usage_is_not_for_everyone(api: Api) -> None:
    model_id = await api.create()
    answer = await api.http.get(path(model_id, "usage"), headers={"Authorization": ""})
    assert answer.status_code == 401


# From the call to the answer.


async def usage_of(api: Api, model_id: str, requests: int) -> list[dict[str, Any]]:
    """The rows as soon as they tell of so many requests."""
    async with asyncio.timeout(5):
        while True:
            rows: list[dict[str, Any]] = (await usage(api, model_id)).json()["data"]
            if sum(row["requests"] for row in rows) >= requests:
                return rows


async def test_every_call_is_counted_with_the_version_that_served_it(
    fresh_service: Service, upstream: ScriptedUpstream
) -> None:
    async with fresh_service.api() as api:
        first = await api.chat("first")
        position = (await api.patch("first", max_tokens=17, max_retries=1)).json()["position"]
        async with asyncio.timeout(5):
            while (await api.http.get("/readyz")).json()["position"] < position:
                pass
        upstream.script(Status(429, headers={"retry-after": "0"}), Reply("hello"))
        second = await api.chat("first")
        upstream.script(Status(503), Status(503))
        assert (await api.chat("first")).status_code == 503
        new, old = await usage_of(api, "first", requests=3)
    told = ("version", "requests", "errors", "retried")
    assert [new[name] for name in told] == [2, 2, 1, 2]
    assert [old[name] for name in told] == [1, 1, 0, 0]
    for row, answer in ((new, second), (old, first)):
        tokens = answer.json()["usage"]
        assert row["input_tokens"] == tokens["prompt_tokens"] > 0
        assert row["output_tokens"] == tokens["completion_tokens"] > 0
        assert 0 < row["first_byte"]["p50"] <= row["duration"]["p50"] < 5


async def test_a_stop_loses_no_record_and_no_record_holds_what_was_said(
    fresh_service: Service, owner: asyncpg.Connection, upstream: ScriptedUpstream
) -> None:
    secret = "unheard-of"
    async with fresh_service.api() as api:
        for stream in (False, True):
            upstream.script(Reply(secret))
            answer = await api.chat("first", messages=[{"role": "user", "content": secret}], stream=stream)
            assert secret in answer.text
    assert fresh_service.stop() == 0
    rows = await owner.fetch("SELECT usage::text, stream, status FROM usage ORDER BY started_at")
    assert [(row["stream"], row["status"]) for row in rows] == [(False, 200), (True, 200)]
    assert not any(word in row["usage"] for row in rows for word in (secret, TOKEN))


async def test_where_nothing_is_to_be_kept_nothing_is(
    databases: Databases, database: str, owner: asyncpg.Connection, upstream: ScriptedUpstream
) -> None:
    async with Database(databases.app_url(database)).pool(1) as pool:
        await PostgresUsage(pool).write(1, [call(tokens=Tokens(1, 2))])
    with running(databases, database, upstream, workers=1, MODEL_LEDGER_USAGE_DAYS="0") as service:
        while await owner.fetchval("SELECT count(*) FROM usage"):
            assert service.process.poll() is None
        async with service.api() as api:
            assert (await api.chat("first")).status_code == 200
        assert service.stop() == 0
    assert await owner.fetchval("SELECT count(*) FROM usage") == 0
