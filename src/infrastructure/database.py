"""PostgreSQL: addresses, connections, roles, and the migrations at start."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Final, Self, TypeAlias, cast

import asyncpg
from advanced_alchemy.config import AlembicAsyncConfig, AsyncSessionConfig, SQLAlchemyAsyncConfig
from msgspec import Struct
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from domain.errors import StoreUnavailable
from infrastructure import roles, schema
from infrastructure.preparation import Preparation
from infrastructure.schema import MIGRATIONS, REVISIONS, VERSION_TABLE

# Generic for the type checker only.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

logger = logging.getLogger(__name__)

DRIVER: Final = "postgresql+asyncpg://"
CONNECT_TIMEOUT: Final = 5.0
"""Seconds."""
READ_TIMEOUT: Final = 2.0
"""Seconds; a read of a follower that takes longer means that its connection is dead."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the goodbyes of a pool's connections."""
COMMAND_TIMEOUT: Final = 5.0
"""Seconds that a statement of a request may take."""
MIGRATION_TIMEOUT: Final = 600.0
"""Seconds that one statement of a migration may take."""

AWAY: Final = (
    OSError,  # timeouts and broken TLS among them
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection whose server died, used once more
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)
"""What passes without anybody changing a setting."""
LOST: Final = (*AWAY, asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""What a database that is away looks like to a service that has used it before."""
UNUSABLE: Final = (*LOST, ValueError, asyncpg.PostgresError, DBAPIError, StoreUnavailable)
"""What may end a start, along with bugs."""


class DatabaseUnusable(Exception):
    """The database cannot serve this release; the message says why and what to do."""


class DatabaseAway(DatabaseUnusable):
    """It cannot be reached now. Nothing says that it could not serve."""


class NotPrepared(OSError):
    """Nobody has looked yet whether the database fits; to its users it is away, see `LOST`."""


class Database(Struct, frozen=True):
    """Where the service's connections go, and the role that they take there (None: the login's own)."""

    url: str
    role: str | None = None
    preparation: Preparation | None = None
    """What a start that found it away still has to do; no connection is made before."""

    def __repr__(self) -> str:
        """Without the address, which may carry a password."""
        return f"Database(role={self.role!r})"

    async def connect(self, *, patient: bool = False) -> Connection:
        """One connection of its own; a patient one for statements that may take long.

        Raises:
            OSError, asyncpg.PostgresError: see `LOST`.
            ValueError: the address is none; its text may hold a part of the password.
        """
        role = self.role
        if self.preparation is not None:
            if not self.preparation.done:
                raise NotPrepared("the database was not prepared yet")
            role = roles.APP_ROLE if self.preparation.lesser else None
        return await asyncpg.connect(
            self.url,
            timeout=CONNECT_TIMEOUT,
            command_timeout=MIGRATION_TIMEOUT if patient else COMMAND_TIMEOUT,
            server_settings={
                "application_name": "model-ledger",
                # Whatever the database's own default: an append must see what was committed before it.
                "default_transaction_isolation": "read committed",
                **({"role": role} if role else {}),
            },
        )

    def pool(self, size: int) -> Pool:
        """A pool, for `opened`; it opens its connections when they are asked for. See `borrowed`."""
        return asyncpg.create_pool(min_size=0, max_size=size, connect=self._connect, reset=_keep)

    async def _connect(self, *_: object, **__: object) -> Connection:
        return await self.connect()

    def engine(self, size: int = 5) -> AsyncEngine:
        """The engine of the read side; its connections are opened by `connect` too."""
        return create_async_engine(
            DRIVER,
            async_creator=self.connect,
            pool_size=size,
            max_overflow=size,
            pool_timeout=CONNECT_TIMEOUT,
            pool_pre_ping=True,
        )

    @classmethod
    async def prepare(cls, url: str, owner_url: str | None) -> Self:
        """Migrate, make the lesser role, and say how the service connects.

        Any number of processes may do so at once; one of them works, the others wait.

        Raises:
            DatabaseAway: out of reach.
            DatabaseUnusable: too old, not UTF8, or not ours to migrate.
        """
        service, owner = cls(url), cls(owner_url or url)
        with start_errors():
            login = await _login(service)
            connection = await owner.connect(patient=True)
            try:
                if problem := await schema.unfit(connection):
                    raise DatabaseUnusable(problem)
                if await _revision(connection) != REVISIONS[-1]:
                    engine = create_async_engine(
                        DRIVER, async_creator=partial(owner.connect, patient=True), poolclass=NullPool
                    )
                    await asyncio.to_thread(schema.migrate, alchemy(engine))
                return cls(url, await _lesser_role(connection, service, login))
            finally:
                connection.terminate()

    @asynccontextmanager
    async def ledger(self, *, readonly: bool) -> AsyncIterator[Connection]:
        """A patient connection to a ledger that is there already, as this release knows it.

        Raises:
            DatabaseUnusable: out of reach, without a ledger, or with one of another release.
        """
        with start_errors():
            connection = await self.connect(patient=True)
        try:
            revision = await _revision(connection)
            if revision is None:
                raise DatabaseUnusable("there is no ledger in this database")
            if revision != REVISIONS[-1]:
                raise DatabaseUnusable(
                    f"the ledger is at schema revision {revision}, not at {REVISIONS[-1]}: "
                    "start the service of this release once"
                )
            if readonly:
                await connection.execute("SET default_transaction_read_only = on")
            yield connection
        except (*LOST, asyncpg.PostgresError) as error:
            told = str(error) or "it does not answer"
            raise DatabaseUnusable(f"the database refuses this: {told}") from error
        finally:
            connection.terminate()


def alchemy(engine: AsyncEngine) -> SQLAlchemyAsyncConfig:
    """The configuration of advanced-alchemy: sessions for the read side, and Alembic."""
    return SQLAlchemyAsyncConfig(
        engine_instance=engine,
        session_config=AsyncSessionConfig(expire_on_commit=False),
        alembic_config=AlembicAsyncConfig(
            script_location=str(MIGRATIONS), version_table_name=VERSION_TABLE, compare_type=True
        ),
    )


@asynccontextmanager
async def opened(pool: Pool) -> AsyncIterator[None]:
    """A pool in use. A server that is silent does not hold up its end."""
    async with pool:
        yield
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await pool.close()  # cancelled, it drops its connections


@asynccontextmanager
async def borrowed(pool: Pool) -> AsyncIterator[Connection]:
    """One of the pool's connections; it is not used again when anything failed in its use.

    So that nobody has to ask what a failure left behind: a half-open link, a server that is read-only
    since, or a statement that is still running. Giving it back takes no time and cannot fail.
    """
    connection = await pool.acquire(timeout=CONNECT_TIMEOUT)
    try:
        yield cast("Connection", connection)  # a proxy of one
    except BaseException:
        with suppress(asyncpg.InterfaceError):  # it is gone already
            connection.terminate()
        raise
    else:
        await pool.release(connection)


@asynccontextmanager
async def store_errors() -> AsyncIterator[None]:
    """Tell a database that is away as `StoreUnavailable`, for work that may simply be tried again."""
    try:
        yield
    except LOST as error:
        raise StoreUnavailable("database_unavailable", "the database does not answer; try again") from error


@contextmanager
def start_errors() -> Iterator[None]:
    """Tell whatever a database can do to a start as `DatabaseUnusable`, in plain words."""
    try:
        yield
    except UNUSABLE as error:
        # Without its cause, which may hold a part of the password.
        raise _unusable(error) or error from None


async def _keep(_: object) -> None:
    """What a pool does with a connection that is given back: nothing, as no user of it leaves a trace."""


async def _login(service: Database) -> str:
    connection = await service.connect()
    try:
        login: str = await connection.fetchval("SELECT current_user")
        return login
    finally:
        connection.terminate()


async def _revision(connection: Connection) -> str | None:
    """See `schema.revision`.

    Raises:
        DatabaseUnusable: a newer release has migrated the database.
    """
    revision = await schema.revision(connection)
    if revision is not None and revision not in REVISIONS:
        raise DatabaseUnusable(f"a newer release has migrated the database, to revision {revision}")
    return revision


async def _lesser_role(owner: Connection, service: Database, login: str) -> str | None:
    """Make and grant the role that the service is to have; None when its login serves as it is."""
    role = None
    if login != roles.APP_ROLE:
        with suppress(asyncpg.InsufficientPrivilegeError):
            try:
                await roles.make_role(owner, login)
            except (asyncpg.UniqueViolationError, asyncpg.InternalServerError):
                # Roles belong to the whole server: a start on another of its databases was faster.
                await roles.make_role(owner, login)
        role = roles.APP_ROLE if await _can_take_on(service) else None
    await roles.grant(owner, role or login)
    if role is None and await roles.owns_events(owner, login):
        logger.warning(
            "the migrating database login may not create roles: only the triggers keep the service from "
            "changing recorded events (docs/operations.md tells how to give it a role)"
        )
    return role


async def _can_take_on(service: Database) -> bool:
    """Whether the service's login may SET ROLE to the lesser role; asked by doing it."""
    try:
        connection = await Database(service.url, roles.APP_ROLE).connect()
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError):
        return False
    connection.terminate()
    return True


