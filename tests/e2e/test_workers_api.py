"""Where the workers are: on which of them a change is live."""

from typing import Any

import asyncpg
from browser import eventually
from service import Api, Databases, running
from upstream import ScriptedUpstream


async def told(api: Api) -> dict[str, Any]:
    answer = await api.http.get("/api/config/workers")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    found: dict[str, Any] = answer.json()
    return found


async def test_every_worker_says_where_it_is(api: Api) -> None:
    found = await told(api)
    assert found["total"] == len(found["workers"]) == 2
    assert len({worker["id"] for worker in found["workers"]}) == 2
    for worker in found["workers"]:
        assert (worker["status"], worker["follower"], worker["degraded"]) == ("ready", "listening", [])
        assert worker["started_at"] <= worker["seen_at"]


async def test_a_change_is_live_everywhere_soon(api: Api) -> None:
    for _ in range(3):
        model_id = await api.create()
        position = (await api.read(model_id)).json()["position"]

        async def is_live(position: int = position) -> bool:
            found = await told(api)
            assert found["position"] >= position
            return bool(found["live"] == found["total"] == 2)

        await eventually(is_live)


async def test_workers_of_other_processes_are_counted_until_they_leave(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    with running(databases, database, upstream, workers=1) as service:
        async with service.api() as api:

            async def has(number: int) -> bool:
                return bool((await told(api))["total"] == number)

            await eventually(lambda: has(1))
            with running(databases, database, upstream, workers=1) as other:
                await eventually(lambda: has(2))
                other.stop()
            assert await has(1)


async def test_who_was_silent_for_long_is_not_counted(api: Api, databases: Databases) -> None:
    connection = await asyncpg.connect(databases.owner_url(api.service.database))
    for age in ("11 seconds", "1 hour"):
        await connection.execute(
            "INSERT INTO worker "
            "SELECT gen_random_uuid(), 0, 'ready', 'listening', '{}', now(), now() - $1::text::interval",
            age,
        )
    assert (await told(api))["total"] == 2

    async def is_forgotten() -> bool:
        old = "SELECT count(*) FROM worker WHERE seen_at < now() - interval '1 h'"
        return bool(await connection.fetchval(old) == 0)

    await api.create()
    await eventually(is_forgotten)
    await connection.close()
