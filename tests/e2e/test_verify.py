"""`verify` and `rebuild` against a real database: what they find, what they repair, whom they disturb."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from msgspec import structs
from service import Databases
from upstream import wait_until

from application.ledger import Ledger
from application.ports import Context, Receipt
from domain.catalog import Command
from domain.configuration import ModelConfig
from domain.default import SetDefault
from domain.errors import LedgerError
from domain.model import CreateModel, DeleteModel, RestoreModel, RollBackModel, UpdateModel
from domain.values import Actor, ModelId
from infrastructure import codec, replay, verify
from infrastructure.database import Database
from infrastructure.event_store import PostgresEventStore
from infrastructure.follower import Follower
from infrastructure.rebuild import Rebuilt, rebuild
from infrastructure.verify import Failure, Verdict

Connection = asyncpg.Connection

ADA = Context(Actor("user:ada", "Ada", "person"), "api", "request-1", "because")
GPT_4, GPT_5, O_3 = ModelId("gpt-4"), ModelId("gpt-5"), ModelId("o3")
SELECT_MODELS = "SELECT *, config::text AS config_text FROM model ORDER BY id"


def config(name: str, **changes: Any) -> ModelConfig:
    fields = {
        "max_tokens": 4096,
        "supports_streaming": True,
        "supports_temperature": True,
        "api_version": "2025-01-01",
        "azure_endpoint": "https://one.openai.azure.com",
        "credential": None,
    }
    return ModelConfig(name=name, **{**fields, **changes})


HISTORY: Sequence[Command] = (
    CreateModel(GPT_4, config("Four")),
    CreateModel(GPT_5, config('Fünf „5“ 🙂 \\ "quoted"', token_factor=1e-07)),
    UpdateModel(GPT_4, config("Four again", description="longer", base_timeout=60.5)),
    CreateModel(O_3, config("Three", enabled=False)),
    RollBackModel(GPT_4, 1, config("Four")),
    SetDefault(GPT_5),
    DeleteModel(GPT_4),
    RestoreModel(GPT_4, 2, config("Four again")),
    DeleteModel(GPT_5, GPT_4),
    UpdateModel(O_3, config("Three", enabled=True)),
)
EVENTS = 12
"""Of that history: a model that is made first, or deleted as the default, changes the default as well."""


@asynccontextmanager
async def ledger_of(url: str) -> AsyncIterator[Ledger]:
    async with Database(url).pool(4) as pool:
        yield Ledger(PostgresEventStore(pool), frozenset())


async def record(url: str, commands: Sequence[Command]) -> list[Receipt]:
    async with ledger_of(url) as ledger:
        return [await ledger.execute(command, ADA) for command in commands]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def history(databases: Databases) -> Iterator[str]:
    """A database with the history, for tests that leave no trace in it."""
    with databases.made() as name:
        asyncio.run(record(databases.app_url(name), HISTORY))
        yield name


@pytest.fixture
async def intruder(databases: Databases, history: str) -> AsyncIterator[Connection]:
    """A superuser at the history, past the triggers; in the end it is as if nothing had happened."""
    async with connected(databases.owner_url(history)) as connection:
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        await connection.execute("ALTER TABLE event DISABLE TRIGGER event_append_only")
        yield connection
        await transaction.rollback()


@pytest.fixture
async def recorded(databases: Databases, database: str) -> str:
    """A database of its own with the history."""
    await record(databases.app_url(database), HISTORY)
    return database


def sound(events: int, hash_: str) -> Verdict:
    """The verdict on a ledger that is as it was recorded."""
    return Verdict(ok=True, events=events, hash=hash_, position_of_first_bad=None, failures=[], notes=[])


async def alter(connection: Connection, statement: str, *arguments: object) -> None:
    """Change one row; a statement that changes none would prove nothing."""
    assert (await connection.execute(statement, *arguments)).endswith(" 1")


# A ledger that is as it was recorded.


async def test_a_healthy_ledger_verifies(intruder: Connection) -> None:
    verdict = await verify.verify(intruder)
    hash_ = await intruder.fetchval("SELECT encode(hash, 'hex') FROM ledger_head")
    assert verdict == sound(EVENTS, hash_)
    told = f"{EVENTS} events, chain and projection verified up to position {EVENTS}, hash {hash_}"
    assert str(verdict) == told


async def test_a_healthy_projection_is_rebuilt_without_a_change(intruder: Connection) -> None:
    rebuilt = await rebuild(intruder)
    assert rebuilt == Rebuilt(models=3, changed=0)
    assert str(rebuilt) == "3 models rebuilt from their events: every row was right already"


async def test_an_empty_ledger_verifies(owner: Connection) -> None:
    verdict = await verify.verify(owner)
    assert verdict == sound(0, "00" * 32)
    assert await rebuild(owner) == Rebuilt(models=0, changed=0)


async def test_batches_that_end_anywhere_make_no_difference(
    intruder: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await intruder.execute("DELETE FROM model")
    whole = await verify.verify(intruder)
    assert (whole.events, len(whole.failures)) == (EVENTS, 3)
    for size in range(1, EVENTS + 2):
        monkeypatch.setattr(verify, "BATCH", size)
        monkeypatch.setattr(replay, "BATCH", size)
        assert await verify.verify(intruder) == whole


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_was_accepted_verifies_and_rebuilds_to_what_it_is(
    seed: int, databases: Databases, database: str, owner: Connection
) -> None:
    chance = random.Random(seed)
    async with ledger_of(databases.app_url(database)) as ledger:
        accepted = 0
        while accepted < 150:
            try:
                await ledger.execute(random_command(chance), ADA)
            except LedgerError:
                continue
            accepted += 1
    verdict = await verify.verify(owner)
    assert verdict.ok, verdict
    assert verdict.events > 75
    assert await rebuild(owner) == Rebuilt(await owner.fetchval("SELECT count(*) FROM model"), 0)


def random_command(chance: random.Random) -> Command:
    model_id, other = (ModelId(f"model-{chance.randrange(6)}") for _ in range(2))
    names = ["plain", 'a "quoted" \\ name', "Größe 大 🙂", "\u2028 and </script>"]
    new = config(
        chance.choice(names),
        max_tokens=chance.randrange(1, 10_000_000),
        token_factor=chance.choice([0, 0.05, 1e-9, chance.random()]),
        enabled=chance.random() < 0.9,
    )
    version = chance.randrange(1, 9)
    kinds: list[Command] = [
        CreateModel(model_id, new),
        UpdateModel(model_id, new),
        DeleteModel(model_id, chance.choice([other, None])),
        RollBackModel(model_id, version, new),
        RestoreModel(model_id, version, new),
        SetDefault(chance.choice([model_id, model_id, None])),
    ]
    return chance.choice(kinds)


# Events that are not.


def flipped(column: str) -> str:
    """SQL: the text with another first letter."""
    return f"overlay({column} PLACING '~' FROM 1 FOR 1)"


def flipped_json(column: str) -> str:
    """SQL: the document with another first letter in its first text."""
    return f"""overlay({column}::text PLACING '~' FROM position('":"' IN {column}::text) + 3 FOR 1)::json"""


def flipped_bytes(column: str) -> str:
    """SQL: the bytes with one other bit."""
    return f"set_byte({column}, 7, get_byte({column}, 7) # 1)"


FLIPS = {
    "position": "position # (1 << 20)",
    "event_id": "overlay(event_id::text PLACING 'f' FROM 1 FOR 1)::uuid",
    "stream": flipped("stream"),
    "version": "version # (1 << 20)",
    "type": flipped("type"),
    "schema_version": "schema_version # 64",
    "body": flipped_json("body"),
    "body_salt": flipped_bytes("body_salt"),
    "body_digest": flipped_bytes("body_digest"),
    "actor": flipped("actor"),
    "actor_name": flipped("actor_name"),
    "reason": flipped("reason"),
    "meta": flipped_json("meta"),
    "recorded_at": "recorded_at + interval '1 microsecond'",
    "prev_hash": flipped_bytes("prev_hash"),
    "hash": flipped_bytes("hash"),
}
"""One byte, or one bit, of each column."""


async def test_the_flips_are_of_every_column(intruder: Connection) -> None:
    columns = await intruder.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'event'"
    )
    assert {column for (column,) in columns} == set(FLIPS)


@pytest.mark.parametrize("position", [1, 7, EVENTS])
@pytest.mark.parametrize("column", FLIPS)
async def test_a_flipped_byte_is_found_where_it_is(column: str, position: int, intruder: Connection) -> None:
    place = await intruder.fetchrow("SELECT stream, version FROM event WHERE position = $1", position)
    await alter(intruder, f"UPDATE event SET {column} = {FLIPS[column]} WHERE position = $1", position)
    verdict = await verify.verify(intruder)
    assert (verdict.ok, verdict.position_of_first_bad, verdict.events) == (False, position, position - 1)
    [failure] = verdict.failures
    assert place is not None
    if column not in {"position", "stream", "version"}:
        assert failure.subject == f"{place['stream']} version {place['version']}"


@pytest.mark.parametrize(
    ("statement", "detail"),
    [
        ("UPDATE event SET body_salt = NULL, body = NULL, reason = NULL, actor_name = NULL", "body_digest"),
        ("UPDATE event SET reason = NULL", "body_digest"),
        ("UPDATE event SET body = (body::text || ' ')::json", "body_digest"),
        ("UPDATE event SET recorded_at = 'infinity'", "recorded_at"),
        ("UPDATE event SET recorded_at = '-infinity'", "recorded_at"),
        ("DELETE FROM event", "position 7 is missing"),
    ],
)
async def test_what_differs_is_told(statement: str, detail: str, intruder: Connection) -> None:
    await alter(intruder, f"{statement} WHERE position = 7")
    verdict = await verify.verify(intruder)
    assert verdict.position_of_first_bad == 7
    assert detail in verdict.failures[0].detail
    assert verdict.lines()[0] == "NOT VERIFIED: position 7 is the first bad one."
    assert verdict.lines()[1].startswith("position 7, ")


async def test_swapped_events_are_found_at_the_first_of_them(intruder: Connection) -> None:
    for old, new in ((5, 100), (8, 5), (100, 8)):
        await alter(intruder, "UPDATE event SET position = $2 WHERE position = $1", old, new)
    assert (await verify.verify(intruder)).position_of_first_bad == 5


async def test_a_tail_that_was_cut_off_is_missing(intruder: Connection) -> None:
    await intruder.execute("DELETE FROM event WHERE position > $1", EVENTS - 3)
    verdict = await verify.verify(intruder)
    assert verdict.position_of_first_bad == EVENTS - 2
    assert verdict.events == EVENTS - 3
    assert f"the ledger's head is at {EVENTS}" in verdict.failures[0].detail


async def test_all_events_gone_are_missed(intruder: Connection) -> None:
    await intruder.execute("TRUNCATE event")
    assert (await verify.verify(intruder)).position_of_first_bad == 1


INSERT = """
    INSERT INTO event SELECT $1, gen_random_uuid(), stream || '-2', 1, type, schema_version, body, body_salt,
        body_digest, actor, actor_name, reason, meta, recorded_at, hash, sha256(hash)
    FROM event WHERE position = $2
