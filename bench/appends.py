"""Appends of the ledger beside bare INSERTs, on the same server and in the same run."""

import asyncpg
from msgspec.structs import replace

from application.ledger import Ledger
from application.ports import Context
from domain.model import CreateModel, UpdateModel
from domain.values import SYSTEM, ModelId, Origin
from infrastructure.database import Database
from infrastructure.event_store import PostgresEventStore
from measure import Timing, median, run

ROUNDS = 3
ORIGIN = Origin("http://127.0.0.1:9")

BARE = "CREATE TABLE IF NOT EXISTS bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text)"
INSERT = "INSERT INTO bare (body) VALUES ($1)"
INSERT_NOTIFY = "WITH row AS (INSERT INTO bare (body) VALUES ($1)) SELECT pg_notify('bare', '')"


async def appends(database: Database, owner_url: str, config: object, count: int) -> list[str]:
    """The rows of the table: bare INSERT, INSERT with NOTIFY, and the ledger, by 1 and by 8 clients."""
    rows = []
    for clients in (1, 8):
        found: dict[str, list[Timing]] = {"bare INSERT": [], "INSERT + NOTIFY": [], "ledger append": []}
        for _ in range(ROUNDS):  # interleaved, so that the machine's moods meet all of them
            found["bare INSERT"].append(await _bare(owner_url, INSERT, count, clients))
            found["INSERT + NOTIFY"].append(await _bare(owner_url, INSERT_NOTIFY, count, clients))
            found["ledger append"].append(await _ledger(database, config, count, clients))
        middle = {name: median(timings, lambda timing: timing.rate) for name, timings in found.items()}
        base = middle["bare INSERT"].rate
        for name, timing in middle.items():
            rows.append(f"{name:16} {clients} client(s)  {timing.shown()}   {timing.rate / base:5.2f}x")
    return rows


async def _bare(url: str, statement: str, count: int, clients: int) -> Timing:
    connections = [await asyncpg.connect(url) for _ in range(clients)]
    await connections[0].execute(BARE)
    body = "x" * 400
    try:
        return await run(
            lambda client: connections[client].execute(statement, body), count=count, clients=clients
        )
    finally:
        for connection in connections:
            await connection.close()


async def _ledger(database: Database, config: object, count: int, clients: int) -> Timing:
    """Whole commands: look, decide, append with chain, version check, projection and notification."""
    context = Context(SYSTEM, "system", "bench")
    turns = [0] * clients
    async with database.pool(clients) as pool:
        ledger = Ledger(PostgresEventStore(pool), frozenset({ORIGIN}))
        ids = [ModelId(f"bench-{number}") for number in range(clients)]
        look = await PostgresEventStore(pool).look([f"model/{model_id}" for model_id in ids])
        for model_id in ids:
            if f"model/{model_id}" not in look.places:
                await ledger.execute(CreateModel(model_id, config), context)

        async def change(client: int) -> None:
            turns[client] += 1
            changed = replace(config, description=f"{id(turns)} {turns[client]}")
            await ledger.execute(UpdateModel(ids[client], changed), context)

        return await run(change, count=count, clients=clients)
