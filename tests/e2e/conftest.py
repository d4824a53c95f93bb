"""Real servers for the tests: one PostgreSQL a run, a database a test, the application in its processes."""

import asyncio
import fcntl
import os
import random
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from served_gateway import gateway, gateway_http, gateway_sdk, gateway_server  # noqa: F401 - fixtures
from service import Databases, Service, running
from upstream import ScriptedUpstream, block_until

from infrastructure.database import Database
from infrastructure.embedded import EmbeddedPostgres, lease

TEMPLATE = "ledger_template"


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """One embedded server for the whole run, shared by all its processes."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    # A place of its own: pytest's is closed to the account that the server runs under.
    root = Path(tempfile.gettempdir()) / f"model-ledger-test-{run[:12]}"
    root.mkdir(mode=0o755, exist_ok=True)
    root.chmod(0o755)
    with lease(root, settings={"fsync": "off", "full_page_writes": "off"}) as server:
        with locked(root / "template.lock"):
            asyncio.run(make_template(server))
        yield server
    # The server outlives its last lease by a moment; while it runs, another process of the run has one.
    with suppress(AssertionError):
        block_until(lambda: not any(root.glob("pg*/postmaster.pid")), within=3)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def make_template(server: EmbeddedPostgres) -> None:
    owner = await asyncpg.connect(server.owner_url)
    try:
        if not await owner.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", TEMPLATE):
            await owner.execute(f"CREATE DATABASE {TEMPLATE}_new")
            await Database.prepare(
                server.url(f"{TEMPLATE}_new", owner=False), server.url(f"{TEMPLATE}_new", owner=True)
            )
            await owner.execute(f"ALTER DATABASE {TEMPLATE}_new RENAME TO {TEMPLATE}")
    finally:
        await owner.close()


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Databases:
    """Makes databases that are migrated already."""
    return Databases(postgres, TEMPLATE)


@pytest.fixture
def database(databases: Databases) -> Iterator[str]:
    """An empty, migrated ledger: its database's name."""
    with databases.made() as name:
        yield name


@pytest.fixture
async def owner(databases: Databases, database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the database's owner."""
    connection = await asyncpg.connect(databases.owner_url(database))
    yield connection
    await connection.close()


@pytest.fixture
async def app_role(databases: Databases, database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection with the rights of the service."""
    connection = await asyncpg.connect(databases.app_url(database))
    yield connection
    await connection.close()


@pytest.fixture
def own_server() -> Iterator[tuple[EmbeddedPostgres, Path]]:
    """A PostgreSQL of the test's own, with its directory; durable, as it is going to be killed."""
    with tempfile.TemporaryDirectory(prefix="model-ledger-") as name:
        root = Path(name)
        root.chmod(0o755)
        with lease(root, grace=0) as server:
            yield server, root
        # The keeper ends by itself; only then may its directory go.
        deadline = time.monotonic() + 30
        while any(root.glob("pg*/postmaster.pid")) and time.monotonic() < deadline:
            time.sleep(0.01)


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def shared_service(databases: Databases, shared_upstream: ScriptedUpstream) -> Iterator[Service]:
    """One service of two workers for all tests that need no ledger of their own."""
    with databases.made() as name, running(databases, name, shared_upstream, workers=2) as service:
        yield service


@pytest.fixture
async def api(shared_service: Service) -> AsyncIterator["object"]:
    """The shared service as an administrator's program uses it."""
    async with shared_service.api() as api:
        yield api


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def fresh_service(databases: Databases, database: str, upstream: ScriptedUpstream) -> Iterator[Service]:
    """A service of one worker on a ledger of its own."""
    with running(databases, database, upstream, workers=1) as service:
        yield service


@pytest.fixture
def dice() -> random.Random:
    """Chance that can be had again: a failure shows the seed, and SEED=<that> in the environment takes it."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    sys.stdout.write(f"SEED={seed}\n")
    return random.Random(seed)
