"""Sessions in PostgreSQL, kept as digests; each worker knows those that it has seen.

A worker asks the database for a session that it does not know, and in each of the follower's rounds for all
that it does. So a new one is good everywhere at once, and one that ended ends everywhere within a round. A
session is worth what its token is worth: without the token, nothing.
"""

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
from msgspec import Struct

from application.sessions import IDLE, LINK_LIFE, LONGEST, Opened, Session
from domain.errors import StoreUnavailable
from infrastructure.access_tokens import ADMINISTRATOR, AccessTokens, digest, random_secret
from infrastructure.database import LOST, READ_TIMEOUT, Connection, Pool, borrowed, store_errors

logger = logging.getLogger(__name__)

SECRET: Final = re.compile(r"mls_[A-Za-z0-9]{36}")
CODE: Final = re.compile(r"mlc_[A-Za-z0-9]{36}")

MOST_KNOWN: Final = 1_000
"""Sessions in one worker's memory; the others it looks up."""
MOST_OPEN: Final = 1_000
"""Sessions of one token; a further one ends the one that was not used for the longest."""
NOTE_EVERY: Final = timedelta(minutes=1)
"""How exactly the time of the last use is kept."""
PATIENCE: Final = 2.0
"""Seconds that a look-up waits for others, of which there is one at a time: anyone can ask for one."""
RETRY: Final = 5.0
"""Seconds before the uses are noted again after the database was away."""

OPEN: Final = "seen_at > now() - $2::interval AND created_at > now() - $3::interval"
FIND: Final = f"""
    SELECT hash, token_hash, created_at, seen_at FROM session WHERE hash = ANY($1::bytea[]) AND {OPEN}
"""  # noqa: S608 - ours
NOTE: Final = f"""
    UPDATE session SET seen_at = now() WHERE hash = ANY($1::bytea[]) AND {OPEN}
    RETURNING hash, token_hash, created_at, seen_at
"""  # noqa: S608 - ours
BEGIN: Final = """
    INSERT INTO session (hash, token_hash) SELECT $1::bytea, hash FROM access_token WHERE hash = $2
    RETURNING hash, token_hash, created_at, seen_at
"""
REDEEM: Final = """
    DELETE FROM sign_in_link l WHERE l.hash = $1
    RETURNING CASE WHEN l.expires_at > now() THEN l.token_hash END
"""
END: Final = "DELETE FROM session WHERE hash = $1"
TIDY: Final = f"""
    DELETE FROM session WHERE hash IN (
        SELECT hash FROM session s WHERE NOT ({OPEN})
            OR NOT EXISTS (SELECT FROM access_token t WHERE t.hash = s.token_hash)
            OR s.hash IN (SELECT hash FROM session WHERE token_hash = $1 ORDER BY seen_at DESC OFFSET $4)
        FOR UPDATE SKIP LOCKED) -- another sign-in may tidy at the same moment
"""  # noqa: S608 - ours
TIDY_LINKS: Final = "DELETE FROM sign_in_link WHERE expires_at <= now()"
RING: Final = "SELECT pg_notify('model_ledger', 'session')"

MAKE_LINK: Final = """
    INSERT INTO sign_in_link (hash, token_hash, expires_at)
    SELECT $1::bytea, hash, now() + $2::interval FROM access_token WHERE id = $3
"""


class Known(Struct, frozen=True):
    """A session as the database had it."""

    token_hash: bytes
    created_at: datetime
    seen_at: datetime

    @property
    def expires_at(self) -> datetime:
        """When it ends, if it is not used until then."""
        return min(self.seen_at + IDLE, self.created_at + LONGEST)


