"""The database is away, at a start too: calls are served as they were last known, and all mends itself."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import asyncpg
import httpx2
import pytest
from chaos_proxy import ChaosProxy
from ledgers import Book, config, context, empty_database, opened
from litestar.testing import AsyncTestClient
from msgspec.structs import replace
from service import COMMAND, TOKEN, Api, Databases, Service, clean_environment, free_port, serving
from upstream import ScriptedUpstream, wait_until
from workers import each_worker, workers

from application.bootstrap import DEMO, demo_model
from application.ledger import Ledger
from application.ports import Caller, LiveModel
from domain.access import Role
from domain.model import UpdateModel
from domain.values import Actor, ModelId, Origin
from infrastructure import database as database_module
from infrastructure.access_tokens import digest
from infrastructure.database import Database, DatabaseAway, DatabaseUnusable
from infrastructure.follower import Follower
from infrastructure.live import Live
from infrastructure.local_snapshot import LocalSnapshot, place_digest
from infrastructure.preparation import Preparation
from infrastructure.snapshot_files import SnapshotFiles
from web.composition.app import create_app
from web.composition.worker import Standby, Worker

KEY = "c4n4ry-key-" + "k" * 20
SECOND = "mlk_second_" + "s" * 40
ADD_SECOND = (
    "INSERT INTO access_token (id, name, role, hash) VALUES ('second', 'second', 'administrator', $1)"
)
SECOND_CALLER = Caller(Actor("token:second", "second", "token"), Role.ADMINISTRATOR)
DAY = timedelta(hours=24)


@pytest.fixture
def proxy(databases: Databases, database: str) -> Iterator[ChaosProxy]:
    with ChaosProxy(databases.app_url(database)) as proxy:
        yield proxy


@pytest.fixture
def environment(
    proxy: ChaosProxy, databases: Databases, database: str, upstream: ScriptedUpstream, tmp_path: Path
) -> dict[str, str]:
    """A service whose every way to the database leads through the proxy."""
    return clean_environment(
        DATABASE_URL=proxy.url,
        MODEL_LEDGER_OWNER_DATABASE_URL=proxy.by_way(databases.owner_url(database)),
        MODEL_LEDGER_DATA_DIR=str(tmp_path / "data"),
        MODEL_LEDGER_ADMIN_TOKEN=TOKEN,
        AZURE_OPENAI_API_KEY=KEY,
        AZURE_OPENAI_ENDPOINT=upstream.origin,
        AZURE_OPENAI_DEPLOYMENT_NAME="first",
    )


def files_of(tmp_path: Path, url: str) -> SnapshotFiles:
    return SnapshotFiles(tmp_path / "data" / "snapshots", place_digest(url), DAY)


def snapshot(
    files: SnapshotFiles,
    models: Sequence[LiveModel] = (),
    *,
    age: timedelta = timedelta(0),
    demo_origin: Origin | None = None,
) -> LocalSnapshot:
    live = Live("an epoch", 3, b"h" * 32, {model.model_id: model for model in models}, None)
    callers = {digest(SECOND).hex(): SECOND_CALLER}
    return LocalSnapshot(files.database, datetime.now(UTC) - age, live, callers, demo_origin)


def refused(environment: dict[str, str]) -> str:
    """What a start says that ends with exit code 1."""
    command = [*COMMAND, "serve", "--port", str(free_port())]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=40)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "Traceback" not in done.stderr
    return done.stderr


async def readiness(api: Api) -> dict[str, object]:
    answer = await api.http.get("/readyz")
    return {"code": answer.status_code, **answer.json()}


async def until(check: Callable[[], Awaitable[bool]], *, within: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not await check():
        assert loop.time() < deadline, f"did not happen within {within} s"
        await asyncio.sleep(0.02)


async def is_ready(api: Api) -> bool:
    return (await readiness(api))["status"] == "ready"


# From one start to the next


async def test_it_is_away_at_a_start_and_comes_back_changed(
    environment: dict[str, str],
    proxy: ChaosProxy,
    owner: asyncpg.Connection,
    databases: Databases,
    database: str,
    upstream: ScriptedUpstream,
    tmp_path: Path,
) -> None:
    files = files_of(tmp_path, proxy.url)
    with serving(environment, "--workers", "2", upstream=upstream) as service:
        async with service.api() as api:
            await api.create("kept", deployment="old")
        await owner.execute(ADD_SECOND, digest(SECOND))
        await wait_until(lambda: has_all(files), within=10)
        proxy.refuse()
        await replaces_a_worker(service)
    keeps_no_secret(files)
    newest = files.directory / f"{files.database[:16]}.json"
    newest.with_suffix(".older").write_bytes(newest.read_bytes())
    newest.write_bytes(b"damaged")
    with serving(environment, "--workers", "2", upstream=upstream) as service:
        said = service.said()
        assert "the database cannot be reached" in said
        assert said.count(f"the local snapshot {newest} is not used: ") == 1
        async with each_worker(service) as found:
            for api in found.values():
                await serves_as_it_was(api)
            async with opened(databases.owner_url(database)) as book:
                await changes_meanwhile(book, owner, upstream)
            assert (await readiness(api))["status"] == "degraded"
            proxy.heal()
            for api in found.values():
                await until(partial(is_ready, api), within=15)
            for api in found.values():
                await serves_as_it_is(api, upstream)
            await spreads_a_change([*found.values()])


def has_all(files: SnapshotFiles) -> bool:
    saved = files.load(quiet=True)
    return saved is not None and len(saved.callers) == 2 and "kept" in saved.live.models


async def replaces_a_worker(service: Service) -> None:
    """A worker that has never reached the database serves all the same."""
    before = workers(service)
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    await wait_until(lambda: len(workers(service) - {killed}) == 2, within=10)
    (replaced,) = workers(service) - before
    await until(partial(serves_from_the_snapshot, service, replaced), within=20)


async def serves_from_the_snapshot(service: Service, worker: int) -> bool:
    async with each_worker(service) as found:
        told = await readiness(found[worker])
        if told["code"] == 200:
            assert told["snapshot_age"] is not None
            assert {(await api.chat("kept")).status_code for api in found.values()} == {200}
    return told["code"] == 200


def keeps_no_secret(files: SnapshotFiles) -> None:
    kept = [*files.directory.iterdir()]
    assert len(kept) == 3
    assert files.directory.stat().st_mode & 0o777 == 0o700
    for file in kept:
        assert file.stat().st_mode & 0o777 == 0o600
        content = file.read_bytes()
        assert not any(secret.encode() in content for secret in (KEY, TOKEN, SECOND))


async def serves_as_it_was(api: Api) -> None:
    told = await readiness(api)
    assert (told["code"], told["status"], told["follower"]) == (200, "degraded", "disconnected")
    age = told["snapshot_age"]
    assert isinstance(age, int)
    assert 0 <= age < 60
    answer = await api.chat("kept")
    assert (answer.status_code, answer.headers["x-model-ledger-version"]) == (200, "1")
    assert "deployment=old" in answer.text
    assert f"key={KEY[-4:]}" in answer.text
    for token, status in ((TOKEN, 200), (SECOND, 200), ("unknown", 401)):
        assert (await list_models(api, token)).status_code == status
    for refusal in (await api.patch("kept", max_timeout=600), await api.http.get("/api/config/models")):
        assert (refusal.status_code, refusal.json()["code"]) == (503, "database_unavailable")


async def list_models(api: Api, token: str) -> httpx2.Response:
    return await api.http.get("/v1/models", headers={"Authorization": f"Bearer {token}"})


async def changes_meanwhile(book: Book, owner: asyncpg.Connection, upstream: ScriptedUpstream) -> None:
    """Another process changes a model and takes a token away; then a backup's epoch is another one."""
    ledger = Ledger(book.store, frozenset({Origin(upstream.origin)}))
    changed = config(azure_endpoint=upstream.origin, deployment="new")
    await ledger.execute(UpdateModel(ModelId("kept"), changed), context())
    await owner.execute("DELETE FROM access_token WHERE id = 'second'")
    await owner.execute("UPDATE ledger_head SET epoch = gen_random_uuid()")


