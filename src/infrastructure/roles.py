"""The lesser database role: it reads the ledger and appends to it, and cannot change what is recorded."""

from typing import TYPE_CHECKING, Final

from infrastructure.schema import VERSION_TABLE

if TYPE_CHECKING:
    from infrastructure.database import Connection

APP_ROLE: Final = "model_ledger_app"
ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('model-ledger grants'))"
"""Grants that run at once in two processes would collide on the catalog's rows."""
GRANTS: Final = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT ON ledger_head, event, idempotency, model, default_model, access_token, setting TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON session, sign_in_link, worker TO {role}",
    f"GRANT SELECT ON {VERSION_TABLE} TO {{role}}",
    # The projection can always be made again from the events, which this role cannot touch.
    "GRANT INSERT, UPDATE, DELETE ON model, default_model, access_token, setting TO {role}",
    "GRANT EXECUTE ON FUNCTION ledger_append, ledger_rebuild TO {role}",
)
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
    """Give a role what the service needs; nothing happens where it has that already."""
    async with owner.transaction():
        await owner.execute(ONE_AT_A_TIME)
        append = await owner.fetchval("SELECT 'ledger_append'::regproc::oid")
        if not await owner.fetchval("SELECT has_function_privilege($1, $2::oid, 'EXECUTE')", role, append):
            for statement in GRANTS:
                await owner.execute(statement.format(role=_quoted(role)))


async def owns_events(connection: "Connection", login: str) -> bool:
    """Whether a login could take the append-only trigger away."""
    return bool(await connection.fetchval(OWNS_EVENTS, login))


def _quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"'