class PostgresSessions:
    """See `Sessions`."""

    def __init__(self, pool: Pool, tokens: AccessTokens) -> None:
        self._pool = pool
        self._tokens = tokens
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._turn = asyncio.Lock()
        self._used: set[bytes] = set()
        self._to_note = asyncio.Event()

    async def find(self, secret: str, *, used: bool = True) -> Session | None:
        """See `Sessions.find`."""
        if not SECRET.fullmatch(secret):
            return None
        key, now = digest(secret), datetime.now(UTC)
        known = self._known.get(key) or await self._look_up(key)
        if known is None or known.expires_at <= now:
            return None
        caller = self._tokens.holder(known.token_hash)
        if caller is None:
            return None
        if used and now - known.seen_at > NOTE_EVERY:
            self._used.add(key)
            self._to_note.set()
        return Session(caller, known.expires_at)

    async def open(self, token: str, before: str | None) -> Opened | None:
        """See `Sessions.open`."""
        if self._tokens.authenticate(token) is None:
            return None
        async with store_errors(), borrowed(self._pool) as connection, connection.transaction():
            return await self._begin(connection, digest(token), before)

    async def redeem(self, code: str, before: str | None) -> Opened | None:
        """See `Sessions.redeem`."""
        if not CODE.fullmatch(code):
            return None
        async with self._one_at_a_time(), borrowed(self._pool) as connection, connection.transaction():
            token_hash = await connection.fetchval(REDEEM, digest(code))
            return await self._begin(connection, token_hash, before) if token_hash else None

    async def close(self, secret: str) -> None:
        """See `Sessions.close`."""
        async with store_errors(), borrowed(self._pool) as connection:
            await self._end(connection, secret)

    async def read(self, connection: Connection) -> None:
        """Look again at every session that is known here."""
        if not self._known:
            return
        keys = [*self._known]
        rows = await connection.fetch(FIND, keys, IDLE, LONGEST, timeout=READ_TIMEOUT)
        self._take(keys, rows)

    async def run(self) -> None:
        """Note which sessions are used, until cancelled."""
        while True:
            await self._to_note.wait()
            self._to_note.clear()
            keys, self._used = [*self._used], set()
            try:
                async with borrowed(self._pool) as connection:
                    self._take(keys, await connection.fetch(NOTE, keys, IDLE, LONGEST))
            except (*LOST, asyncpg.PostgresError) as error:
                logger.warning("the use of sessions is noted later (%s)", type(error).__name__)
                self._used.update(keys)
                self._to_note.set()
                await asyncio.sleep(RETRY)

    async def _begin(self, connection: Connection, token_hash: bytes, before: str | None) -> Opened | None:
        secret = random_secret("mls_")
        row = await connection.fetchrow(BEGIN, digest(secret), token_hash)
        if row is None:
            return None  # the token was revoked meanwhile
        if before is not None:
            await self._end(connection, before)
        await connection.execute(TIDY, token_hash, IDLE, LONGEST, MOST_OPEN)
        await connection.execute(TIDY_LINKS)
        return Opened(secret)

    async def _end(self, connection: Connection, secret: str) -> None:
        await connection.execute(END, digest(secret))
        await connection.execute(RING)
        self._known.pop(digest(secret), None)

    async def _look_up(self, key: bytes) -> Known | None:
        async with self._one_at_a_time():
            if key not in self._known:
                async with borrowed(self._pool) as connection:
                    rows = await connection.fetch(FIND, [key], IDLE, LONGEST)
                for row in rows:
                    self._known[key] = _known(row)
                while len(self._known) > MOST_KNOWN:
                    self._known.popitem(last=False)
        return self._known.get(key)

    def _take(self, keys: Sequence[bytes], rows: Sequence[asyncpg.Record]) -> None:
        """Take over what the database says of these; one that it does not name is over."""
        found = {row["hash"]: _known(row) for row in rows}
        for key in keys:
            if key in found and key in self._known:
                self._known[key] = found[key]
            elif key not in found:
                self._known.pop(key, None)

    @asynccontextmanager
    async def _one_at_a_time(self) -> AsyncIterator[None]:
        """Have what anyone can ask for take one connection of the pool at most."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreUnavailable("database_unavailable", "too many sign-ins at once; try again") from None
        try:
            async with store_errors():
                yield
        finally:
            self._turn.release()


async def make_sign_in_link(connection: Connection) -> str:
    """Make the code of a link that signs the administrator in, once; nobody can read it afterwards."""
    code = random_secret("mlc_")
    await connection.execute(MAKE_LINK, digest(code), LINK_LIFE, ADMINISTRATOR)
    return code


def _known(row: asyncpg.Record) -> Known:
    return Known(row["token_hash"], row["created_at"], row["seen_at"])