"""


@pytest.mark.parametrize("position", [-3, 0, EVENTS + 1, EVENTS + 7])
async def test_an_inserted_event_is_found(position: int, intruder: Connection) -> None:
    if position < 1:
        await intruder.execute("ALTER TABLE event DROP CONSTRAINT event_position_check")
    await alter(intruder, INSERT, position, EVENTS)
    verdict = await verify.verify(intruder)
    assert verdict.position_of_first_bad == min(position, EVENTS + 1)
    wanted = f"position {position} is before the first one" if position < 1 else ""
    assert wanted in verdict.failures[0].detail


async def test_an_event_that_fits_but_went_past_the_append_is_found(intruder: Connection) -> None:
    before = await intruder.fetch("SELECT position, hash, recorded_at FROM ledger_head")
    await intruder.execute(APPEND, "model.updated", 1)
    assert (await verify.verify(intruder)).events == EVENTS + 1
    await alter(intruder, "UPDATE ledger_head SET position = $1, hash = $2, recorded_at = $3", *before[0])
    verdict = await verify.verify(intruder)
    assert verdict.position_of_first_bad == EVENTS + 1
    assert "beyond the ledger's head" in verdict.failures[0].detail


REHASH = (
    """
    UPDATE event SET body_digest = sha256(ledger_field(body_salt)
        || ledger_field(convert_to(body::text, 'UTF8')) || ledger_field(convert_to(reason, 'UTF8'))
        || ledger_field(convert_to(actor_name, 'UTF8')))
    WHERE position = $1
    """,
    """
    UPDATE event SET hash = sha256(ledger_field('model-ledger/sha256/1'::bytea) || ledger_field(prev_hash)
        || ledger_field(int8send(position)) || ledger_field(uuid_send(event_id))
        || ledger_field(convert_to(stream, 'UTF8')) || ledger_field(int4send(version))
        || ledger_field(convert_to(type, 'UTF8')) || ledger_field(int2send(schema_version))
        || ledger_field(body_digest) || ledger_field(convert_to(actor, 'UTF8'))
        || ledger_field(convert_to(meta::text, 'UTF8'))
        || ledger_field(int8send((extract(epoch FROM recorded_at) * 1000000)::bigint)))
    WHERE position = $1
    """,
)
MOVE_HEAD = """
    UPDATE ledger_head SET (position, hash, recorded_at) = (
        SELECT position, hash, recorded_at FROM event ORDER BY position DESC LIMIT 1)
