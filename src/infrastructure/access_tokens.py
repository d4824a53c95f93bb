"""Access tokens: kept as SHA-256 digests, known to every worker, read anew with each of its rounds."""

import hashlib
import secrets
import string
from collections.abc import Mapping
from typing import Final

from application.ports import Caller
from domain.access import Role
from domain.errors import StoreUnavailable
from domain.values import Actor
from infrastructure.database import READ_TIMEOUT, Connection

ADMINISTRATOR: Final = "administrator"
"""The id of the token that comes from the environment or from the first start."""
ALPHABET: Final = string.ascii_letters + string.digits
RANDOM_CHARACTERS: Final = 36
"""Of 62 kinds: 214 bits, far above what a plain digest asks for (OWASP ASVS 6.5.2: 112)."""

TOKENS: Final = "SELECT id, name, role, hash FROM access_token"
KEEP: Final = """
    INSERT INTO access_token (id, name, role, hash) VALUES ($1, $1, $2, $3)
    ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, created_at = now()
    WHERE access_token.hash <> excluded.hash
"""
MAKE: Final = "INSERT INTO access_token (id, name, role, hash) VALUES ($1, $1, $2, $3) ON CONFLICT DO NOTHING"
END_SESSIONS: Final = """
    DELETE FROM session s WHERE NOT EXISTS (SELECT FROM access_token t WHERE t.hash = s.token_hash)
"""


class AccessTokens:
    """The tokens as of the follower's last round; see `Authenticator`."""

    def __init__(self) -> None:
        self.callers: Mapping[bytes, Caller] | None = None
        """By digest; None while nothing is known of them."""

    def authenticate(self, token: str) -> Caller | None:
        """See `Authenticator.authenticate`."""
        return self.holder(digest(token))

    def holder(self, token_digest: bytes) -> Caller | None:
        """Who the token of a digest belongs to; see `authenticate`."""
        if self.callers is None:
            raise StoreUnavailable("database_unavailable", "the database does not answer; try again")
        return self.callers.get(token_digest)

    async def read(self, connection: Connection) -> None:
        """Take over the table; a token that is gone from it is revoked here from now on."""
        rows = await connection.fetch(TOKENS, timeout=READ_TIMEOUT)
        self.callers = {row["hash"]: _caller(row["id"], row["name"], Role(row["role"])) for row in rows}

    def recall(self, callers: Mapping[bytes, Caller], administrator: bytes | None) -> None:
        """Do with what was saved until the table can be read; what was read of it stays.

        `administrator` is the digest of the token that the environment gives: it wins over the saved one,
        as at every start.
        """
        if self.callers is not None:
            return
        if administrator is not None:
            known = _caller(ADMINISTRATOR, ADMINISTRATOR, Role.ADMINISTRATOR)
            others = {digest: each for digest, each in callers.items() if each.actor.id != known.actor.id}
            callers = {**others, administrator: known}
        self.callers = callers

    def forget(self) -> None:
        """Know nothing of them any more."""
        self.callers = None


async def ensure_administrator(connection: Connection, token: str | None) -> str | None:
    """Make the given token the administrator's, revoking the one before.

    Without one, the token of an earlier start stays; at the very first start a random one is made and
    returned, which is the only time that anyone sees it.
    """
    if token is not None:
        await connection.execute(KEEP, ADMINISTRATOR, Role.ADMINISTRATOR, digest(token))
        # They are void already; but the token might come back, and they would, too.
        await connection.execute(END_SESSIONS)
        return None
    made = random_secret("mlk_adm_")
    status = await connection.execute(MAKE, ADMINISTRATOR, Role.ADMINISTRATOR, digest(made))
    return made if status == "INSERT 0 1" else None


def random_secret(prefix: str) -> str:
    """A secret that nobody can guess; the prefix tells what was found where one should not be."""
    return prefix + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))


def digest(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _caller(token_id: str, name: str, role: Role) -> Caller:
    return Caller(Actor(f"token:{token_id}", name, "token"), role)
