"""The ledger's store on a real PostgreSQL: order, atomicity, rights, and what a fault leaves behind."""

import asyncio
import logging
import random
import sys
import time
import traceback
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from subprocess import PIPE
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from chaos_proxy import ChaosProxy
from ledgers import Book, config, context, empty_database, key, opened, recorded, replay
from service import Databases

from application.ports import Append, Receipt
from domain.catalog import Change
from domain.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    LedgerError,
    StoreUnavailable,
    VersionConflict,
)
from domain.model import CreateModel, DeleteModel, ModelCreated, UpdateModel
from domain.values import DEFAULT_STREAM, ModelId, model_stream
from infrastructure import database as database_module
from infrastructure import roles
from infrastructure.database import Database, DatabaseUnusable
from infrastructure.event_store import APPEND, _arguments
from infrastructure.verify import verify

FAILURES = (LedgerError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


@pytest.fixture
async def book(databases: Databases, database: str) -> AsyncIterator[Book]:
    """The ledger with the rights of the service."""
    async with opened(databases.app_url(database)) as book:
        yield book


@pytest.fixture
def proxy(databases: Databases, database: str) -> Any:
    with ChaosProxy(databases.app_url(database)) as proxy:
        yield proxy


def created(model_id: str, *, expected: int = 0, request_id: str | None = None, **changes: Any) -> Append:
    """A creation as the store gets it, decided by nobody."""
    stream = model_stream(ModelId(model_id))
    change = Change(stream, ModelCreated(config(**changes)))
    receipt = Receipt("created", model_id, expected + 1, 0, "")
    return Append([change], {stream: expected}, context(request_id), receipt, None)


# Order.


async def test_positions_are_gapless_and_in_commit_order_whatever_16_writers_do(
    databases: Databases, database: str, owner: asyncpg.Connection, dice: random.Random
) -> None:
    writers, rounds = 16, 25
    done: dict[str, str] = {}
    async with opened(databases.app_url(database), size=writers) as book:
        work = Writers(book, dice, done)
        running = [asyncio.create_task(work.write(rounds)) for _ in range(writers)]
        watching = asyncio.create_task(watch(databases.owner_url(database), running))
        killing = asyncio.create_task(kill_connections(owner, database, running, dice))
        await asyncio.gather(*running)
        kills, seen = await killing, await watching

    assert kills > 0
    assert work.rolled_back > 0
    events = await recorded(owner)
    assert [row["position"] for row in events] == list(range(1, len(events) + 1)) == seen
    counts = Counter(row["request_id"] for row in events)
    outcomes = Counter(done.values())
    assert outcomes["ok"] > writers
    assert outcomes["refused"] > 0
    for request_id, outcome in done.items():
        assert counts.pop(request_id, 0) in {"ok": {1, 2}, "refused": {0}, "unknown": {0, 1, 2}}[outcome]
    assert not counts, "events that nobody asked for"
    verdict = await verify(owner)
    assert verdict.ok, str(verdict)


class Writers:
    """Clients that change a few models at random, and note what they were told."""

    def __init__(self, book: Book, dice: random.Random, done: dict[str, str]) -> None:
        self.book, self.dice, self.done = book, dice, done
        self.rolled_back = 0

    async def write(self, rounds: int) -> None:
        for _ in range(rounds):
            request_id = uuid.uuid4().hex
            try:
                await self.dice.choice(
                    [self.create, *4 * [self.update], self.delete, self.stale, self.undone]
                )(f"m{self.dice.randrange(12)}", request_id)
            except StoreUnavailable as error:
                self.done[request_id] = "unknown" if error.code == "outcome_unknown" else "refused"
            except FAILURES:
                self.done[request_id] = "refused"
            else:
                self.done.setdefault(request_id, "ok")

    async def create(self, model_id: str, request_id: str) -> None:
        await self.book.do(CreateModel(ModelId(model_id), config()), request_id=request_id)

    async def update(self, model_id: str, request_id: str) -> None:
        changed = config(max_tokens=self.dice.randrange(1, 1_000_000))
        await self.book.do(UpdateModel(ModelId(model_id), changed), request_id=request_id)

    async def delete(self, model_id: str, request_id: str) -> None:
        await self.book.do(DeleteModel(ModelId(model_id)), request_id=request_id)

    async def stale(self, model_id: str, request_id: str) -> None:
        await self.book.store.append(created(model_id, expected=1_000_000, request_id=request_id))

    async def undone(self, model_id: str, request_id: str) -> None:
        """The append succeeds, and the transaction around it does not."""
        async with self.book.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            unique = created(f"never-{uuid.uuid4().hex}", request_id=request_id)
            row = await connection.fetchrow(APPEND, *_arguments(unique))
            assert row is not None
            assert row["outcome"] == "appended"
            await transaction.rollback()
        self.rolled_back += 1
        self.done[request_id] = "refused"


async def watch(url: str, running: list[asyncio.Task[None]]) -> list[int]:
    """Poll for what is new until the writers have ended; what comes must follow on what was seen."""
    connection = await asyncpg.connect(url)
    seen: list[int] = []
    try:
        while True:
            ended = all(task.done() for task in running)
            new = await connection.fetch(
                "SELECT position, (SELECT position FROM ledger_head) AS head FROM event "
                "WHERE position > $1 ORDER BY position",
                len(seen),
            )
            positions = [row["position"] for row in new]
            assert positions == list(range(len(seen) + 1, len(seen) + 1 + len(new)))
            assert not new or new[0]["head"] == positions[-1]
            seen += positions
            if ended:
                return seen
            await asyncio.sleep(0)
    finally:
        await connection.close()


async def kill_connections(
    owner: asyncpg.Connection, database: str, running: list[asyncio.Task[None]], dice: random.Random
) -> int:
    kills = 0
    while not all(task.done() for task in running):
        pids = await owner.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name = 'model-ledger'",
            database,
        )
        if pids:
            how = dice.choice(["pg_terminate_backend", "pg_cancel_backend"])
            kills += await owner.fetchval(f"SELECT {how}($1)::int", dice.choice(pids)["pid"])
        await asyncio.sleep(0.02)
    return kills


