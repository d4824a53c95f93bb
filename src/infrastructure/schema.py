"""The schema: what it asks of a server, its revision, and the way to the newest one."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from advanced_alchemy.config import SQLAlchemyAsyncConfig

if TYPE_CHECKING:
    from infrastructure.database import Connection

MIGRATIONS: Final = Path(__file__).resolve().parents[2] / "migrations"
REVISIONS: Final = sorted(file.name.partition("_")[0] for file in MIGRATIONS.glob("versions/[0-9]*_*.py"))
"""The schema's revisions, the one that this release needs last; their files are named after them."""
VERSION_TABLE: Final = "ddl_version"
OLDEST_SERVER: Final = 15


async def unfit(connection: "Connection") -> str | None:
    """Why this server and its database cannot hold a ledger; None if they can."""
    if connection.get_server_version().major < OLDEST_SERVER:
        return f"PostgreSQL {OLDEST_SERVER} or later is needed"
    encoding = await connection.fetchval("SHOW server_encoding")
    return None if encoding == "UTF8" else f"the database's encoding is {encoding}; the ledger needs UTF8"


async def revision(connection: "Connection") -> str | None:
    """The revision that the database's schema is at; None before the first migration."""
    if await connection.fetchval("SELECT to_regclass($1)", VERSION_TABLE) is None:
        return None
    at: str | None = await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - ours
    return at


def migrate(config: SQLAlchemyAsyncConfig) -> None:
    """Bring the schema to the newest revision. Alembic's environment runs a loop: call this in a thread."""
    # Imported only where there is something to migrate, as that takes a part of a second.
    from advanced_alchemy.alembic.commands import AlembicCommands

    AlembicCommands(sqlalchemy_config=config).upgrade()