async def serves_as_it_is(api: Api, upstream: ScriptedUpstream) -> None:
    told = await readiness(api)
    assert (told["status"], told["snapshot_age"], told["degraded"]) == ("ready", None, [])
    answer = await api.chat("kept")
    assert (answer.status_code, answer.headers["x-model-ledger-version"]) == (200, "2")
    assert upstream.requests[-1].deployment == "new"
    assert (await list_models(api, SECOND)).status_code == 401


async def spreads_a_change(apis: list[Api]) -> None:
    changed = await apis[0].patch("kept", max_timeout=600)
    assert changed.status_code == 200, changed.text
    for api in apis:
        await until(partial(serves_version, api, "3"), within=5)


async def serves_version(api: Api, version: str) -> bool:
    return (await api.chat("kept")).headers.get("x-model-ledger-version") == version


async def test_an_empty_database_in_its_place_is_migrated_and_made_as_at_a_first_start(
    databases: Databases, tmp_path: Path
) -> None:
    origin = Origin(f"http://127.0.0.1:{free_port()}")
    demo = LiveModel(DEMO, demo_model(origin, "2025-01-01-preview").config, 1, 2, datetime.now(UTC))
    async with empty_database(databases) as name:
        with ChaosProxy(databases.app_url(name)) as proxy:
            proxy.refuse()
            environment = clean_environment(
                DATABASE_URL=proxy.url,
                MODEL_LEDGER_OWNER_DATABASE_URL=proxy.by_way(databases.owner_url(name)),
                MODEL_LEDGER_DATA_DIR=str(tmp_path / "data"),
            )
            files = files_of(tmp_path, proxy.url)
            files.save(snapshot(files, [demo], demo_origin=origin))
            with serving(environment) as service:
                service.token = SECOND
                async with service.api() as api:
                    await until(partial(answers_as_a_demonstration, api), within=15)
                proxy.heal()
                assert service.process.stdout is not None
                line = await asyncio.to_thread(service.process.stdout.readline)
                service.token = line.rpartition("shown only now: ")[2].strip()
                async with service.api() as api:
                    await until(partial(is_ready, api), within=15)
                    await until(partial(answers_as_a_demonstration, api), within=15)
                    assert (await list_models(api, SECOND)).status_code == 401
                    models = (await api.http.get("/api/config/models")).json()
    assert models["demo"]["azure_endpoint"] == origin