async def test_times_never_go_back_even_when_the_servers_clock_does(
    book: Book, owner: asyncpg.Connection
) -> None:
    await book.create("a")
    ahead = await owner.fetchval(
        "UPDATE ledger_head SET recorded_at = now() + interval '1 hour' RETURNING recorded_at"
    )

    await book.update("a", max_tokens=1)
    await book.update("a", max_tokens=2)

    times = [row["recorded_at"] for row in await recorded(owner)]
    assert times[-2:] == [ahead, ahead]
    assert times == sorted(times)


# What a decision read.


async def test_a_model_is_never_deleted_while_it_is_the_default(
    databases: Databases, database: str, owner: asyncpg.Connection, dice: random.Random
) -> None:
    done: Counter[str] = Counter()
    async with opened(databases.app_url(database), size=8) as book:

        async def hammer() -> None:
            for _ in range(40):
                one, other = dice.choice("abc"), dice.choice("abc")
                what: dict[str, Coroutine[Any, Any, Receipt]] = {}
                kind = dice.choice(["create", "delete", "hand on", "set", "none"])
                match kind:
                    case "create":
                        what[kind] = book.create(one)
                    case "delete":
                        what[kind] = book.delete(one)
                    case "hand on":
                        what[kind] = book.delete(one, new_default=other)
                    case "set":
                        what[kind] = book.set_default(one)
                    case _:
                        what[kind] = book.set_default(None)
                with suppress(LedgerError):
                    await what[kind]
                    done[kind] += 1

        await asyncio.gather(*(hammer() for _ in range(8)))

    assert min(done[kind] for kind in ("create", "delete", "hand on", "set", "none")) > 0, done
    for position, state in replay(await recorded(owner)):
        assert state.default is None or state.default in state.live, f"at position {position}"
    verdict = await verify(owner)
    assert verdict.ok, str(verdict)


