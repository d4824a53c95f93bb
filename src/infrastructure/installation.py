"""What an installation settles once and keeps: where its demo upstream listens."""

import socket
from typing import Final

import msgspec

from domain.values import Origin
from infrastructure.database import Connection

DEMO_ORIGIN: Final = "demo_origin"
READ: Final = "SELECT value::text FROM setting WHERE key = $1"
KEEP: Final = "INSERT INTO setting (key, value) VALUES ($1, $2::text::json) ON CONFLICT (key) DO NOTHING"


async def demo_origin(connection: Connection) -> Origin | None:
    """Where the demo upstream listens; None when this installation never had one."""
    value = await connection.fetchval(READ, DEMO_ORIGIN)
    return None if value is None else Origin(msgspec.json.decode(value, type=str))


async def choose_demo_origin(connection: Connection, wanted: Origin | None = None) -> Origin:
    """The demo upstream's address: the wanted one or a free port of loopback, chosen once and kept."""
    origin = wanted or _free_origin()
    await connection.execute(KEEP, DEMO_ORIGIN, msgspec.json.encode(origin).decode())
    return await demo_origin(connection) or origin


def _free_origin() -> Origin:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Origin(f"http://127.0.0.1:{probe.getsockname()[1]}")
