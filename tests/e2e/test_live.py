"""The running service: a committed change is in use everywhere, whatever runs, fails or stops beside it."""

import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE
from threading import Event
from typing import Any

import asyncpg
import httpx2
import msgspec
import pytest
from chaos_proxy import ChaosProxy
from ledgers import context, empty_database, recorded
from service import COMMAND, Api, Databases, Service, clean_environment, free_port, path, running, serving
from upstream import ScriptedUpstream, Stream, wait_until
from waiting import eventually, ready, served_version, serves
from workers import command_of, connections_to, each_worker, family, is_running, workers

from application.ports import Append, Receipt
from domain.catalog import Change
from domain.configuration import ModelConfig
from domain.model import ModelUpdated
from domain.values import ModelId, model_stream
from infrastructure.event_store import APPEND, _arguments

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for workers in /proc")

ROOT = Path(__file__).parents[2]


# In every worker.


async def test_who_made_a_change_has_the_next_call_answered_by_it(shared_service: Service) -> None:
    async with each_worker(shared_service) as clients:
        for api in clients.values():
            model_id = await api.create()
            assert await served_version(api, model_id) == 1
            for version in range(2, 30):
                await api.update(model_id, max_tokens=version)
                assert await served_version(api, model_id) == version
            await api.delete(model_id)
            assert await served_version(api, model_id) is None


async def test_a_committed_change_is_in_use_in_every_worker(shared_service: Service) -> None:
    async with each_worker(shared_service) as clients:
        assert len(clients) == 2
        first, *_ = clients.values()
        model_id = await first.create()
        times = []
        for version in range(2, 22):
            receipt = (await first.update(model_id, max_tokens=version)).json()
            assert receipt["version"] == version
            for api in clients.values():
                times.append(await eventually(lambda api=api, wanted=version: serves(api, model_id, wanted)))
                assert (await ready(api))["position"] >= receipt["position"]
        assert statistics.median(times) < 0.5, "nobody waits for a poll"


async def test_what_a_worker_answers_is_what_was_committed_before_it(shared_service: Service) -> None:
    """A client that reads after its own write never sees what was before, on any worker."""
    async with each_worker(shared_service) as clients:
        apis = list(clients.values())
        model_id = await apis[0].create()
        for n in range(10):
            written = (await apis[n % 2].update(model_id, max_tokens=n + 10)).json()
            for api in apis:
                read = (await api.read(model_id)).json()
                assert (read["version"], read["max_tokens"]) == (written["version"], n + 10)