async def answers_as_a_demonstration(api: Api) -> bool:
    """Whether it does; the demo upstream may take a moment to listen."""
    answer = await api.chat("demo")
    assert answer.status_code in {200, 502}, answer.text
    return "demonstration" in answer.text


# Starts that cannot be


def test_without_a_snapshot_that_can_be_served_a_start_fails_and_says_why(
    environment: dict[str, str], proxy: ChaosProxy, tmp_path: Path
) -> None:
    proxy.refuse()
    assert "the local snapshot" not in refused(environment)
    files = files_of(tmp_path, proxy.url)
    files.save(snapshot(files, age=DAY + timedelta(minutes=1)))
    files.save(replace(snapshot(files), database="another"))
    said = refused(environment)
    assert "is not used: it is of another database" in said
    assert "is not used: it is older than MODEL_LEDGER_SNAPSHOT_HOURS allows (24)" in said
    assert said.splitlines()[-1].startswith("model-ledger: the database cannot be reached: ")
    files.save(snapshot(files))
    assert "snapshot" not in refused({**environment, "MODEL_LEDGER_SNAPSHOT_HOURS": "0"})


def test_a_database_that_is_there_and_refuses_us_ends_the_start_whatever_was_saved(
    databases: Databases, database: str, environment: dict[str, str], proxy: ChaosProxy, tmp_path: Path
) -> None:
    files = files_of(tmp_path, proxy.url)
    files.save(snapshot(files))
    stranger = proxy.url.replace("model_ledger_app@", "no_such_login@")
    assert stranger != proxy.url
    assert place_digest(stranger) == files.database
    said = refused({**environment, "DATABASE_URL": stranger})
    assert "no_such_login" in said
    assert "snapshot" not in said


