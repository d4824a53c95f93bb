"""The Alembic environment: one transaction under one lock, however many processes migrate at once."""

import asyncio
from typing import TYPE_CHECKING, cast

from advanced_alchemy.base import metadata_registry
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

if TYPE_CHECKING:
    from advanced_alchemy.alembic.commands import AlembicCommandConfig

LOCK = 0x6D6F64656C6C6467
"""The advisory lock that migrations take: 'modelldg' in ASCII."""
PATIENCE = 60
"""Seconds to wait for another process that migrates, or that holds a table."""


def migrate(connection: Connection, config: "AlembicCommandConfig") -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata_registry.get(config.bind_key),
        version_table=config.version_table_name,
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}s'"))
        # Whoever waited here reads the revision only now, and finds nothing left to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()


async def main() -> None:
    config = cast("AlembicCommandConfig", context.config)
    engine = cast("AsyncEngine", config.engine)
    async with engine.connect() as connection:
        await connection.run_sync(migrate, config)
        await connection.commit()
    await engine.dispose()


asyncio.run(main())