def _unusable(error: Exception) -> DatabaseUnusable | None:
    """What hinders the start, in words for whoever gave the address; None for a bug of ours."""
    if isinstance(error, DBAPIError):
        error = getattr(error.orig, "__cause__", None) or error
    message = _in_words(error)
    if message is None:
        return None
    return DatabaseAway(message) if _is_away(error) else DatabaseUnusable(message)


def _in_words(error: Exception) -> str | None:
    message: str | None = None
    match error:
        case asyncpg.InsufficientPrivilegeError():
            message = (
                f"the database's login may not migrate ({error}); give one that may as "
                "MODEL_LEDGER_OWNER_DATABASE_URL"
            )
        case asyncpg.LockNotAvailableError():
            message = "another process has been migrating the database, or using its tables, for too long"
        case asyncpg.ReadOnlySQLTransactionError():
            message = "the database takes no writes, which a start needs"
        case StoreUnavailable():
            message = str(error)
        case TimeoutError():
            message = f"the database cannot be reached: no answer within {CONNECT_TIMEOUT:g} s"
        case ssl.SSLCertVerificationError():
            message = f"the database's certificate is not trusted: {error.verify_message}"
        case ValueError():  # asyncpg's complaints about an address are some
            message = (
                "the database cannot be reached: its address is not understood (special characters in its "
                "password must be percent-encoded)"
            )
        case _ if isinstance(error, LOST):
            message = f"the database cannot be reached: {error}"
        case _:
            pass
    return message


def _is_away(error: Exception) -> bool:
    if isinstance(error, StoreUnavailable):
        return error.code != "ledger_busy"
    # Addresses that are not understood and certificates that are not trusted are values that are wrong.
    return isinstance(error, AWAY) and not isinstance(error, ValueError)