async def test_a_deleted_model_is_gone_in_every_worker_and_so_is_the_last_one(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    """On a service of its own, which then stops while it is watched."""
    with running(databases, database, upstream, workers=2) as service:
        async with each_worker(service) as clients:
            first, other = clients.values()
            await first.create("second")
            for api in clients.values():
                await eventually(lambda api=api: serves(api, "second", 1))
            assert (await other.delete("second")).status_code == 200
            for api in clients.values():
                await eventually(lambda api=api: serves(api, "second", None))
            assert (await first.delete("first")).status_code == 400, "it is the default"
            await first.http.put("/api/config/default", json={"model_id": None})
            assert (await first.delete("first")).status_code == 200
            for api in clients.values():
                await eventually(lambda api=api: serves(api, "first", None))
                assert (await api.http.get("/v1/models")).json()["data"] == []
                assert (await api.http.get("/v1/models/first")).status_code == 404
            assert (await first.create("first")) == "first"
            for api in clients.values():
                await eventually(lambda api=api: serves(api, "first", 3))
            await stops_while_somebody_watches(service)


async def stops_while_somebody_watches(service: Service) -> None:
    """Neither a stream of events nor the idle connections of others hold up a stop."""
    async with (
        service.api() as watcher,
        watcher.http.stream("GET", "/api/config/events/stream?after=0") as events,
    ):
        lines = events.aiter_lines()
        assert await anext(lines) == "retry: 2000"
        began = time.monotonic()
        assert await asyncio.to_thread(service.stop) == 0
        assert time.monotonic() - began < 5
        rest = [line async for line in lines]
        assert any(line.startswith("id: 2") for line in rest), "ended in order, not cut"


async def test_a_disabled_model_is_gone_for_callers_alone(shared_service: Service) -> None:
    async with each_worker(shared_service) as clients:
        first, *_ = clients.values()
        model_id = await first.create()
        await first.patch(model_id, enabled=False)
        for api in clients.values():
            await eventually(lambda api=api: serves(api, model_id, None))
            assert (await api.http.get(f"/v1/models/{model_id}")).status_code == 404
            assert (await api.read(model_id)).json()["enabled"] is False
        await first.patch(model_id, enabled=True)
        for api in clients.values():
            await eventually(lambda api=api: serves(api, model_id, 3))


async def test_a_configuration_that_no_client_fits_leaves_the_old_one_in_use(
    shared_service: Service, shared_owner: asyncpg.Connection
) -> None:
    async with each_worker(shared_service) as clients:
        first, *_ = clients.values()
        model_id = await first.create()
        unbound = msgspec.convert(first.config(azure_endpoint="https://other.example.com"), ModelConfig)
        await append(shared_owner, model_id, 2, msgspec.to_builtins(unbound))
        for api in clients.values():
            await eventually(lambda api=api: is_degraded(api, "no client fits"))
            assert await served_version(api, model_id) == 1
        await first.update(model_id, max_tokens=3)
        for api in clients.values():
            await eventually(lambda api=api: serves(api, model_id, 3))
            await eventually(lambda api=api: is_ready(api))


async def test_a_model_of_a_newer_release_stays_in_use_as_it_was(
    shared_service: Service, shared_owner: asyncpg.Connection
) -> None:
    async with each_worker(shared_service) as clients:
        first, *_ = clients.values()
        model_id, other_id = await first.create(), await first.create()
        await append(shared_owner, model_id, 2, {"shape": "another"}, kind="model.reshaped")
        await first.update(other_id, max_tokens=5)
        for api in clients.values():
            await eventually(lambda api=api: is_degraded(api, "newer release"))
            await eventually(lambda api=api: serves(api, other_id, 2))
            assert await served_version(api, model_id) == 1
            refusal = await api.update(model_id, max_tokens=5)
            assert (refusal.status_code, refusal.json()["type"].rpartition(":")[2]) == (503, "model-frozen")
        known = msgspec.convert(first.config(), ModelConfig)
        await append(shared_owner, model_id, 3, msgspec.to_builtins(known))
        for api in clients.values():
            await eventually(lambda api=api: serves(api, model_id, 3))
            await eventually(lambda api=api: is_ready(api))


async def is_degraded(api: Api, why: str) -> bool:
    health = await ready(api)
    return health["status"] == "degraded" and any(why in told for told in health["degraded"])


async def is_ready(api: Api) -> bool:
    return (await ready(api))["status"] == "ready"


async def append(
    owner: asyncpg.Connection,
    model_id: str,
    version: int,
    config: Mapping[str, Any],
    kind: str = "model.updated",
) -> None:
    """An event that today's rules would not let through."""
    stream = model_stream(ModelId(model_id))
    valid = ModelConfig(name="x", max_tokens=1, supports_streaming=True, supports_temperature=True)
    receipt = Receipt("updated", model_id, version, 0, "")
    change = Change(stream, ModelUpdated(valid))
    arguments = _arguments(Append([change], {stream: version - 1}, context(), receipt, None))
    text = json.dumps(config)
    arguments[3], arguments[5], arguments[14] = [kind], [f'{{"config":{text}}}'], [text]
    row = await owner.fetchrow(APPEND, *arguments)
    assert row is not None
    assert row["outcome"] == "appended"


@pytest.fixture
async def shared_owner(databases: Databases, shared_service: Service) -> AsyncIterator[asyncpg.Connection]:
    """The owner of the shared service's ledger."""
    connection = await asyncpg.connect(databases.owner_url(shared_service.database))
    yield connection
    await connection.close()


# Streams that run meanwhile.


async def test_fifty_streams_outlive_twenty_changes_of_their_model(
    shared_service: Service, upstream: ScriptedUpstream
) -> None:
    count, go_on = 50, Event()
    port = int(upstream.origin.rpartition(":")[2])
    async with each_worker(shared_service) as clients:
        apis = list(clients.values())
        model_id = await apis[0].create(azure_endpoint=upstream.origin, credential=None)
        for api in apis:
            await eventually(lambda api=api: serves(api, model_id, 1))
        upstream.script(*[Stream([f"word {n} " for n in range(5)], hold=go_on)] * count)
        async with shared_service.api(limits=httpx2.Limits(max_connections=None)) as many:
            streams = [asyncio.create_task(read_stream(many, model_id)) for _ in range(count)]
            await wait_until(lambda: upstream.live == count, within=15)
            for n in range(20):
                # Another address each time, so that every change needs a client of its own.
                changed = f"{upstream.origin}/{'x' * (n % 2)}".rstrip("/")
                answer = await apis[n % 2].update(
                    model_id, azure_endpoint=changed, credential=None, api_version=f"2025-01-{n + 1:02}"
                )
                assert answer.json()["version"] == n + 2
            assert upstream.live == count
            go_on.set()
            for text in await asyncio.gather(*streams):
                assert text.endswith("data: [DONE]\n\n")
                assert all(f"word {n} " in text for n in range(5))
        assert (upstream.aborted, upstream.live) == (0, 0)
        await apis[0].delete(model_id)
        for api in apis:
            await eventually(lambda api=api: serves(api, model_id, None))
        await wait_until(lambda: connections_to(shared_service, port) == 0, within=10)


async def read_stream(api: Api, model_id: str) -> str:
    body = {"model": model_id, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    async with api.http.stream("POST", "/v1/chat/completions", json=body, timeout=60) as answer:
        assert answer.status_code == 200
        return "".join([piece async for piece in answer.aiter_text()])


# A database that fails.


@pytest.fixture
def proxy(databases: Databases, database: str) -> Iterator[ChaosProxy]:
    with ChaosProxy(databases.app_url(database)) as proxy:
        yield proxy


async def test_whatever_the_database_does_changes_are_told_the_truth_and_calls_go_on(
    databases: Databases,
    database: str,
    owner: asyncpg.Connection,
    proxy: ChaosProxy,
    upstream: ScriptedUpstream,
    dice: random.Random,
) -> None:
    with running(databases, database, upstream, workers=1, DATABASE_URL=proxy.url) as service:
        async with service.api() as api:
            await api.create("m")
            await is_told_that_the_ledger_is_busy(api, owner)
            await is_told_that_nothing_is_written(api, owner, database)
            await changes_once_whichever_byte_a_connection_breaks_at(api, owner, proxy, dice)
            await serves_while_the_database_is_silent(api, proxy)
            proxy.black_hole()
        began = time.monotonic()
        service.stop()
        assert time.monotonic() - began < 10, "a silent database does not hold up a stop"


async def is_told_that_the_ledger_is_busy(api: Api, owner: asyncpg.Connection) -> None:
    before = await api.position()
    async with owner.transaction():
        await owner.execute("SELECT FROM ledger_head FOR UPDATE")
        answers = await asyncio.gather(api.update("m", max_tokens=2), api.chat("m"), api.read("m"))
    refusal, *others = answers
    assert_unavailable(refusal, "ledger_busy")
    assert [answer.status_code for answer in others] == [200, 200], "nothing else waits for the lock"
    assert await api.position() == before


async def is_told_that_nothing_is_written(api: Api, owner: asyncpg.Connection, database: str) -> None:
    await owner.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await disconnect(owner)
    await eventually(lambda: is_refused(api, "database_unavailable"))
    assert (await api.chat("m")).status_code == 200
    assert (await api.read("m")).status_code == 200
    await owner.execute("SET default_transaction_read_only = off")
    await owner.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    assert (await api.update("m", max_tokens=3)).status_code == 200
    await disconnect(owner)


async def is_refused(api: Api, code: str) -> bool:
    answer = await api.update("m", max_tokens=random.randrange(1_000_000))
    if answer.status_code == 200:
        return False
    assert_unavailable(answer, code)
    return True


async def disconnect(owner: asyncpg.Connection) -> None:
    """End every connection of the service."""
    await owner.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND usename = 'model_ledger_app'"
    )


async def changes_once_whichever_byte_a_connection_breaks_at(
    api: Api, owner: asyncpg.Connection, proxy: ChaosProxy, dice: random.Random
) -> None:
    seen: set[str] = set()
    wanted = {"database_unavailable", "outcome_unknown"}
    for n in range(200):
        headers = {"Idempotency-Key": f"change-{n}"}
        proxy.cut_after(dice.randrange(1, 6_000))
        answer = await api.update("m", headers, max_tokens=1_000 + n)
        while answer.status_code != 200:
            assert_unavailable(answer, answer.json()["code"])
            seen.add(answer.json()["code"])
            proxy.heal()
            answer = await api.update("m", headers, max_tokens=1_000 + n)
        changes = await owner.fetch(
            "SELECT position FROM event WHERE body -> 'config' ->> 'max_tokens' = $1", str(1_000 + n)
        )
        assert [row["position"] for row in changes] == [answer.json()["position"]]
        if n >= 15 and seen == wanted:
            break
    assert seen == wanted


async def serves_while_the_database_is_silent(api: Api, proxy: ChaosProxy) -> None:
    await eventually(lambda: is_ready(api))
    proxy.black_hole()
    began = time.monotonic()
    refusals = await asyncio.gather(
        api.update("m", max_tokens=9), api.read("m"), api.history("m"), return_exceptions=True
    )
    assert time.monotonic() - began < 15
    assert isinstance(refusals[0], httpx2.Response)
    assert isinstance(refusals[1], httpx2.Response)
    assert [answer.status_code for answer in refusals[:2]] == [503, 503]
    assert (await api.chat("m")).status_code == 200
    assert await is_degraded(api, "the database does not answer")
    assert (await api.http.get("/livez")).status_code == 200
    proxy.heal()
    await eventually(lambda: is_ready(api), within=10)
    assert (await api.update("m", max_tokens=10)).status_code == 200


def assert_unavailable(answer: httpx2.Response, code: str) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code


# Starting and stopping.


async def test_four_starts_at_once_on_an_empty_database_are_one(databases: Databases) -> None:
    async with empty_database(databases) as name:
        variables = clean_environment(DATABASE_URL=databases.owner_url(name))  # the privileged one alone
        with ExitStack() as stack:
            contexts = [serving(variables) for _ in range(4)]
            services = await asyncio.gather(
                *(asyncio.to_thread(stack.enter_context, context) for context in contexts)
            )
            words = "shown only now: "
            told = [
                service.announcement.rpartition(words)[2]
                for service in services
                if words in service.announcement
            ]
            assert len(told) == 1, "one administrator's token, told by one"
            connection = await asyncpg.connect(databases.owner_url(name))
            assert [(row["stream"], row["type"]) for row in await recorded(connection)] == [
                ("default", "default.changed"),
                ("model/demo", "model.created"),
            ]
            for table in ("ddl_version", "ledger_head", "access_token", "setting"):
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 1, table
            logins = await connection.fetch(
                "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'model-ledger' "
                "AND datname = $1",
                name,
            )
            assert len(logins) == 1
            for service in services:
                service.token = told[0]
                async with service.api() as api:
                    assert (await api.chat("demo")).status_code == 200
                    assert await is_ready(api)
                    assert (await api.http.get("/api/config/default")).json()["model_id"] == "demo"
            await connection.close()
            await one_demo_for_all(services)


async def one_demo_for_all(services: list[Service]) -> None:
    """Only one of them serves the demonstration; the others see that, and try nothing again and again."""
    await wait_until(lambda: sum(len(demos(service)) for service in services) == 1, within=10)
    seen: set[int] = set()
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        seen |= {pid for service in services for pid in demos(service)}
        await asyncio.sleep(0.02)
    assert len(seen) == 1


def demos(service: Service) -> set[int]:
    return {pid for pid in family(service.process.pid) if "demo-upstream" in command_of(pid)}


async def test_a_database_that_hinders_a_start_is_told_in_one_line(
    databases: Databases, database: str, owner: asyncpg.Connection
) -> None:
    variables = clean_environment(DATABASE_URL=databases.app_url(database))
    async with owner.transaction():
        await owner.execute("SELECT FROM ledger_head FOR UPDATE")
        busy = await refused_start(MODEL_LEDGER_OWNER_DATABASE_URL=databases.owner_url(database), **variables)
    assert busy == "model-ledger: the ledger is busy; nothing was recorded\n"
    assert await owner.fetchval("SELECT count(*) FROM access_token") == 0, "no token that nobody has seen"
    await owner.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    told = await refused_start(MODEL_LEDGER_OWNER_DATABASE_URL=databases.owner_url(database), **variables)
    assert told == "model-ledger: the database takes no writes, which a start needs\n"


async def refused_start(**variables: str) -> str:
    """What a start that comes to nothing says."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "serve", "--port", str(free_port()), env=variables, stdout=PIPE, stderr=PIPE
    )
    said, complained = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, said) == (1, b"")
    return complained.decode()


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory that the embedded database's user can reach."""
    with tempfile.TemporaryDirectory(prefix="model-ledger-") as name:
        root = Path(name)
        root.chmod(0o755)
        yield root


def processes_of(data: Path) -> set[int]:
    """Keeper and server of an embedded database."""
    everyone = [int(directory.name) for directory in Path("/proc").glob("[0-9]*")]
    return {pid for pid in everyone if str(data) in command_of(pid) and "postgres" in command_of(pid)}


async def test_four_workers_outlive_their_database_and_each_other_and_end_with_their_supervisor(
    data: Path,
) -> None:
    with serving(clean_environment(), "--data-dir", str(data), "--workers", "4") as service:
        service.token = service.announcement.rpartition(" ")[2]
        async with each_worker(service) as clients:
            assert len(clients) == 4
            for api in clients.values():
                assert (await ready(api))["position"] == 2, "one default and one model"
                assert (await api.chat("demo")).status_code == 200
            os.kill(postmaster(data), signal.SIGKILL)
            for n, api in enumerate(clients.values()):
                assert (await api.chat("demo")).status_code == 200, "calls need no database"
                headers = {"Idempotency-Key": f"key-{n}"}
                await eventually(lambda api=api, n=n, headers=headers: is_changed(api, headers, n), within=15)
            for api in clients.values():
                await eventually(lambda api=api: serves(api, "demo", 5), within=10)
                assert (await ready(api))["position"] == 6, "every change once"
        await a_killed_worker_is_replaced(service)
        await wait_until(lambda: len(demos(service)) == 1, within=5)
        everyone = family(service.process.pid) | processes_of(data)
        assert len(everyone) >= 8, "supervisor, workers, their tracker, demo, keeper, server"

        service.process.kill()
        service.process.wait()

        await wait_until(lambda: not any(is_running(pid) for pid in everyone), within=15)
        assert not processes_of(data)


def postmaster(data: Path) -> int:
    (pid_file,) = data.glob("pg*/postmaster.pid")
    return int(pid_file.read_text().split()[0])


async def a_killed_worker_is_replaced(service: Service) -> None:
    before = workers(service)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    await wait_until(lambda: len(workers(service) - {victim}) == len(before), within=20)
    (successor,) = workers(service) - before
    async with service.api() as api:
        await eventually(lambda: answers(api), within=20)
        assert (await api.patch("demo", description="After the death of a worker")).status_code == 200
    async with each_worker(service) as clients:
        for api in (clients[successor], *clients.values()):
            await eventually(lambda api=api: serves(api, "demo", 6))


async def answers(api: Api) -> bool:
    try:
        return (await api.http.get("/livez")).status_code == 200
    except httpx2.TransportError:
        return False


async def is_changed(api: Api, headers: Mapping[str, str], number: int) -> bool:
    answer = await api.patch("demo", headers, description=f"Round {number}")
    assert answer.status_code in {200, 503}, answer.text
    return answer.status_code == 200


# A long history.


async def test_a_hundred_thousand_events_slow_nothing_down(
    databases: Databases, database: str, owner: asyncpg.Connection, upstream: ScriptedUpstream
) -> None:
    sys.path.insert(0, str(ROOT))
    from bench.seed import seed

    await seed(owner, 100_000, 50)
    began = time.monotonic()
    with running(databases, database, upstream, workers=1) as service:
        assert time.monotonic() - began < 10
        async with service.api() as api:
            assert (await ready(api))["position"] >= 100_000
            pages = {
                "a model's newest": path("model-00007", "history"),
                "a model's oldest": path("model-00007", "history") + "?cursor=60",
                "the ledger's newest": "/api/config/events",
                "from its middle": "/api/config/events?cursor=50000",
            }
            for name, page in pages.items():
                times = []
                for _ in range(30):
                    asked = time.monotonic()
                    answer = await api.http.get(page)
                    times.append(time.monotonic() - asked)
                    assert answer.status_code == 200, answer.text
                    assert len(answer.json()["data"]) >= 50, name
                assert statistics.quantiles(times, n=20)[-1] < 0.25, (name, sorted(times)[-3:])
            await api.create("m")
            await eventually(lambda: serves(api, "m", 1))
        await stops_while_somebody_watches(service)
