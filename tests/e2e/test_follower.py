"""The follower on a real PostgreSQL: whatever happens to the link, it ends at exactly what was committed."""

import asyncio
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from os import kill
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from chaos_proxy import ChaosProxy
from ledgers import Book, config, context, key, opened, postmaster, recorded
from service import Databases
from upstream import wait_until

from application.ports import Append, LiveModel, Receipt
from domain.catalog import Change, Event
from domain.default import DefaultChanged
from domain.errors import LedgerError, StoreUnavailable
from domain.model import CreateModel, ModelCreated, ModelDeleted, ModelUpdated, RestoreModel, UpdateModel
from domain.values import ModelId, Stream, model_of, model_stream
from infrastructure import codec
from infrastructure.access_tokens import AccessTokens, ensure_administrator
from infrastructure.codec import Stored, UnreadableEvent
from infrastructure.database import Database
from infrastructure.embedded import EmbeddedPostgres
from infrastructure.event_store import APPEND, _arguments
from infrastructure.follower import LONGEST_BACKOFF, Follower, Reader, pause
from infrastructure.live import Live
from infrastructure.verify import verify


@pytest.fixture
async def book(databases: Databases, database: str) -> AsyncIterator[Book]:
    """Whoever changes the ledger; it logs in as the owner, so that faults can aim at followers alone."""
    async with opened(databases.owner_url(database)) as book:
        yield book


@pytest.fixture
def proxy(databases: Databases, database: str) -> Iterator[ChaosProxy]:
    with ChaosProxy(databases.app_url(database)) as proxy:
        yield proxy


@pytest.fixture
def place(databases: Databases, database: str) -> Database:
    return Database(databases.app_url(database))


class Watched:
    """A follower that runs, and every state that it published."""

    def __init__(self, place: Database, readers: Sequence[Reader] = ()) -> None:
        self.follower = Follower(place, [self._note], readers)
        self.published: list[Live] = []
        self.bugs = 0
        """How many of the next states the subscriber cannot stand."""

    async def _note(self, live: Live) -> None:
        if self.bugs:
            self.bugs -= 1
            raise RuntimeError("a bug in a subscriber")
        self.published.append(live)

    @property
    def live(self) -> Live:
        assert self.follower.live is not None
        return self.follower.live

    async def reaches(self, owner: asyncpg.Connection, *, within: float = 5) -> None:
        """Wait until it is where the ledger is, and check that it is exactly there."""
        wanted = await truth(owner)
        await wait_until(lambda: self.follower.position == wanted.position, within=within)
        assert self.live == wanted


@asynccontextmanager
async def following(place: Database, readers: Sequence[Reader] = ()) -> AsyncIterator[Watched]:
    watched = Watched(place, readers)
    task = asyncio.create_task(watched.follower.run())
    try:
        await asyncio.wait_for(watched.follower.started(), 10)
        yield watched
        assert not task.done(), "the follower ended"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def truth(owner: asyncpg.Connection) -> Live:
    """All events folded one after the other, by code that shares nothing with the follower."""
    async with owner.transaction(isolation="repeatable_read"):
        head = await owner.fetchrow("SELECT epoch::text, position, hash FROM ledger_head")
        events = await recorded(owner)
    assert head is not None
    models: dict[ModelId, LiveModel] = {}
    frozen: set[str] = set()
    default = None
    for row in events:
        try:
            event = codec.decode(Stored(row["type"], row["schema_version"], row["body"]))
        except UnreadableEvent:
            frozen.add(row["stream"])
            continue
        frozen.discard(row["stream"])
        model_id = model_of(row["stream"])
        if isinstance(event, DefaultChanged):
            default = event.model_id
        elif isinstance(event, ModelDeleted):
            models.pop(ModelId(str(model_id)), None)
        elif model_id is not None:
            at = row["recorded_at"]
            models[model_id] = LiveModel(model_id, event.config, row["version"], row["position"], at)
    return Live(head["epoch"], head["position"], head["hash"], models, default, frozenset(frozen))


