"""Names and fallbacks in the database: what holds whatever races, and what holds for ledgers of any age."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest
from advanced_alchemy.alembic.commands import AlembicCommands
from ledgers import Book, State, config, context, empty_database, opened, recorded, replay
from service import Databases
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from application.ports import Append, Receipt
from domain.catalog import Change
from domain.errors import InvalidInput, LedgerError
from domain.links import Links
from domain.model import ModelCreated, ModelUpdated, RestoreModel, RollBackModel
from domain.values import ModelId, model_stream
from infrastructure.database import DRIVER, Database, alchemy
from infrastructure.rebuild import Rebuilt, rebuild
from infrastructure.verify import verify

IDS = ["a", "b", "c", "d", "e"]
NAMES = [*IDS, "x", "team/y", "z:1"]


@pytest.fixture
async def book(databases: Databases, database: str) -> AsyncIterator[Book]:
    async with opened(databases.app_url(database)) as book:
        yield book


async def links(book: Book) -> dict[ModelId, Links]:
    return dict((await book.store.look([model_stream(ModelId("a"))])).seen.links)


# Races


async def test_after_every_append_all_names_differ_and_nothing_falls_back_to_itself(
    databases: Databases, database: str, owner: asyncpg.Connection, dice: random.Random
) -> None:
    outcomes: Counter[str] = Counter()
    async with opened(databases.app_url(database)) as one, opened(databases.app_url(database)) as two:
        await asyncio.gather(*(write(book, dice, outcomes) for book in (one, two) for _ in range(6)))
    events = await recorded(owner)
    for _, state in replay(events):
        check(state)
    for outcome in ("accepted", "name_taken", "unknown_model", "fallback_loop"):
        assert outcomes[outcome], outcomes
    verdict = await verify(owner)
    assert verdict.ok, str(verdict)
    assert (await rebuild(owner)).changed == 0


async def write(book: Book, dice: random.Random, outcomes: Counter[str]) -> None:
    """Change models at random, and count what became of it."""
    for _ in range(40):
        model_id = ModelId(dice.choice(IDS))
        wanted = {
            "aliases": tuple(dice.sample(NAMES, dice.randrange(3))),
            "fallbacks": tuple(dice.sample(IDS, dice.randrange(3))),
        }
        kind = dice.choice(["create", "update", "update", "delete", "restore", "roll back"])
        try:
            match kind:
                case "create":
                    await book.create(model_id, **wanted)
                case "update":
                    await book.update(model_id, **wanted)
                case "delete":
                    await book.delete(model_id, dice.choice(IDS))
                case "restore":
                    await book.do(RestoreModel(model_id, 1, config(**wanted)))
                case _:
                    await book.do(RollBackModel(model_id, 1, config(**wanted)))
            outcomes["accepted"] += 1
        except InvalidInput as refused:
            outcomes.update({problem.code for problem in refused.problems})
        except LedgerError as refused:
            outcomes[type(refused).__name__] += 1


def check(state: State) -> None:
    names = [*state.live, *(alias for each in state.live.values() for alias in each.aliases or ())]
    assert len(names) == len({*names}), names
    for model_id in state.live:
        reached: set[str] = set()
        ahead = [model_id]
        while ahead:
            here = state.live.get(ahead.pop())
            new = {*((here and here.fallbacks) or ())} - reached
            reached |= new
            ahead += new
        assert model_id not in reached


async def test_of_two_who_take_one_name_behind_each_others_back_the_later_is_told_the_reason(
    databases: Databases, database: str
) -> None:
    async with opened(databases.app_url(database)) as one, opened(databases.app_url(database)) as two:
        await one.create("first")
        for number in range(10):
            aliases = (f"x{number}",)
            claims = [one.create(f"a{number}", aliases=aliases), two.create(f"b{number}", aliases=aliases)]
            outcomes = await asyncio.gather(*claims, return_exceptions=True)
            (refused,) = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            assert isinstance(refused, InvalidInput)
            assert [problem.code for problem in refused.problems] == ["name_taken"]


# The projection


async def test_a_rebuild_puts_names_right_in_whatever_order_its_rows_come(
    book: Book, owner: asyncpg.Connection
) -> None:
    await book.create("a", aliases=("x",), fallbacks=())
    await book.create("b", aliases=("y",))
    await book.create("c", aliases=("z",), fallbacks=("a",))
    before = await links(book)
    # Each row as if the next one's names and fallbacks were its own.
    await owner.execute(
        "UPDATE model m SET config = o.config FROM model o "
        "WHERE (m.id, o.id) IN (('a', 'b'), ('b', 'c'), ('c', 'a'))"
    )
    assert (await links(book)).keys() == before.keys()
    assert await links(book) != before
    assert not (await verify(owner)).ok
    assert await rebuild(owner) == Rebuilt(models=3, changed=3)
    assert await links(book) == before
    assert (await verify(owner)).ok


async def test_a_ledger_that_breaks_the_rules_verifies_and_rebuilds_and_can_be_put_right(
    book: Book, owner: asyncpg.Connection
) -> None:
    await book.create("a", aliases=("x",), fallbacks=())
    await book.create("b")
    await owner.execute("ALTER TABLE model DISABLE TRIGGER model_links_checked")
    for model_id, other in (("a", "b"), ("b", "a")):
        change = Change(
            model_stream(ModelId(model_id)),
            ModelUpdated(config(aliases=("x",), fallbacks=(ModelId(other),))),
        )
        receipt = Receipt("updated", model_id, 2, 0, "")
        await book.store.append(Append([change], {change.stream: 1}, context(), receipt, None))
    await owner.execute("ALTER TABLE model ENABLE TRIGGER model_links_checked")
    assert (await verify(owner)).ok
    await owner.execute("DELETE FROM model")
    assert (await rebuild(owner)).models == 2
    assert (await verify(owner)).ok

    assert (await book.update("a", aliases=("x",), fallbacks=("b",), enabled=False)).status == "updated"
    with pytest.raises(InvalidInput, match="'a' is the id of another model"):
        await book.update("b", aliases=("y", "x", "a"), fallbacks=("a",))
    assert (await book.update("b", aliases=("y",), fallbacks=())).status == "updated"
    assert await links(book) == {ModelId("a"): Links(("x",), (ModelId("b"),)), ModelId("b"): Links(("y",))}


# Ledgers of the last release


async def test_a_ledger_of_the_last_release_is_taken_over_with_its_models(databases: Databases) -> None:
    async with empty_database(databases) as name:
        url = databases.owner_url(name)
        await migrate(url, to="0002")
        async with opened(url) as book:
            changes = [Change(model_stream(ModelId(each)), ModelCreated(config())) for each in "ab"]
            expected = {change.stream: 0 for change in changes}
            receipt = Receipt("created", "a", 1, 0, "")
            await book.store.append(Append(changes, expected, context(), receipt, None))
        async with opened(await Database.prepare(url, None)) as book:
            assert await links(book) == {}
            await book.update("a", aliases=("x",), fallbacks=("b",))
            with pytest.raises(InvalidInput):
                await book.update("b", aliases=("x",))
        await migrate(url, to="0002", down=True)
        async with opened(await Database.prepare(url, None)) as book:
            assert await links(book) == {ModelId("a"): Links(("x",), (ModelId("b"),))}
            with pytest.raises(InvalidInput):
                await book.update("b", fallbacks=("a",))
        connection = await asyncpg.connect(url)
        assert (await verify(connection)).ok
        assert await rebuild(connection) == Rebuilt(models=2, changed=0)
        await connection.close()


async def migrate(url: str, to: str, *, down: bool = False) -> None:
    engine = create_async_engine(
        DRIVER, async_creator=partial(Database(url).connect, patient=True), poolclass=NullPool
    )
    commands = AlembicCommands(sqlalchemy_config=alchemy(engine))
    await asyncio.to_thread(commands.downgrade if down else commands.upgrade, to)
