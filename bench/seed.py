"""A ledger of any length, made in bulk through the function that every append goes through.

python -m bench.seed postgresql://... 100000 1000      # events, models
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec
from msgspec import Struct
from uuid_utils.compat import uuid7

from domain.configuration import ModelConfig
from domain.default import DefaultChanged
from domain.model import ModelCreated, ModelUpdated
from domain.values import DEFAULT_STREAM, ModelId, Stream, model_stream
from infrastructure import codec
from infrastructure.codec import Stored
from infrastructure.database import Connection, Database

EVENTS_PER_APPEND: Final = 1_000
TIMEOUT: Final = 60.0
"""Seconds that one append may take."""
META: Final = {"actor_kind": "system", "correlation_id": "seed", "request_id": "seed", "source": "import"}
APPEND: Final = """
    SELECT outcome FROM ledger_append($1, $2, $3, $4, $5, $6, $7, 'system', 'Seed', 'made in bulk', $8,
        '{}', '{}', $9, $10, $11, NULL, NULL, NULL, NULL, '{}')
"""


class Row(Struct, frozen=True):
    """One event with its place, and the row that it leaves in the projection."""

    stream: Stream
    version: int
    stored: Stored
    model_id: ModelId
    config: str | None


async def seed(connection: Connection, events: int, models: int) -> None:
    """Append so many events to so many models in turn: their creation first, then updates.

    The models are `model-00000` and so on; where they exist already, their streams go on. On an empty
    ledger the first event makes the first of them the default. Each event's body is about 400 bytes. The
    connection needs EXECUTE on `ledger_append`; each append of 1,000 events is a transaction of its own.
    """
    versions = {row["id"]: row["version"] for row in await connection.fetch("SELECT id, version FROM model")}
    rows: list[Row] = []
    if not versions and events:
        rows.append(_first_default())
    for number in range(events - len(rows)):
        model_id = ModelId(f"model-{number % models:05}")
        versions[model_id] = versions.get(model_id, 0) + 1
        rows.append(_change(model_id, versions[model_id]))
        if len(rows) == EVENTS_PER_APPEND:
            await _append(connection, rows)
            rows.clear()
    if rows:
        await _append(connection, rows)


def _first_default() -> Row:
    model_id = ModelId("model-00000")
    return Row(DEFAULT_STREAM, 1, codec.encode(DefaultChanged(model_id)), model_id, None)


def _change(model_id: ModelId, version: int) -> Row:
    config = ModelConfig(
        name=f"{model_id} in its version {version}",
        description="Made in bulk, to measure how a ledger of this length behaves.",
        max_tokens=4_096 + version,
        supports_streaming=True,
        supports_temperature=True,
        api_version="2025-01-01-preview",
        azure_endpoint="https://seed.openai.azure.com",
    )
    event = ModelCreated(config) if version == 1 else ModelUpdated(config)
    text = msgspec.json.encode(config).decode()
    return Row(model_stream(model_id), version, codec.encode(event), model_id, text)


async def _append(connection: Connection, rows: Sequence[Row]) -> None:
    arguments = (
        [uuid7() for _ in rows],
        [row.stream for row in rows],
        [row.version for row in rows],
        [row.stored.type for row in rows],
        [row.stored.schema_version for row in rows],
        [row.stored.body for row in rows],
        [secrets.token_bytes(16) for _ in rows],
        msgspec.json.encode(META).decode(),
        [row.model_id for row in rows],
        [row.config for row in rows],
        [False] * len(rows),
    )
    outcome = await connection.fetchval(APPEND, *arguments, timeout=TIMEOUT)
    if outcome != "appended":
        raise RuntimeError(f"the append was answered {outcome!r}")


async def main(url: str, events: int, models: int) -> None:
    """Migrate that database, fill it, and tell how long it took."""
    await Database.prepare(url, None)
    connection = await asyncpg.connect(url)
    try:
        start = time.perf_counter()
        await seed(connection, events, models)
        took = time.perf_counter() - start
        print(f"{events} events on {models} models in {took:.1f} s, {events / took:,.0f} a second")
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