async def bulk(book: Book, count: int) -> None:
    """Many new models in one append."""
    changes = [
        Change(model_stream(ModelId(f"bulk-{uuid.uuid4().hex}")), ModelCreated(config()))
        for _ in range(count)
    ]
    expected = {change.stream: 0 for change in changes}
    receipt = Receipt("created", None, 1, 0, "")
    await book.store.append(Append(changes, expected, context(), receipt, None))


async def write_at_random(book: Book, dice: random.Random, count: int) -> None:
    """Changes that a person could make, to a few models."""
    for _ in range(count):
        model_id = f"m{dice.randrange(6)}"
        with suppress(LedgerError):
            match dice.randrange(6):
                case 0 | 1:
                    await book.update(model_id, max_tokens=dice.randrange(1, 1_000_000))
                case 2:
                    await book.create(model_id, enabled=dice.random() < 0.8)
                case 3:
                    await book.delete(model_id, new_default=f"m{dice.randrange(6)}")
                case 4:
                    await book.set_default(dice.choice([model_id, None]))
                case _:
                    restored = config(name="Restored", max_tokens=dice.randrange(1, 1_000_000))
                    await book.do(RestoreModel(ModelId(model_id), 1, restored))


async def from_the_future(
    owner: asyncpg.Connection,
    stream: str,
    kind: str = "model.renamed",
    body: str = '{"name":"new"}',
    schema_version: int = 9,
) -> None:
    """An event that a newer release has recorded."""
    version = await owner.fetchval(
        "SELECT coalesce(max(version), 0) + 1 FROM event WHERE stream = $1", stream
    )
    model_id = model_of(stream)
    change = Change(model_stream(ModelId("x")), ModelCreated(config()))
    append = Append([change], {change.stream: 0}, context(), Receipt("created", "x", 1, 0, ""), None)
    arguments = _arguments(append)
    arguments[1:6] = [[stream], [version], [kind], [schema_version], [body]]
    arguments[11:16] = [[], [], [model_id or "x"], ['{"of":"another shape"}'], [model_id is None]]
    row = await owner.fetchrow(APPEND, *arguments)
    assert row is not None
    assert row["outcome"] == "appended"


async def known_again(book: Book, owner: asyncpg.Connection, stream: str, event: Event) -> None:
    """What a release records that knows the stream's newest event."""
    version = await owner.fetchval("SELECT max(version) FROM event WHERE stream = $1", stream)
    receipt = Receipt("updated", None, version + 1, 0, "")
    append = Append([Change(Stream(stream), event)], {Stream(stream): version}, context(), receipt, None)
    await book.store.append(append)


# Where nothing goes wrong.


async def test_a_start_takes_a_snapshot_and_then_every_change_in_order(
    book: Book, place: Database, owner: asyncpg.Connection
) -> None:
    await book.create("a")
    await book.create("b")
    await book.delete("b")
    async with following(place) as watched:
        assert watched.live == await truth(owner)
        assert list(watched.live.models) == ["a"]
        for n in range(5):
            receipt = await book.update("a", max_tokens=n + 1)
            await wait_until(lambda at=receipt.position: watched.follower.position >= at, within=5)
            assert watched.live.models[ModelId("a")].config.max_tokens == n + 1
        await book.set_default(None)
        await book.delete("a")
        await watched.reaches(owner)
        assert not watched.live.models
        positions = [live.position for live in watched.published]
        assert positions == sorted(set(positions))
        assert watched.follower.mode == "listening"
        assert watched.follower.connected


async def test_thousands_of_events_at_once_are_caught_up_with(
    book: Book, place: Database, owner: asyncpg.Connection
) -> None:
    async with following(place) as watched:
        await bulk(book, 3_500)
        await watched.reaches(owner, within=10)
        assert watched.live.position == 3_500
        assert [live.position for live in watched.published] == [0, 1_000, 2_000, 3_000, 3_500]