async def test_only_a_database_that_cannot_be_reached_is_away(
    databases: Databases, database: str, proxy: ChaosProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT", 0.2)
    owner_url = databases.owner_url(database)
    unresolved = "postgresql://user@no-such-host.invalid/ledger"
    proxy.black_hole()
    for url in (proxy.url, "postgresql://user@127.0.0.1:9/ledger", unresolved):
        for service, owner in ((url, None), (owner_url, url)):
            with pytest.raises(DatabaseAway):
                await Database.prepare(service, owner)
    for url in (databases.owner_url("no_such"), owner_url.replace("model_ledger_owner@", "nobody@")):
        with pytest.raises(DatabaseUnusable) as refusal:
            await Database.prepare(url, None)
        assert not isinstance(refusal.value, DatabaseAway)


# One worker


async def test_what_is_too_old_is_not_served_any_more(tmp_path: Path) -> None:
    url = "postgresql://user@127.0.0.1:9/ledger"
    files = replace(files_of(tmp_path, url), max_age=timedelta(seconds=20))
    model = LiveModel(ModelId("kept"), config(credential=None), 1, 1, datetime.now(UTC))
    files.save(snapshot(files, [model], age=timedelta(seconds=16)))
    worker = Worker(
        Database(url, preparation=Preparation()),
        keys={},
        o_series_max_retries=3,
        require_if_match=False,
        standby=Standby(files, None),
    )
    known = {"Authorization": f"Bearer {SECOND}"}
    async with AsyncTestClient(create_app(worker)) as client:
        assert (await client.get("/v1/models", headers=known)).json()["data"][0]["id"] == "kept"

        async def is_gone() -> bool:
            return (await client.get("/readyz")).status_code == 503

        await until(is_gone, within=15)
        answer = await client.get("/v1/models", headers=known)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["code"] == "database_unavailable"
        problem = await client.get("/api/config/models", headers=known)
        assert (problem.status_code, problem.json()["code"]) == (503, "database_unavailable")
        assert (await client.get("/v1/models")).status_code == 401
        told = (await client.get("/readyz")).json()
        assert (told["status"], told["snapshot_age"]) == ("starting", None)


async def test_no_connection_is_made_before_the_database_is_prepared(
    databases: Databases, database: str
) -> None:
    preparation = Preparation()
    place = Database(databases.app_url(database), preparation=preparation)
    live = Live("an epoch", 3, b"h" * 32, {}, None)
    follower = Follower(place, [], (), lambda: live)
    task = asyncio.create_task(follower.run())
    await asyncio.wait_for(follower.started(), 5)
    assert (follower.live, follower.place) == (live, (1, 3))
    with pytest.raises(OSError, match="not prepared"):
        await place.connect()
    preparation.finish(lesser=False)
    assert await asyncio.wait_for(follower.moved((1, 3)), 10) == (2, 0), "read anew, and not caught up with"
    await wait_until(lambda: follower.connected, within=2)
    task.cancel()
    await asyncio.wait([task])
    assert follower.reached


async def test_a_ledger_that_was_read_stays_when_the_database_goes_at_once(
    proxy: ChaosProxy, owner: asyncpg.Connection
) -> None:
    """Whatever stands in for it is older."""
    follower = Follower(Database(proxy.url), [], (), lambda: Live("old", 3, b"h" * 32, {}, None))
    proxy.refuse()
    task = asyncio.create_task(follower.run())
    await asyncio.wait_for(follower.started(), 5)
    assert follower.position == 3
    proxy.heal()
    await wait_until(lambda: follower.reached, within=10)
    proxy.refuse()
    await wait_until(lambda: not follower.connected, within=5)
    assert follower.live is not None
    assert follower.live.epoch == str(await owner.fetchval("SELECT epoch FROM ledger_head"))
    task.cancel()
    await asyncio.wait([task])