"""


async def rehash(intruder: Connection, position: int) -> None:
    """What a forger does who knows the chain: make an altered event's own digests right."""
    for statement in REHASH:
        await alter(intruder, statement, position)


@pytest.mark.parametrize("column", ["event_id", "type", "schema_version", "body", "actor", "reason", "meta"])
async def test_a_forged_event_is_found_at_the_one_after_it(column: str, intruder: Connection) -> None:
    await alter(intruder, f"UPDATE event SET {column} = {FLIPS[column]} WHERE position = 7")
    await rehash(intruder, 7)
    verdict = await verify.verify(intruder)
    assert verdict.position_of_first_bad == 8
    assert "prev_hash" in verdict.failures[0].detail


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ("version = version + 1", "its version does not follow on version"),
        ("version = 1, stream = 'model/gpt-5'", "its version does not follow on version 2"),
        ("recorded_at = recorded_at - interval '1 hour'", "recorded_at"),
    ],
)
async def test_a_forged_end_still_has_to_follow(change: str, detail: str, intruder: Connection) -> None:
    await intruder.execute("ALTER TABLE event DROP CONSTRAINT event_stream_version")
    await alter(intruder, f"UPDATE event SET {change} WHERE position = $1", EVENTS)
    await rehash(intruder, EVENTS)
    await alter(intruder, MOVE_HEAD)
    verdict = await verify.verify(intruder)
    assert verdict.position_of_first_bad == EVENTS
    assert detail in verdict.failures[0].detail