async def test_a_change_is_known_at_once(book: Book, place: Database) -> None:
    await book.create("a")
    async with following(place) as watched:
        times = []
        for n in range(30):
            receipt = await book.update("a", max_tokens=n + 1)
            committed = time.monotonic()
            await wait_until(lambda at=receipt.position: watched.follower.position >= at, within=5)
            times.append(time.monotonic() - committed)
        assert sorted(times)[len(times) // 2] < 0.1, "notifications come, nobody waits for the next poll"


async def test_followers_that_start_under_load_end_at_the_committed_state(
    book: Book, place: Database, owner: asyncpg.Connection, dice: random.Random
) -> None:
    writing = [asyncio.create_task(write_at_random(book, dice, 40)) for _ in range(4)]
    for _ in range(8):
        async with following(place) as watched:
            await asyncio.sleep(0)
        assert [live.position for live in watched.published] == sorted(
            {live.position for live in watched.published}
        )
    async with following(place) as watched:
        await asyncio.gather(*writing)
        await watched.reaches(owner)
        states = {live.position: live for live in watched.published}
    assert len(states) == len(watched.published)
    await compare_with_past(owner, states)


async def compare_with_past(owner: asyncpg.Connection, states: dict[int, Live]) -> None:
    """Every published state is the one that the events before it come to."""
    models: dict[str, int] = {}
    for row in await recorded(owner):
        model_id = model_of(row["stream"])
        if row["type"] == "model.deleted":
            del models[str(model_id)]
        elif model_id is not None:
            models[model_id] = row["version"]
        if live := states.get(row["position"]):
            assert {name: model.version for name, model in live.models.items()} == models


# Fold, increments and snapshot.


@pytest.mark.parametrize(
    "rounds", [pytest.param(6, id="short"), pytest.param(300, id="long", marks=pytest.mark.long)]
)
async def test_fold_increments_and_snapshot_come_to_the_same(
    book: Book, place: Database, owner: asyncpg.Connection, dice: random.Random, rounds: int
) -> None:
    async with following(place) as watched:
        for _ in range(rounds):
            await write_at_random(book, dice, 12)
            if dice.random() < 0.5:
                await from_the_future(owner, dice.choice(["model/m0", "model/m1", "default", "credential/x"]))
            await watched.reaches(owner)
            wanted = await truth(owner)
            async with following(place) as anew:
                # What is no model's and not the default's leaves nothing that a snapshot would look for.
                assert msgspec.structs.replace(anew.live, frozen=wanted.frozen) == wanted
                assert anew.live.frozen == wanted.frozen - {"credential/x"}
            for stream in sorted(wanted.frozen - {"credential/x"}):
                thawing = DefaultChanged(None) if stream == "default" else ModelCreated(config())
                await known_again(book, owner, stream, thawing)
    assert len(await recorded(owner)) > rounds * 3


async def test_a_model_from_a_newer_release_stays_as_it_was_and_the_others_go_on(
    book: Book, place: Database, owner: asyncpg.Connection
) -> None:
    await book.create("a", max_tokens=1)
    await book.create("b", max_tokens=1)
    async with following(place) as watched:
        await from_the_future(owner, "model/a")
        await from_the_future(owner, "model/new", kind="future.created")
        await from_the_future(
            owner, "model/broken", kind="model.created", body='["no object"]', schema_version=1
        )
        await book.update("b", max_tokens=2)
        await watched.reaches(owner)
        assert watched.live.frozen == {"model/a", "model/new", "model/broken"}
        assert {name: model.config.max_tokens for name, model in watched.live.models.items()} == {
            "a": 1,
            "b": 2,
        }

        async with following(place) as anew:
            assert anew.live == watched.live

        # A release that knows it again puts it right.
        await known_again(book, owner, "model/a", ModelUpdated(config(max_tokens=3)))
        await watched.reaches(owner)
        assert watched.live.frozen == {"model/new", "model/broken"}
        assert watched.live.models[ModelId("a")].config.max_tokens == 3


async def test_a_default_from_a_newer_release_thaws_with_the_next_one(
    book: Book, place: Database, owner: asyncpg.Connection
) -> None:
    await book.create("a")
    await book.create("b")
    async with following(place) as watched:
        await from_the_future(owner, "default", kind="default.split")
        await watched.reaches(owner)
        assert (watched.live.default, watched.live.frozen) == ("a", {"default"})
        await known_again(book, owner, "default", DefaultChanged(ModelId("b")))
        await watched.reaches(owner)
        assert (watched.live.default, watched.live.frozen) == ("b", frozenset())


# Links that fail.


async def test_a_connection_that_is_ended_under_load_loses_nothing(
    book: Book, place: Database, owner: asyncpg.Connection, dice: random.Random
) -> None:
    async with following(place) as watched:
        kills = 0
        while kills < 4:
            writing = asyncio.create_task(write_at_random(book, dice, 20))
            kills += await owner.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND usename = 'model_ledger_app'"
            )
            await writing
        await watched.reaches(owner)
        positions = [live.position for live in watched.published]
        assert positions == sorted(set(positions)), "nothing twice, nothing out of order"
        await compare_with_past(owner, {live.position: live for live in watched.published})