async def test_a_stale_expectation_records_nothing_also_for_a_stream_that_is_only_read(
    book: Book, owner: asyncpg.Connection
) -> None:
    await book.create("a")
    read = {model_stream(ModelId("b")): 0, DEFAULT_STREAM: 0}  # the default moved meanwhile
    append = created("b")
    with pytest.raises(VersionConflict) as conflict:
        await book.store.append(Append(append.changes, read, append.context, append.receipt, None))
    assert conflict.value.stream == DEFAULT_STREAM
    assert len(await recorded(owner)) == 2


async def test_many_events_in_one_append_are_all_or_nothing(book: Book, owner: asyncpg.Connection) -> None:
    await book.create("taken")
    ids = [*(f"new{n}" for n in range(50)), "taken"]
    changes = [change for model_id in ids for change in created(model_id).changes]
    expected = {change.stream: 0 for change in changes}
    receipt = Receipt("created", "taken", 1, 0, "")
    with pytest.raises(VersionConflict):
        await book.store.append(Append(changes, expected, context(), receipt, None))
    assert len(await recorded(owner)) == 2
    assert await owner.fetchval("SELECT count(*) FROM model") == 1


async def test_appends_need_no_luck_with_the_databases_isolation_level(
    databases: Databases, database: str, owner: asyncpg.Connection
) -> None:
    await owner.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'")
    async with opened(databases.app_url(database)) as book:
        await asyncio.gather(*(book.create(f"m{n}") for n in range(8)))
    assert len(await recorded(owner)) == 9


# Exact bytes.


@pytest.mark.parametrize(
    "text",
    [
        '{"config":{"token_factor":-0.0,"base_timeout":1e22,"max_timeout":1e-7,"max_tokens":9007199254740993}}',
        '{ "b" : 1.0 ,\t"a": 1.00, "a": 100e-2,\n "é": "\\u00e9 é \U0001f600 \\ud83d\\ude00 \u2028 e\u0301"}',
        '{"nul":"\\u0000","slash":"\\/","big":123456789012345678901234567890.00}',
    ],
)
async def test_a_body_comes_back_byte_for_byte(book: Book, owner: asyncpg.Connection, text: str) -> None:
    arguments = _arguments(created("exact"))
    arguments[5] = [text]
    arguments[14] = [text]
    await book.pool.fetch(APPEND, *arguments)
    assert (await recorded(owner))[0]["body"] == text
    assert await owner.fetchval("SELECT config::text FROM model") == text
    verdict = await verify(owner)
    assert verdict.position_of_first_bad is None, str(verdict)


async def test_numbers_and_texts_come_back_as_the_values_that_they_were(book: Book) -> None:
    odd = {
        "token_factor": -0.0,
        "base_timeout": 1e22,
        "max_timeout": 1e-7,
        "max_tokens": 2**63 - 1,
        "name": "Größe 😀 e\u0301 \u2028",
        "description": '"\\/</script>',
    }
    await book.store.append(created("odd", **odd))
    look = await book.store.look([model_stream(ModelId("odd"))])
    event, version = look.seen.events[model_stream(ModelId("odd"))]
    assert isinstance(event, ModelCreated)
    assert repr(event.config) == repr(config(**odd))
    assert version == 1


# Who may do what.

FORBIDDEN = [
    "UPDATE event SET reason = 'x'",
    "DELETE FROM event",
    "TRUNCATE event",
    "TRUNCATE event CASCADE",
    "INSERT INTO event SELECT * FROM event",
    "ALTER TABLE event DISABLE TRIGGER event_append_only",
    "ALTER TABLE event DISABLE TRIGGER ALL",
    "DROP TRIGGER event_append_only ON event",
    "DROP TABLE event",
    "CREATE OR REPLACE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE sql AS ''",
    "ALTER FUNCTION ledger_append SECURITY INVOKER",
    "SET session_replication_role = replica",
    "UPDATE ledger_head SET position = 0",
    "SELECT * FROM ledger_head FOR UPDATE",
    "DELETE FROM ledger_head",
    "DELETE FROM idempotency",
    "UPDATE idempotency SET expires_at = 'infinity'",
    "LOCK TABLE event IN ACCESS EXCLUSIVE MODE",
    "CREATE TABLE public.mine ()",
]