async def test_a_history_that_is_rewritten_to_its_end_verifies_with_another_hash(
    intruder: Connection,
) -> None:
    """Only a hash that was noted elsewhere tells; the documentation says so."""
    before = await verify.verify(intruder)
    await alter(intruder, "UPDATE event SET reason = 'forged' WHERE position = $1", EVENTS)
    await rehash(intruder, EVENTS)
    await alter(intruder, MOVE_HEAD)
    after = await verify.verify(intruder)
    assert after.ok
    assert after.hash != before.hash


@pytest.mark.parametrize(
    ("statement", "position"),
    [
        ("UPDATE ledger_head SET hash = sha256(hash)", EVENTS),
        ("UPDATE ledger_head SET recorded_at = recorded_at + interval '1 second'", EVENTS),
        ("UPDATE ledger_head SET position = position + 1", EVENTS + 1),
        ("UPDATE ledger_head SET position = position - 1", EVENTS),
        ("DELETE FROM ledger_head", None),
    ],
)
async def test_a_head_that_is_not_the_last_event_is_found(
    statement: str, position: int | None, intruder: Connection
) -> None:
    await alter(intruder, statement)
    verdict = await verify.verify(intruder)
    assert (verdict.ok, verdict.position_of_first_bad) == (False, position)


# Events of a newer release.