async def test_connections_that_break_at_any_byte_lose_nothing(
    book: Book, proxy: ChaosProxy, owner: asyncpg.Connection, dice: random.Random
) -> None:
    async with following(Database(proxy.url)) as watched:
        for n in range(15):
            proxy.cut_after(dice.randrange(1, 1_500))
            await book.create(f"m{n}")
            await watched.reaches(owner)
        assert proxy.accepted > 4


async def test_a_link_that_goes_silent_is_noticed_within_5_seconds(
    book: Book, proxy: ChaosProxy, owner: asyncpg.Connection
) -> None:
    await book.create("a")
    async with following(Database(proxy.url)) as watched:
        assert watched.follower.mode == "listening"
        proxy.black_hole(existing_only=True)
        await book.update("a", max_tokens=1)
        await watched.reaches(owner, within=5)
        await wait_until(lambda: watched.follower.connected, within=1)
        assert proxy.accepted > 1


async def test_a_database_that_is_away_is_waited_for(
    book: Book, proxy: ChaosProxy, owner: asyncpg.Connection
) -> None:
    await book.create("a")
    async with following(Database(proxy.url)) as watched:
        before = watched.live
        proxy.black_hole()
        await wait_until(lambda: not watched.follower.connected, within=5)
        await book.update("a", max_tokens=1)
        assert watched.live == before, "what is known goes on being served"
        proxy.heal()
        await watched.reaches(owner, within=5)


async def test_lost_notifications_cost_a_second_and_nothing_else(
    book: Book, proxy: ChaosProxy, owner: asyncpg.Connection
) -> None:
    await book.create("a")
    async with following(Database(proxy.url)) as watched:
        proxy.swallow_notifications()
        for n in range(2):
            await book.update("a", max_tokens=n + 1)
            await watched.reaches(owner, within=2)
        assert watched.follower.mode == "listening"
        assert proxy.accepted == 1


async def test_where_listening_is_in_vain_it_polls_and_says_so(
    book: Book, proxy: ChaosProxy, owner: asyncpg.Connection
) -> None:
    proxy.swallow_notifications()
    async with following(Database(proxy.url)) as watched:
        for n in range(2):
            await book.create(f"m{n}")
            await watched.reaches(owner, within=2)
        assert watched.follower.mode == "polling"
        assert watched.follower.connected


def test_no_outage_is_long_enough_to_end_the_tries() -> None:
    assert all(0.05 <= pause(failures) <= LONGEST_BACKOFF for failures in (1, 2, 7, 1_030, 10**9))