async def test_the_services_role_may_append_and_read_and_nothing_else(
    book: Book, app_role: asyncpg.Connection
) -> None:
    await book.create("a")
    assert await refused(app_role, FORBIDDEN) == FORBIDDEN


async def refused(connection: asyncpg.Connection, statements: list[str], why: str = "") -> list[str]:
    """Those that the connection may not do, for that reason."""
    found = []
    for statement in statements:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError as error:
            found += [statement] if why in str(error) else []
        await transaction.rollback()
    return found


async def test_not_even_the_owner_may_without_taking_the_trigger_away(
    book: Book, owner: asyncpg.Connection
) -> None:
    await book.create("a")
    before = await recorded(owner)
    changes = [
        "UPDATE event SET reason = 'x'",
        "UPDATE event SET reason = 'x' WHERE false",
        "DELETE FROM event WHERE position = 1",
        "TRUNCATE event",
        "TRUNCATE event CASCADE",
        "MERGE INTO event USING ledger_head ON true WHEN MATCHED THEN DELETE",
        "INSERT INTO event SELECT * FROM event ON CONFLICT (position) DO UPDATE SET reason = 'x'",
    ]
    for replication_role in ("origin", "replica"):
        await owner.execute(f"SET session_replication_role = {replication_role}")
        assert await refused(owner, changes, why="append-only") == changes
    assert await recorded(owner) == before


@asynccontextmanager
async def login(databases: Databases, database: str, options: str = "") -> AsyncIterator[tuple[str, str]]:
    """A login, with its address for that database."""
    name = f"login_{uuid.uuid4().hex[:16]}"
    connection = await asyncpg.connect(databases.owner_url(database))
    try:
        await connection.execute(f"CREATE ROLE {name} LOGIN {options}")
        parts = urlsplit(databases.owner_url(database))
        yield name, parts._replace(netloc=f"{name}@").geturl()
        # First what the login made (whoever else was granted something on it), then the login.
        await connection.execute(f"DROP OWNED BY {name} CASCADE; REASSIGN OWNED BY {name} TO CURRENT_USER")
        await connection.execute(f"ALTER DATABASE {database} OWNER TO CURRENT_USER")
        await connection.execute(f"DROP ROLE {name}")
    finally:
        await connection.close()


async def who(place: Database) -> tuple[str, str]:
    """As whom the service's statements run, and who logged in."""
    connection = await place.connect()
    try:
        row = await connection.fetchrow("SELECT current_user, session_user")
        assert row is not None
        return row[0], row[1]
    finally:
        await connection.close()


async def test_with_one_privileged_address_the_service_takes_on_the_lesser_role(databases: Databases) -> None:
    async with empty_database(databases) as name:
        place = await Database.prepare(databases.owner_url(name), None)
        assert await who(place) == ("model_ledger_app", "model_ledger_owner")
        async with opened(place) as book:
            await book.create("a")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await book.pool.execute("DELETE FROM event")
            # What the pool does between two users of a connection does not give the rights back.
            assert await book.pool.fetchval("SELECT current_user") == "model_ledger_app"


async def test_with_two_addresses_the_service_logs_in_with_its_own(databases: Databases) -> None:
    async with empty_database(databases) as name:
        place = await Database.prepare(databases.app_url(name), databases.owner_url(name))
        assert await who(place) == ("model_ledger_app", "model_ledger_app")
        async with opened(place) as book:
            await book.create("a")


async def test_with_two_addresses_any_login_of_the_services_own_will_do(databases: Databases) -> None:
    async with empty_database(databases) as name, login(databases, name) as (_, url):
        place = await Database.prepare(url, databases.owner_url(name))
        async with opened(place) as book:
            await book.create("a")
            connection = await place.connect()
            assert await refused(connection, FORBIDDEN) == FORBIDDEN
            await connection.close()