APPEND = """
    SELECT outcome FROM ledger_append(ARRAY[gen_random_uuid()], ARRAY['model/gpt-4'],
        ARRAY[(SELECT version + 1 FROM model WHERE id = 'gpt-4')], ARRAY[$1::text], ARRAY[$2::smallint],
        ARRAY['{"config":{"name":"new"}}'], ARRAY[sha256('salt')], 'user:eve', 'Eve', NULL,
        '{"actor_kind":"person"}', '{}', '{}', ARRAY['gpt-4'], ARRAY['{"name":"new"}'], ARRAY[false],
        NULL, NULL, NULL, NULL, '{}')
"""


@pytest.mark.parametrize(("kind", "schema_version"), [("model.tagged", 1), ("model.updated", 2)])
async def test_an_event_that_cannot_be_read_is_noted_and_its_row_left_alone(
    kind: str, schema_version: int, intruder: Connection
) -> None:
    await intruder.execute(APPEND, kind, schema_version)
    before = await intruder.fetch(SELECT_MODELS)
    verdict = await verify.verify(intruder)
    assert (verdict.ok, verdict.events) == (True, EVENTS + 1)
    assert [note for note in verdict.notes if kind in note and f"schema version {schema_version}" in note]
    assert [note for note in verdict.notes if "model gpt-4 was not compared" in note]
    assert verdict.lines()[1].startswith("Note: 1 events of model.")
    assert await rebuild(intruder) == Rebuilt(models=3, changed=0)
    assert await intruder.fetch(SELECT_MODELS) == before


async def test_an_event_that_cannot_be_read_is_in_the_chain_all_the_same(intruder: Connection) -> None:
    await intruder.execute(APPEND, "model.tagged", 1)
    await alter(intruder, "UPDATE event SET actor = 'user:ada' WHERE type = 'model.tagged'")
    assert (await verify.verify(intruder)).position_of_first_bad == EVENTS + 1


async def test_the_rebuild_knows_the_events_of_this_release(owner: Connection) -> None:
    function = await owner.fetchval("SELECT pg_get_functiondef('ledger_rebuild'::regproc)")
    assert [kind for kind in codec.EVENTS if f"'{kind}'" not in function] == []
    assert set(codec.SCHEMA_VERSIONS.values()) == {1}, "a new one needs a new `ledger_rebuild` in a migration"


# The projection.

DAMAGES = {
    "model gpt-4": [
        """UPDATE model SET config = (config::text || ' ')::json WHERE id = 'gpt-4'""",
        "UPDATE model SET deleted = NOT deleted WHERE id = 'gpt-4'",
        "UPDATE model SET version = version - 1 WHERE id = 'gpt-4'",
        "UPDATE model SET position = position - 1 WHERE id = 'gpt-4'",
        "UPDATE model SET updated_at = updated_at + interval '1 microsecond' WHERE id = 'gpt-4'",
        "UPDATE model SET updated_at = 'infinity' WHERE id = 'gpt-4'",
        "UPDATE model SET actor = 'user:eve' WHERE id = 'gpt-4'",
        "UPDATE model SET actor_name = NULL WHERE id = 'gpt-4'",
        "UPDATE model SET actor_kind = 'system' WHERE id = 'gpt-4'",
        "DELETE FROM model WHERE id = 'gpt-4'",
    ],
    "model gpt-6": ["INSERT INTO model VALUES ('gpt-6', '{}', true, 1, 1, now(), '', NULL, '')"],
    "default_model": [
        "UPDATE default_model SET model_id = 'gpt-5'",
        "UPDATE default_model SET model_id = NULL",
        "UPDATE default_model SET version = version + 1",
        "UPDATE default_model SET position = position + 1",
        "DELETE FROM default_model",
    ],
}