async def test_a_bug_in_a_subscriber_is_told_and_does_not_end_the_following(
    book: Book, place: Database, owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(place) as watched:
        watched.bugs = 2
        await book.create("a")
        await watched.reaches(owner)
        assert watched.bugs == 0
        assert sum("a bug in a subscriber" in str(record.exc_info) for record in caplog.records) == 2


async def test_a_token_that_is_revoked_is_refused_within_a_second_or_so(
    place: Database, owner: asyncpg.Connection
) -> None:
    token = await ensure_administrator(owner, None)
    assert token is not None
    tokens = AccessTokens()
    async with following(place, [tokens.read]):
        assert tokens.authenticate(token)
        await owner.execute("DELETE FROM access_token")
        await wait_until(lambda: not tokens.authenticate(token), within=2)


# Another history.


async def test_another_epoch_makes_it_read_anew(
    book: Book, place: Database, owner: asyncpg.Connection
) -> None:
    await book.create("a")
    async with following(place) as watched:
        before = watched.live
        await owner.execute("UPDATE ledger_head SET epoch = gen_random_uuid()")
        await wait_until(lambda: watched.live.epoch != before.epoch, within=5)
        assert watched.live == await truth(owner)


@pytest.mark.parametrize("after", [0, 2, 5], ids=["shorter", "of the same length", "longer"])
async def test_a_restored_backup_is_read_anew(databases: Databases, after: int) -> None:
    """The follower has seen three changes after the backup, and then finds it in the place of its ledger."""
    server = await asyncpg.connect(databases.server.owner_url)
    with databases.made() as name:
        url = databases.owner_url(name)
        async with opened(url) as book:
            await book.create("a", max_tokens=1)
        await server.execute(f"CREATE DATABASE {name}_backup TEMPLATE {name}")
        try:
            async with following(Database(databases.app_url(name))) as watched:
                async with opened(url) as book:
                    await book.update("a", max_tokens=2)
                    await book.create("lost")
                    await wait_until(lambda: watched.follower.position == 4, within=5)
                await put_in_place(server, name)
                async with opened(url) as book:
                    for n in range(after):
                        await book.create(f"new-{n}")
                owner = await asyncpg.connect(url)
                await wait_until(lambda: ModelId("lost") not in watched.live.models, within=8)
                await watched.reaches(owner)
                assert watched.live.position == 2 + after
                await owner.close()
        finally:
            await server.execute(f"DROP DATABASE IF EXISTS {name}_backup WITH (FORCE)")
            await server.execute(f"DROP DATABASE IF EXISTS {name}_lost WITH (FORCE)")
            await server.close()


async def put_in_place(server: asyncpg.Connection, name: str) -> None:
    """Rename the backup to the ledger's own name; nobody may be connected meanwhile."""
    await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name
    )
    await server.execute(f"ALTER DATABASE {name} RENAME TO {name}_lost")
    await server.execute(f"ALTER DATABASE {name}_backup RENAME TO {name}")


# The server dies.


async def test_a_server_that_is_killed_under_load_loses_and_doubles_nothing(
    own_server: tuple[EmbeddedPostgres, Path], dice: random.Random
) -> None:
    server, root = own_server
    await Database.prepare(server.app_url, server.owner_url)
    done: dict[str, Receipt] = {}
    async with opened(server.app_url) as book, following(Database(server.app_url)) as watched:
        writing = [asyncio.create_task(insist(book, done, f"w{n}", 40)) for n in range(4)]
        for kills in range(2):
            wanted = (kills + 1) * 40
            await wait_until(lambda wanted=wanted: len(done) >= wanted, within=30)
            kill(postmaster(root), signal.SIGKILL)
        await asyncio.wait_for(asyncio.gather(*writing), 60)
        owner = await asyncpg.connect(server.owner_url)
        await watched.reaches(owner, within=10)
        await compare_with_past(owner, {live.position: live for live in watched.published})
        events = {row["position"]: row for row in await recorded(owner)}
        changed = [receipt for receipt in done.values() if receipt.status != "unchanged"]
        assert len({receipt.position for receipt in changed}) == len(changed) == len(events) - 1
        verdict = await verify(owner)
        assert verdict.ok, str(verdict)
        await owner.close()


async def insist(book: Book, done: dict[str, Receipt], model_id: str, count: int) -> None:
    """Make changes one after the other, each repeated under its key until it is answered."""
    commands: list[Any] = [CreateModel(ModelId(model_id), config(max_tokens=1))]
    commands += [UpdateModel(ModelId(model_id), config(max_tokens=n + 2)) for n in range(count - 1)]
    for n, command in enumerate(commands):
        name = f"{model_id}-{n}"
        while name not in done:
            try:
                done[name] = await book.do(command, idempotency=key(name))
            except StoreUnavailable:
                await asyncio.sleep(0.02)
