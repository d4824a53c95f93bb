"""The audit log across everything: filters, pages, the export, and the live stream."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
import httpx2
import pytest
from service import Api, Databases, Service, path
from upstream import wait_until

from infrastructure.database import Database, alchemy
from infrastructure.views import PostgresViews
from web.feed import Feed

EVENTS = "/api/config/events"
STREAM = "/api/config/events/stream"

T = TypeVar("T")


async def events(api: Api, **query: Any) -> list[dict[str, Any]]:
    answer = await api.http.get(EVENTS, params=query)
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["data"]
    return entries


def positions(entries: list[dict[str, Any]]) -> list[int]:
    return [entry["position"] for entry in entries]


# The log.


async def test_the_log_holds_the_events_of_all_models_newest_first_without_a_gap(api: Api) -> None:
    one, other = await api.create(), await api.create()
    await api.update(one, max_tokens=1)
    newest = await events(api, limit=3)
    assert [(entry["model_id"], entry["type"]) for entry in newest] == [
        (one, "model.updated"),
        (other, "model.created"),
        (one, "model.created"),
    ]
    head = newest[0]["position"]
    assert positions(await events(api, limit=500)) == [*range(head, max(head - 500, 0), -1)]


async def test_an_entry_of_the_log_is_the_same_as_in_the_models_history(api: Api) -> None:
    model_id = await api.create()
    await api.update(model_id, max_tokens=1)
    assert await events(api, model=model_id) == await api.history(model_id)


async def test_a_change_of_the_default_is_an_event_too(api: Api) -> None:
    model_id = await api.create()
    default = "/api/config/default"
    await api.http.put(default, json={"model_id": model_id}, params={"reason": "cheaper"})
    [changed] = await events(api, limit=1)
    await api.http.put(default, json={"model_id": None})
    [unset] = await events(api, limit=1)
    await api.http.put(default, json={"model_id": "first"})
    assert (changed["type"], changed["model_id"], changed["reason"]) == (
        "default.changed",
        model_id,
        "cheaper",
    )
    assert changed["changes"] == [{"field": "model_id", "op": "changed", "old": "first", "new": model_id}]
    assert changed["config"] is None
    assert unset["model_id"] is None
    assert unset["changes"] == [{"field": "model_id", "op": "changed", "old": model_id, "new": None}]


async def test_each_filter_finds_what_it_names_and_nothing_else(api: Api) -> None:
    model_id = await api.create()
    await api.update(model_id, max_tokens=1)
    everything = await events(api, limit=500)
    filters: dict[str, tuple[str, Any]] = {
        "model": (model_id, lambda entry: entry["model_id"] == model_id),
        "actor": ("token:administrator", lambda entry: entry["actor"]["id"] == "token:administrator"),
        "type": ("model.updated", lambda entry: entry["type"] == "model.updated"),
        "source": ("system", lambda entry: entry["source"] == "system"),
    }
    for name, (value, fits) in filters.items():
        expected = [entry for entry in everything if fits(entry)]
        assert 0 < len(expected) < len(everything), f"{name} proves nothing"
        assert await events(api, limit=500, **{name: value}) == expected
    assert await events(api, source="cli") == await events(api, actor="nobody") == []
    assert await events(api, type="nothing.happened") == await events(api, model=api.new_id()) == []


async def test_the_instants_of_the_filters_belong_to_them(api: Api) -> None:
    model_id = await api.create()
    for number in (1, 2, 3):
        await api.update(model_id, max_tokens=number)
    newest, third, second, first = await api.history(model_id)
    assert await events(api, model=model_id, since=second["at"], until=third["at"]) == [third, second]
    assert await events(api, model=model_id, since=newest["at"]) == [newest]
    assert await events(api, model=model_id, until=first["at"]) == [first]
    assert await events(api, since="9000-01-01T00:00:00Z") == []
    assert await events(api, until="1999-12-31T23:59:59Z") == []
    everything = await events(api, limit=500)
    whole = {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z"}
    assert await events(api, limit=500, **whole) == everything


async def test_a_text_is_found_in_reason_actor_and_model_whatever_its_case(api: Api) -> None:
    model_id = await api.create()
    await api.patch(model_id, {"X-Change-Reason": "Zebra CROSSING 50%_off"}, max_tokens=1)
    [changed, _] = await api.history(model_id)
    for text in ("zebra", "crossing 50", "50%_OFF"):
        assert await events(api, text=text) == [changed]
    # What LIKE would take for a wildcard is a character like any other.
    assert await events(api, text="z%g") == await events(api, text="5__") == []
    assert len(await events(api, text=model_id.upper())) == 2
    assert changed in await events(api, text="ADMINISTRATOR", limit=500)


async def test_filters_hold_together(api: Api) -> None:
    model_id = await api.create()
    await api.patch(model_id, {"X-Change-Reason": "one"}, max_tokens=1)
    await api.patch(model_id, {"X-Change-Reason": "two"}, max_tokens=2)
    found = await events(api, model=model_id, type="model.updated", text="one", source="api")
    assert [entry["version"] for entry in found] == [2]


async def test_the_pages_of_the_log_hold_every_event_once_even_while_others_write(api: Api) -> None:
    model_id = await api.create()
    for number in range(6):
        await api.update(model_id, max_tokens=number + 1)
    expected = await api.history(model_id)
    answer = await api.http.get(EVENTS, params={"model": model_id, "limit": 3})
    found = answer.json()["data"]
    while link := answer.headers.get("link"):
        await api.update(model_id, description=api.new_id())
        target, relation = link.split("; ")
        assert relation == 'rel="next"'
        answer = await api.http.get(target.strip("<>"))
        found += answer.json()["data"]
    assert found == expected
    assert answer.json()["next_cursor"] is None


# The export.


async def test_the_export_for_spreadsheets_holds_all_that_matches(api: Api) -> None:
    model_id = await api.create()
    await api.patch(model_id, {"X-Change-Reason": '=1+1, so "there"'}, max_tokens=1)
    for query, accept in (({"format": "csv"}, "*/*"), ({}, "text/csv")):
        answer = await api.http.get(EVENTS, params={"model": model_id, **query}, headers={"Accept": accept})
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == 'attachment; filename="model-ledger-events.csv"'
        rows = [*csv.DictReader(io.StringIO(answer.text, newline=""))]
        assert [(row["version"], row["type"]) for row in rows] == [
            ("2", "model.updated"),
            ("1", "model.created"),
        ]
        assert rows[0]["reason"] == '\'=1+1, so "there"'
        assert rows[0]["changes"] == "max_tokens: 4096 -> 1"
    nothing = await api.http.get(EVENTS, params={"model": api.new_id(), "format": "csv"})
    assert nothing.text.startswith("position,at,model_id,version,type,")
    assert len(nothing.text.splitlines()) == 1


async def test_a_format_that_is_named_wins_over_what_is_accepted(api: Api) -> None:
    for named, accept, media_type in (
        ("csv", "application/jsonl", "text/csv; charset=utf-8"),
        ("jsonl", "text/csv", "application/jsonl"),
    ):
        query = {"format": named, "model": api.new_id()}
        answer = await api.http.get(EVENTS, params=query, headers={"Accept": accept})
        assert answer.headers["content-type"] == media_type


@pytest.mark.parametrize(
    ("query", "headers"), [({"format": "jsonl"}, {}), ({}, {"Accept": "application/jsonl"})]
)
async def test_the_export_holds_all_that_matches_one_entry_a_line(
    api: Api, query: dict[str, str], headers: dict[str, str]
) -> None:
    model_id = await api.create()
    for number in range(3):
        await api.update(model_id, max_tokens=number + 1)
    answer = await api.http.get(EVENTS, params={"model": model_id, "limit": 2, **query}, headers=headers)
    assert answer.headers["content-type"] == "application/jsonl"
    assert answer.text.endswith("\n")
    assert [json.loads(line) for line in answer.text.splitlines()] == await api.history(model_id)


async def test_the_export_goes_beyond_the_largest_page(fresh_service: Service) -> None:
    async with fresh_service.api() as api:
        await gathered(api.create() for _ in range(510))
        lines = (await api.http.get(EVENTS, params={"format": "jsonl"})).text.splitlines()
        assert [json.loads(line)["position"] for line in lines] == [*range(512, 0, -1)]
        # Who is that far behind gets it all, too.
        async with watching(api, after=0) as messages:
            assert [sent.id for sent in await take(messages, 512)] == [*range(1, 513)]


async def gathered(changes: Iterable[Awaitable[T]], at_once: int = 8) -> list[T]:
    """What came of them all, a few at a time."""
    limit = asyncio.Semaphore(at_once)

    async def one(change: Awaitable[T]) -> T:
        async with limit:
            return await change

    return await asyncio.gather(*(one(change) for change in changes))


async def test_an_export_of_nothing_is_empty(api: Api) -> None:
    answer = await api.http.get(EVENTS, params={"format": "jsonl", "actor": "nobody"})
    assert (answer.status_code, answer.text) == (200, "")


# The live stream.


@dataclass(frozen=True)
class Sent:
    """One server-sent event."""

    id: int | None
    event: str
    data: dict[str, Any]


async def parsed(lines: AsyncIterator[str]) -> AsyncIterator[Sent]:
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            number = int(fields["id"]) if "id" in fields else None
            yield Sent(number, fields["event"], json.loads(fields["data"]))
            fields = {}


@asynccontextmanager
async def watching(
    api: Api, headers: Mapping[str, str] | None = None, **query: Any
) -> AsyncIterator[AsyncIterator[Sent]]:
    async with api.http.stream("GET", STREAM, params=query, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        lines = answer.aiter_lines()
        # The stream stands as soon as its first line is there.
        assert await asyncio.wait_for(anext(lines), 10) == "retry: 2000"
        yield parsed(lines)


async def take(messages: AsyncIterator[Sent], count: int) -> list[Sent]:
    async with asyncio.timeout(20):
        return [await anext(messages) for _ in range(count)]


async def take_until(messages: AsyncIterator[Sent], last: Callable[[Sent], bool]) -> list[Sent]:
    async with asyncio.timeout(20):
        taken = [await anext(messages)]
        while not last(taken[-1]):
            taken.append(await anext(messages))
        return taken


async def test_who_watches_sees_a_change_as_it_is_recorded(api: Api) -> None:
    async with watching(api) as messages:
        model_id = await api.create()
        # A worker may hear only now of what was recorded just before.
        sent = await take_until(messages, lambda sent: sent.data["model_id"] == model_id)
    [created] = await api.history(model_id)
    assert (sent[-1].id, sent[-1].event, sent[-1].data) == (created["position"], "model.created", created)


@pytest.mark.parametrize("resumed_by", ["header", "query"])
async def test_a_stream_resumes_after_the_position_that_is_named(api: Api, resumed_by: str) -> None:
    model_id = await api.create()
    seen = await api.position()
    for number in (1, 2, 3):
        await api.update(model_id, max_tokens=number)
    by_header, by_query = {"Last-Event-ID": str(seen)}, {"after": seen}
    opened = watching(api, by_header) if resumed_by == "header" else watching(api, **by_query)
    async with opened as messages:
        missed = await take(messages, 3)
        await api.delete(model_id)
        missed += await take(messages, 1)
    assert [sent.data for sent in missed] == (await api.history(model_id))[3::-1]
    assert [sent.id for sent in missed] == [*range(seen + 1, seen + 5)]


async def test_the_last_event_of_a_reconnection_wins_over_the_first_question(api: Api) -> None:
    model_id = await api.create()
    await api.update(model_id, max_tokens=1)
    seen = await api.position() - 1
    async with watching(api, {"Last-Event-ID": str(seen)}, after=0) as messages:
        assert [sent.id for sent in await take(messages, 1)] == [seen + 1]


async def test_from_the_beginning_a_stream_tells_the_whole_ledger(api: Api) -> None:
    await api.create()
    head = await api.position()
    async with watching(api, after=0) as messages:
        assert [sent.id for sent in await take(messages, head)] == [*range(1, head + 1)]


async def test_every_watcher_sees_every_event_once_and_in_order_while_many_write(api: Api) -> None:
    models = [await api.create() for _ in range(4)]
    start = await api.position()
    async with asyncio.TaskGroup() as tasks:
        watchers = [tasks.create_task(watch(api, 60, after=start)) for _ in range(6)]
        await wait_until(lambda: api.made.count("watching") == 6, within=10)
        changes = (api.patch(models[number % 4], description=f"change {number}") for number in range(60))
        assert {answer.status_code for answer in await gathered(changes)} == {200}
    for watcher in watchers:
        assert watcher.result() == [*range(start + 1, start + 61)]


async def watch(api: Api, count: int, after: int) -> list[int | None]:
    async with watching(api, after=after) as messages:
        api.made.append("watching")
        return [sent.id for sent in await take(messages, count)]


async def test_many_can_watch_at_once(api: Api) -> None:
    count, head = 100, await api.position()
    limits = httpx2.Limits(max_connections=count + 10)
    async with api.service.api(limits=limits) as crowd, asyncio.TaskGroup() as tasks:
        watchers = [tasks.create_task(watch(crowd, 1, after=head)) for _ in range(count)]
        await wait_until(lambda: len(crowd.made) == count, within=20)
        model_id = await api.create()
    [created] = await api.history(model_id)
    assert {tuple(watcher.result()) for watcher in watchers} == {(created["position"],)}


async def test_a_position_ahead_of_the_ledger_is_reset(api: Api) -> None:
    head = await api.position()
    async with watching(api, {"Last-Event-ID": str(head + 1_000)}) as messages:
        [reset] = await take(messages, 1)
        model_id = await api.create()
        sent = await take_until(messages, lambda sent: sent.data["model_id"] == model_id)
    # The reset has an id, which replaces the one that the client holds: who reconnects misses nothing.
    assert (reset.event, reset.data) == ("reset", {})
    assert [message.id for message in sent] == [*range((reset.id or 0) + 1, head + 2)]


async def test_who_watches_is_told_when_another_history_takes_the_ledgers_place(
    fresh_service: Service, databases: Databases, database: str
) -> None:
    async with fresh_service.api() as api, watching(api) as messages:
        await api.create()
        [seen] = await take(messages, 1)
        # What a restored backup looks like: the same table under another epoch.
        owner = await asyncpg.connect(databases.owner_url(database))
        await owner.execute("UPDATE ledger_head SET epoch = gen_random_uuid()")
        await owner.close()
        [reset] = await take(messages, 1)
        model_id = await api.create()
        [after] = await take(messages, 1)
    assert (reset.event, reset.id) == ("reset", seen.id)
    assert (after.data["model_id"], after.id) == (model_id, (seen.id or 0) + 1)


async def test_silence_is_filled_with_heartbeats(databases: Databases, database: str) -> None:
    never = asyncio.Event()

    async def moved(place: tuple[int, int]) -> tuple[int, int]:
        await never.wait()
        return place

    engine = Database(databases.app_url(database)).engine()
    try:
        feed = Feed(PostgresViews(alchemy(engine)), moved, heartbeat=0.01)
        stream = feed.stream(None)
        async with asyncio.timeout(10):
            assert await anext(stream) == b"retry: 2000\n\n"
            assert [await anext(stream) for _ in range(2)] == [b": ping\n\n"] * 2
            feed.close()
            assert [left async for left in stream] == []
    finally:
        await engine.dispose()


async def test_when_the_service_stops_its_streams_end_at_once(fresh_service: Service) -> None:
    async with fresh_service.api() as api, watching(api) as messages:
        stopping = asyncio.create_task(asyncio.to_thread(fresh_service.stop))
        async with asyncio.timeout(5):
            assert [sent async for sent in messages] == []
        await stopping


async def test_a_refused_change_sends_nothing_to_who_watches(api: Api) -> None:
    model_id = await api.create()
    async with watching(api, after=await api.position()) as messages:
        assert (await api.update(model_id, {"If-Match": '"9"'})).status_code == 412
        assert (await api.http.post(path(model_id), json=api.config())).status_code == 400
        assert (await api.update(model_id)).json()["status"] == "unchanged"
        await api.delete(model_id)
        [sent] = await take(messages, 1)
    assert sent.event == "model.deleted"