@pytest.mark.parametrize(
    ("subject", "damage"), [(subject, damage) for subject, damages in DAMAGES.items() for damage in damages]
)
async def test_a_damaged_row_is_found_and_repaired(subject: str, damage: str, intruder: Connection) -> None:
    before = await intruder.fetch(SELECT_MODELS)
    await alter(intruder, damage)
    verdict = await verify.verify(intruder)
    assert (verdict.ok, verdict.position_of_first_bad, verdict.events) == (False, None, EVENTS)
    assert [(failure.position, failure.subject) for failure in verdict.failures] == [(None, subject)]
    assert "chain of 12 events holds" in verdict.lines()[0]
    rebuilt = await rebuild(intruder)
    assert rebuilt == Rebuilt(models=3, changed=1)
    assert str(rebuilt) == "3 models rebuilt from their events: 1 rows put right"
    assert (await verify.verify(intruder)).ok
    assert await intruder.fetch(SELECT_MODELS) == before


async def test_the_columns_that_differ_are_named(intruder: Connection) -> None:
    await alter(intruder, "UPDATE model SET version = 9, actor = 'user:eve' WHERE id = 'gpt-4'")
    [failure] = (await verify.verify(intruder)).failures
    position = await intruder.fetchval("SELECT position FROM model WHERE id = 'gpt-4'")
    detail = f"its row is not as position {position} makes it: version, actor differs"
    assert failure == Failure(None, "model gpt-4", detail)


async def test_a_projection_that_is_lost_comes_back_whole(intruder: Connection) -> None:
    before = await intruder.fetch(SELECT_MODELS)
    default = await intruder.fetch("SELECT * FROM default_model")
    await intruder.execute("DELETE FROM model")
    await intruder.execute("DELETE FROM default_model")
    assert len((await verify.verify(intruder)).failures) == 4
    assert await rebuild(intruder) == Rebuilt(models=3, changed=4)
    assert await intruder.fetch(SELECT_MODELS) == before
    assert await intruder.fetch("SELECT * FROM default_model") == default


async def test_a_default_without_events_is_none(owner: Connection) -> None:
    await alter(owner, "UPDATE default_model SET model_id = 'gpt-4', version = 1")
    assert not (await verify.verify(owner)).ok
    assert await rebuild(owner) == Rebuilt(models=0, changed=1)
    assert (await verify.verify(owner)).ok


# Who else is there.