async def test_the_lesser_role_is_made_where_there_is_none(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"made_{uuid.uuid4().hex[:16]}"
    monkeypatch.setattr(roles, "APP_ROLE", role)
    async with empty_database(databases) as name:
        connection = await asyncpg.connect(databases.owner_url(name))
        try:
            assert await who(await Database.prepare(databases.owner_url(name), None)) == (
                role,
                "model_ledger_owner",
            )
            assert await connection.fetchval("SELECT NOT rolcanlogin FROM pg_roles WHERE rolname = $1", role)
        finally:
            await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
            await connection.close()


async def test_a_login_that_may_make_roles_without_being_superuser_takes_on_the_lesser_one(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"made_{uuid.uuid4().hex[:16]}"
    monkeypatch.setattr(roles, "APP_ROLE", role)
    async with empty_database(databases) as name, login(databases, name, "CREATEROLE") as (user, url):
        connection = await asyncpg.connect(databases.owner_url(name))
        try:
            await connection.execute(f"ALTER DATABASE {name} OWNER TO {user}")
            assert await who(await Database.prepare(url, None)) == (role, user)
        finally:
            await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
            await connection.close()


async def test_a_lesser_role_that_was_granted_beforehand_is_taken_on(databases: Databases) -> None:
    async with empty_database(databases) as name, login(databases, name) as (user, url):
        connection = await asyncpg.connect(databases.owner_url(name))
        await connection.execute(f"ALTER DATABASE {name} OWNER TO {user}; GRANT model_ledger_app TO {user}")
        await connection.close()
        assert await who(await Database.prepare(url, None)) == ("model_ledger_app", user)


async def test_where_no_role_can_be_made_the_triggers_are_left_and_it_is_said_once(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    async with empty_database(databases) as name, login(databases, name) as (user, url):
        connection = await asyncpg.connect(databases.owner_url(name))
        await connection.execute(f"ALTER DATABASE {name} OWNER TO {user}")
        await connection.close()
        with caplog.at_level(logging.WARNING):
            place = await Database.prepare(url, None)
        assert [record.message for record in caplog.records if "only the triggers" in record.message]
        assert len(caplog.records) == 1
        assert await who(place) == (user, user)
        async with opened(place) as book:
            await book.create("a")
            for statement in ("UPDATE event SET reason = 'x'", "DELETE FROM event", "TRUNCATE event"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                    await book.pool.execute(statement)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await book.pool.execute("SET session_replication_role = replica")


async def test_a_lesser_login_beside_an_owner_who_makes_no_roles_is_nothing_to_warn_of(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        empty_database(databases) as name,
        login(databases, name) as (_, url),
        login(databases, name) as (owner, owner_url),
    ):
        connection = await asyncpg.connect(databases.owner_url(name))
        await connection.execute(f"ALTER DATABASE {name} OWNER TO {owner}")
        await connection.close()
        with caplog.at_level(logging.WARNING):
            place = await Database.prepare(url, owner_url)
        assert not caplog.records
        async with opened(place) as book:
            await book.create("a")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await book.pool.execute("DELETE FROM event")


PREPARE = """
import asyncio, sys
from infrastructure import roles
from infrastructure.database import Database
roles.APP_ROLE = sys.argv[2]
print(asyncio.run(Database.prepare(sys.argv[1], None)).role)
"""


async def test_many_processes_prepare_one_empty_database_at_once(databases: Databases) -> None:
    async with empty_database(databases) as name, login(databases, name, "CREATEROLE") as (user, url):
        connection = await asyncpg.connect(databases.owner_url(name))
        await connection.execute(f"ALTER DATABASE {name} OWNER TO {user}")
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", PREPARE, url, f"made_{name}", stdout=PIPE, stderr=PIPE
            )
            for _ in range(3)
        ]
        try:
            for process in processes:
                out, errors = await process.communicate()
                assert (process.returncode, out.decode().strip()) == (0, f"made_{name}"), errors.decode()
            assert await connection.fetchval("SELECT count(*) FROM ddl_version") == 1
            assert await connection.fetchval("SELECT count(*) FROM ledger_head") == 1
        finally:
            await connection.execute(f"DROP OWNED BY made_{name}; DROP ROLE made_{name}")
            await connection.close()


# Databases that will not do.


async def test_a_database_of_another_encoding_is_refused(databases: Databases) -> None:
    options = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    async with empty_database(databases, options) as name:
        with pytest.raises(DatabaseUnusable, match="encoding is SQL_ASCII; the ledger needs UTF8"):
            await Database.prepare(databases.owner_url(name), None)


async def test_a_login_that_may_not_migrate_is_told_what_to_give(databases: Databases) -> None:
    async with empty_database(databases) as name, login(databases, name) as (_, url):
        with pytest.raises(DatabaseUnusable, match="MODEL_LEDGER_OWNER_DATABASE_URL"):
            await Database.prepare(url, None)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:pass-word@127.0.0.1:9/ledger",
        "postgresql://user:pass-word@127.0.0.1:9,127.0.0.1:10/ledger",
        "postgresql://user:pass-word/with-a-slash@127.0.0.1/ledger",
        "postgresql://user:pass-word@[half/ledger",
        "postgresql://user:pass-word@127.0.0.1/ledger?sslmode=nonsense",
        "postgresql://user:pass-word@/ledger?host=/no/such/directory",
    ],
)
async def test_an_address_where_nothing_answers_is_told_without_its_password(
    databases: Databases, address: str
) -> None:
    good = databases.server.owner_url
    for url, owner_url in ((address, None), (address, good), (good, address)):
        with pytest.raises(DatabaseUnusable, match=r"cannot be reached: .+") as refusal:
            await Database.prepare(url, owner_url)
        told = "".join(traceback.format_exception(refusal.value))
        assert "pass-word" not in told.replace(address, "")


