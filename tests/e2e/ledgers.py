"""A ledger without the web in front of it: the store, the only way in, and what was recorded."""

import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from service import Databases

from application.ledger import Condition, Ledger
from application.ports import Context, Idempotency, Receipt
from domain.catalog import Command
from domain.configuration import ModelConfig
from domain.default import DefaultChanged, SetDefault
from domain.model import CreateModel, DeleteModel, ModelDeleted, UpdateModel
from domain.values import Actor, ModelId, Origin, model_of
from infrastructure import codec
from infrastructure.codec import Stored
from infrastructure.database import Database, Pool
from infrastructure.event_store import PostgresEventStore

ADDRESS = "https://ledger.openai.azure.com"
ORIGINS = frozenset({Origin(ADDRESS)})
ACTOR = Actor("token:tests", "The tests", "token")

EVENTS = """
    SELECT position, stream, version, type, schema_version, body::text AS body, reason,
        meta ->> 'request_id' AS request_id, meta ->> 'correlation_id' AS correlation_id, recorded_at
    FROM event ORDER BY position
"""


def config(**changes: Any) -> ModelConfig:
    """A configuration that keeps the rules."""
    fields = {
        "name": "A model",
        "max_tokens": 4096,
        "supports_streaming": True,
        "supports_temperature": True,
        "api_version": "2025-01-01-preview",
        "azure_endpoint": ADDRESS,
    }
    return ModelConfig(**{**fields, **changes})


def context(request_id: str | None = None) -> Context:
    return Context(ACTOR, "api", request_id or uuid.uuid4().hex)


def key(name: str, fingerprint: bytes = b"the same request") -> Idempotency:
    return Idempotency(ACTOR.id, "PUT", "/api/config/models/m", name, fingerprint)


@dataclass(frozen=True)
class Book:
    """One process's way into a ledger."""

    pool: Pool
    store: PostgresEventStore
    ledger: Ledger

    async def do(
        self,
        command: Command,
        *,
        request_id: str | None = None,
        condition: Condition | None = None,
        idempotency: Idempotency | None = None,
    ) -> Receipt:
        return await self.ledger.execute(
            command, context(request_id), condition=condition, idempotency=idempotency
        )

    async def create(self, model_id: str, **changes: Any) -> Receipt:
        return await self.do(CreateModel(ModelId(model_id), config(**changes)))

    async def update(self, model_id: str, **changes: Any) -> Receipt:
        return await self.do(UpdateModel(ModelId(model_id), config(**changes)))

    async def delete(self, model_id: str, new_default: str | None = None) -> Receipt:
        return await self.do(DeleteModel(ModelId(model_id), ModelId(new_default) if new_default else None))

    async def set_default(self, model_id: str | None) -> Receipt:
        return await self.do(SetDefault(ModelId(model_id) if model_id else None))


@asynccontextmanager
async def opened(database: Database | str, *, size: int = 8) -> AsyncIterator[Book]:
    """A book on connections of its own."""
    place = database if isinstance(database, Database) else Database(database)
    async with place.pool(size) as pool:
        store = PostgresEventStore(pool)
        yield Book(pool, store, Ledger(store, ORIGINS))


@asynccontextmanager
async def empty_database(databases: Databases, options: str = "") -> AsyncIterator[str]:
    """A database in which nothing was migrated."""
    name = f"empty_{uuid.uuid4().hex[:16]}"
    connection = await asyncpg.connect(databases.server.owner_url)
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        yield name
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


def postmaster(root: Path) -> int:
    """The process of the server that keeps its data below that directory."""
    (pid_file,) = root.glob("pg*/postmaster.pid")
    return int(pid_file.read_text().split()[0])


async def recorded(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """Every event, oldest first."""
    return await connection.fetch(EVENTS)


@dataclass
class State:
    """What a replay of the events comes to."""

    live: dict[str, ModelConfig]
    default: str | None = None


def replay(events: Sequence[asyncpg.Record]) -> Iterable[tuple[int, State]]:
    """The state after each append, with its last position: events of one append are one fact."""
    state = State({})
    for n, row in enumerate(events):
        event = codec.decode(Stored(row["type"], row["schema_version"], row["body"]))
        if isinstance(event, DefaultChanged):
            state.default = event.model_id
        elif isinstance(event, ModelDeleted):
            del state.live[str(model_of(row["stream"]))]
        else:
            state.live[str(model_of(row["stream"]))] = event.config
        if n + 1 == len(events) or events[n + 1]["correlation_id"] != row["correlation_id"]:
            yield row["position"], state
