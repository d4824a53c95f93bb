"""The lesser database role: it reads the ledger and appends to it, and cannot change what is recorded."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from infrastructure.schema import VERSION_TABLE

if TYPE_CHECKING:
    from infrastructure.database import Connection

APP_ROLE: Final = "model_ledger_app"
ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('model-ledger grants'))"
"""Grants that run at once in two processes would collide on the catalog's rows."""
READ: Final = ("SELECT",)
# The projection can always be made again from the events, which this role cannot touch.
WRITE: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
TABLES: Final[Mapping[str, Sequence[str]]] = {
    VERSION_TABLE: READ,
    "ledger_head": READ,
    "event": READ,
    "idempotency": READ,
    "model": WRITE,
    "default_model": WRITE,
    "access_token": WRITE,
    "setting": WRITE,
    "session": WRITE,
    "sign_in_link": WRITE,
    "worker": WRITE,
    "usage": ("SELECT", "INSERT", "DELETE"),
    "usage_writer": WRITE,
}
"""What the service may do with each table."""
FUNCTIONS: Final = ("ledger_append", "ledger_rebuild")
"""The functions that it may execute, of those that not everyone may."""

MISSING: Final = """
    SELECT format('GRANT %s ON TABLE %I TO %I', privilege, name, $1::name) AS statement
    FROM unnest($2::text[], $3::text[]) AS wanted (name, privilege)
    WHERE NOT has_table_privilege($1::name, quote_ident(name), privilege)
    UNION ALL
    SELECT format('GRANT EXECUTE ON FUNCTION %I TO %I', name, $1::name)
    FROM unnest($4::text[]) AS wanted (name)
    WHERE NOT has_function_privilege($1::name, name::regproc, 'EXECUTE')
    UNION ALL
    SELECT format('GRANT USAGE ON SCHEMA public TO %I', $1::name)
    WHERE NOT has_schema_privilege($1::name, 'public', 'USAGE')
"""
OWNS_EVENTS: Final = """
    SELECT r.rolsuper OR pg_has_role(r.oid, c.relowner, 'MEMBER')
    FROM pg_roles r, pg_class c WHERE r.rolname = $1 AND c.oid = 'event'::regclass
"""


async def make_role(owner: "Connection", login: str) -> None:
    """Make the lesser role unless it exists, and let the service's login take it on.

    Raises:
        asyncpg.InsufficientPrivilegeError: the owner may not.
        asyncpg.UniqueViolationError, asyncpg.InternalServerError: a start on another database of the server
            did so at the same moment; do it again.
    """
    async with owner.transaction():
        await owner.execute(ONE_AT_A_TIME)
        if not await owner.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", APP_ROLE):
            await owner.execute(f"CREATE ROLE {APP_ROLE} NOLOGIN NOINHERIT")
        if not await owner.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = $1", login):
            await owner.execute(f"GRANT {APP_ROLE} TO {_quoted(login)}")


async def grant(owner: "Connection", role: str) -> None:
    """Give a role what the service needs and it does not have; nothing happens where it has everything."""
    wanted = [(name, privilege) for name, privileges in TABLES.items() for privilege in privileges]
    names, privileges = zip(*wanted, strict=True)
    async with owner.transaction():
        await owner.execute(ONE_AT_A_TIME)
        for row in await owner.fetch(MISSING, role, names, privileges, FUNCTIONS):
            await owner.execute(row["statement"])


async def owns_events(connection: "Connection", login: str) -> bool:
    """Whether a login could take the append-only trigger away."""
    return bool(await connection.fetchval(OWNS_EVENTS, login))


def _quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"'