async def test_a_database_that_is_missing_is_named(databases: Databases) -> None:
    with pytest.raises(DatabaseUnusable, match='database "no_such" does not exist'):
        await Database.prepare(databases.owner_url("no_such"), None)


async def test_a_database_that_never_answers_is_given_up(
    proxy: ChaosProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT", 0.2)
    proxy.black_hole()
    with pytest.raises(DatabaseUnusable, match=r"cannot be reached: .*no answer within"):
        await Database.prepare(proxy.url, None)


async def test_a_start_waits_for_another_ones_long_migration(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "COMMAND_TIMEOUT", 0.2)
    async with empty_database(databases) as name:
        other = await asyncpg.connect(databases.owner_url(name))
        await other.execute("SELECT pg_advisory_lock(x'6D6F64656C6C6467'::bigint)")
        waiting = asyncio.create_task(Database.prepare(databases.app_url(name), databases.owner_url(name)))
        finished, _ = await asyncio.wait([waiting], timeout=1.5)
        assert not finished, waiting.exception()
        await other.close()
        await asyncio.wait_for(waiting, 10)


async def test_a_migration_that_breaks_off_leaves_nothing_and_is_made_by_the_next_start(
    databases: Databases,
) -> None:
    async with empty_database(databases) as name:
        other = await asyncpg.connect(databases.owner_url(name))
        transaction = other.transaction()
        await transaction.start()
        await other.execute("LOCK TABLE pg_catalog.pg_proc IN SHARE MODE")  # tables yes, functions no
        start = asyncio.create_task(Database.prepare(databases.app_url(name), databases.owner_url(name)))
        stuck = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'pg_catalog.pg_proc'::regclass"
        while not (pid := await other.fetchval(stuck)):
            assert not start.done(), start.exception()
            await asyncio.sleep(0.01)
        await other.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        with pytest.raises(DatabaseUnusable, match=r"cannot be reached: .+"):
            await start
        await transaction.rollback()
        assert await other.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0

        place = await Database.prepare(databases.app_url(name), databases.owner_url(name))
        async with opened(place) as book:
            await book.create("m")
        await other.close()


# Idempotency.


async def test_a_key_is_kept_for_a_day_and_then_free_again(book: Book, owner: asyncpg.Connection) -> None:
    create, update = (
        CreateModel(ModelId("m"), config()),
        UpdateModel(ModelId("m"), config(max_tokens=1)),
    )
    first = await book.do(create, idempotency=key("one"))
    assert await book.do(create, idempotency=key("one")) == first
    with pytest.raises(IdempotencyMismatch):
        await book.do(update, idempotency=key("one", b"another request"))
    left = await owner.fetchval("SELECT expires_at - now() FROM idempotency")
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)

    await owner.execute("UPDATE idempotency SET expires_at = now()")
    assert (await book.do(update, idempotency=key("one", b"another request"))).version == 2
    assert len(await recorded(owner)) == 3