async def test_the_service_may_verify_and_rebuild(
    recorded: str, app_role: Connection, owner: Connection
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app_role.execute("SELECT 1 FROM ledger_head FOR UPDATE")
    await alter(owner, "DELETE FROM model WHERE id = 'gpt-4'")
    assert not (await verify.verify(app_role)).ok
    assert await rebuild(app_role) == Rebuilt(models=3, changed=1)
    assert (await verify.verify(app_role)).ok


async def test_readers_never_wait_for_a_rebuild_and_see_all_models(
    recorded: str, app_role: Connection, owner: Connection
) -> None:
    await owner.execute("UPDATE model SET version = version + 100")
    await app_role.execute("SET statement_timeout = '2s'")
    async with owner.transaction():
        assert (await rebuild(owner)).changed == 3
        assert [row["version"] > 100 for row in await app_role.fetch(SELECT_MODELS)] == [True] * 3
    assert [row["version"] > 100 for row in await app_role.fetch(SELECT_MODELS)] == [False] * 3


async def test_an_append_waits_for_a_rebuild_and_is_not_lost(
    recorded: str, databases: Databases, owner: Connection, app_role: Connection
) -> None:
    await owner.execute("DELETE FROM model")
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with ledger_of(databases.app_url(recorded)) as ledger:
        async with owner.transaction():
            await rebuild(owner)
            append = asyncio.create_task(ledger.execute(UpdateModel(O_3, config("later")), ADA))
            async with asyncio.timeout(2):
                while not await app_role.fetchval(waiting):
                    assert not append.done()
        assert (await append).position == EVENTS + 1
    assert (await verify.verify(owner)).ok
    assert (await rebuild(owner)).changed == 0


async def test_a_rebuild_waits_for_an_append_and_takes_it_in(
    recorded: str, owner: Connection, app_role: Connection, databases: Databases
) -> None:
    async with connected(databases.app_url(recorded)) as writer:
        async with writer.transaction():
            await writer.execute(APPEND, "model.updated", 1)
            rebuilding = asyncio.create_task(rebuild(owner))
            async with asyncio.timeout(2):
                while not await app_role.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    assert not rebuilding.done()
        assert await rebuilding == Rebuilt(models=3, changed=0)
    assert await owner.fetchval("SELECT version FROM model WHERE id = 'gpt-4'") == 6


async def test_writers_rebuilds_and_verifications_do_not_disturb_each_other(
    recorded: str, databases: Databases, owner: Connection, app_role: Connection
) -> None:
    async with (
        connected(databases.app_url(recorded)) as vandal,
        ledger_of(databases.app_url(recorded)) as ledger,
    ):

        async def write(model_id: ModelId) -> None:
            for number in range(60):
                await ledger.execute(UpdateModel(model_id, config(f"number {number}")), ADA)

        writers = asyncio.gather(write(GPT_4), write(O_3))
        lengths: list[int] = []
        while not writers.done():
            await alter(vandal, "UPDATE default_model SET version = version + 1")
            assert (await rebuild(owner)).changed == 1
            verdict = await verify.verify(owner)
            assert verdict.ok, verdict
            assert await app_role.fetchval("SELECT count(*) FROM model") == 3
            lengths.append(verdict.events)
        await writers
    assert len(set(lengths)) > 3, "they did not run at the same time"
    verdict = await verify.verify(owner)
    assert (verdict.ok, verdict.events) == (True, EVENTS + 120)


async def test_workers_take_over_what_a_rebuild_put_right(
    recorded: str, databases: Databases, owner: Connection
) -> None:
    await alter(owner, "DELETE FROM model WHERE id = 'gpt-4'")
    follower = Follower(Database(databases.app_url(recorded)), [])
    running = asyncio.create_task(follower.run())
    try:
        await follower.started()
        assert follower.live is not None
        assert GPT_4 not in follower.live.models
        await rebuild(owner)
        await wait_until(lambda: follower.live is not None and GPT_4 in follower.live.models, within=10)
    finally:
        running.cancel()


async def test_a_rebuild_that_changes_nothing_leaves_workers_alone(intruder: Connection) -> None:
    epoch = await intruder.fetchval("SELECT epoch FROM ledger_head")
    await rebuild(intruder)
    assert await intruder.fetchval("SELECT epoch FROM ledger_head") == epoch
    await intruder.execute("DELETE FROM model")
    await rebuild(intruder)
    assert await intruder.fetchval("SELECT epoch FROM ledger_head") != epoch


async def test_many_failures_are_printed_in_few_lines() -> None:
    failures = [Failure(None, f"model {number}", "its row has no events") for number in range(1_000)]
    lines = structs.replace(sound(5, "00" * 32), ok=False, failures=failures).lines()
    assert len(lines) == 22
    assert lines[-1] == "... and 980 more"