async def test_expired_keys_go_little_by_little_and_never_stand_in_the_way(
    book: Book, owner: asyncpg.Connection
) -> None:
    await book.create("m")
    await owner.execute(
        "INSERT INTO idempotency SELECT $1, 'PUT', '/api/config/models/m', n::text, 'x', '{}', NULL, "
        "now() - interval '1 second' FROM generate_series(1, 350) AS n",
        key("").actor,
    )
    for n in (350, 349, 348, 347):
        receipt = await book.do(UpdateModel(ModelId("m"), config(max_tokens=n)), idempotency=key(str(n)))
        assert receipt.status == "updated"
    assert await owner.fetchval("SELECT count(*) FROM idempotency WHERE expires_at < now()") == 0
    assert await owner.fetchval("SELECT count(*) FROM idempotency") == 4


async def test_one_key_in_two_processes_at_once_changes_once(
    databases: Databases, database: str, owner: asyncpg.Connection
) -> None:
    url = databases.app_url(database)
    async with opened(url) as one, opened(url) as other:
        for n in range(20):
            create = CreateModel(ModelId(f"m{n}"), config())
            answers = await asyncio.gather(
                *(book.do(create, idempotency=key(str(n))) for book in (one, other))
            )
            assert answers[0] == answers[1]
            assert answers[0].status == "created"
    assert len(await recorded(owner)) == 21


async def test_one_key_twice_at_once_in_one_process_is_told_so(book: Book) -> None:
    create = CreateModel(ModelId("m"), config())
    answers = await asyncio.gather(
        *(book.do(create, idempotency=key("one")) for _ in range(3)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [Receipt, IdempotencyInFlight, IdempotencyInFlight]


async def test_an_answer_that_changed_nothing_is_kept_as_well(book: Book, owner: asyncpg.Connection) -> None:
    await book.create("m")
    same = UpdateModel(ModelId("m"), config())
    first = await book.do(same, idempotency=key("one"))
    await book.update("m", max_tokens=1)
    assert await book.do(same, idempotency=key("one")) == first
    assert first.status == "unchanged"
    assert len(await recorded(owner)) == 3


# Faults.


async def test_a_ledger_that_is_locked_for_too_long_is_told_as_busy(
    databases: Databases, database: str, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT", 2.5)
    async with opened(databases.app_url(database), size=4) as book:
        await book.create("m")
        transaction = owner.transaction()
        await transaction.start()
        await owner.execute("SELECT FROM ledger_head FOR UPDATE")
        began = time.monotonic()
        # More than the pool has connections: who waits for one does not wait for ever either.
        answers = await asyncio.gather(
            *(book.update("m", max_tokens=n + 1) for n in range(12)), return_exceptions=True
        )
        took = time.monotonic() - began
        assert all(isinstance(answer, StoreUnavailable) for answer in answers), answers
        codes = Counter(answer.code for answer in answers if isinstance(answer, StoreUnavailable))
        assert codes["ledger_busy"] >= 4
        assert set(codes) <= {"ledger_busy", "database_unavailable"}
        assert 1.9 < took < 8
        await transaction.rollback()
        assert len(await recorded(owner)) == 2
        assert (await book.update("m", max_tokens=7)).version == 2


async def test_a_connection_that_breaks_at_any_byte_leaves_one_event_or_none(
    proxy: ChaosProxy, owner: asyncpg.Connection, dice: random.Random
) -> None:
    tries, seen = 64, Counter[tuple[str, int]]()
    async with opened(proxy.url, size=2) as book:
        await book.create("warm-up")
        before = proxy.forwarded
        await book.do(CreateModel(ModelId("measured"), config()), idempotency=key("measured"))
        whole = proxy.forwarded - before
        for n in range(tries):
            create = CreateModel(ModelId(f"m{n}"), config())
            mine = "SELECT position, hash FROM event WHERE stream = $1"
            proxy.cut_after(1 + whole * n // tries + dice.randrange(whole // tries))
            try:
                await book.do(create, idempotency=key(create.model_id))
            except StoreUnavailable as error:
                seen[error.code, len(await owner.fetch(mine, f"model/m{n}"))] += 1
            proxy.heal()
            receipt = await again(book, create, create.model_id)
            events = await owner.fetch(mine, f"model/m{n}")
            assert [(row["position"], row["hash"].hex()) for row in events] == [
                (receipt.position, receipt.hash)
            ]
    assert seen["database_unavailable", 0] > tries / 10, seen
    assert seen["outcome_unknown", 0] > 0, seen
    assert seen["outcome_unknown", 1] > 0, f"no cut between the commit and its answer: {seen}"
    assert len(seen) == 3, seen
    verdict = await verify(owner)
    assert verdict.ok, str(verdict)


async def again(book: Book, create: CreateModel, name: str) -> Receipt:
    """Repeat a request as its client would, with the same key, until it is answered."""
    while True:
        try:
            return await book.do(create, idempotency=key(name))
        except StoreUnavailable:
            await asyncio.sleep(0)


async def test_a_link_that_goes_silent_is_given_up_and_the_pool_recovers(
    proxy: ChaosProxy, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "COMMAND_TIMEOUT", 0.4)
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT", 0.4)
    async with opened(proxy.url, size=2) as book:
        await book.create("m")
        append = created("n")
        proxy.black_hole()
        for work, code in (
            (book.store.append(append), "outcome_unknown"),
            (book.create("o"), "database_unavailable"),
        ):
            with pytest.raises(StoreUnavailable) as failure:
                await asyncio.wait_for(work, 3)
            assert failure.value.code == code
        proxy.heal()
        assert (await asyncio.wait_for(book.create("p"), 5)).status == "created"
    assert [row["stream"] for row in await recorded(owner)] == ["default", "model/m", "model/p"]


async def test_a_read_only_database_takes_no_writes_and_recovers_by_itself(
    databases: Databases, database: str, owner: asyncpg.Connection
) -> None:
    await owner.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    async with opened(databases.app_url(database), size=2) as book:
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="takes no writes") as failure:
                await book.create("m")
            assert failure.value.code == "database_unavailable"
        await owner.execute("SET default_transaction_read_only = off")
        await owner.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
        # Connections that were made meanwhile stay read-only for as long as they live.
        assert (await book.create("m")).status == "created"


async def test_a_full_disk_is_told_as_one_that_takes_no_writes(book: Book, owner: asyncpg.Connection) -> None:
    await owner.execute("""
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION full_disk();
    """)
    with pytest.raises(StoreUnavailable) as failure:
        await book.create("m")
    assert failure.value.code == "database_unavailable"
    await owner.execute("DROP TRIGGER full_disk ON event")
    assert (await book.create("m")).status == "created"


async def test_a_caller_who_leaves_takes_no_connection_along(book: Book, owner: asyncpg.Connection) -> None:
    await book.create("m")
    for n in range(40):
        task = asyncio.create_task(book.update("m", max_tokens=n + 10))
        await asyncio.sleep(0.0005 * (n % 8))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    answers = await asyncio.wait_for(asyncio.gather(*(book.create(f"n{n}") for n in range(16))), 10)
    assert len(answers) == 16
    verdict = await verify(owner)
    assert verdict.ok, str(verdict)
