"""The directories of an embedded PostgreSQL: where its data and its socket can be, and who may reach them.

Below the data root:

    pg18/           the data, named by PostgreSQL's major version
    run/            the sockets of server and keeper; a private directory in /tmp where that path is too long
    keeper.lock     held by the keeper process
    server.lock     held by every process of the server
    postgres.log    what the server and the keeper say; postgres.log.1 is from the run before
    binaries-*/     a copy of the programs, only where the system user who runs them cannot reach them
"""

import hashlib
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from infrastructure.postgres_account import Account, EmbeddedPostgresError, account_for
from infrastructure.postgres_binaries import VARIABLE, Binaries
from infrastructure.postgres_server import SOCKET_NAME

LONGEST_SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes: sun_path in unix(4), unix(7)
LIST_SYNTAX = frozenset(',"\\')  # these mean something in a list of hosts or of socket directories
REFUGE = Path("/var/lib/model-ledger")


@dataclass(frozen=True)
class Place:
    """The directories that belong to one resolved data root."""

    root: Path

    @property
    def log(self) -> Path:
        """What the server and its keeper say since their last start."""
        return self.root / "postgres.log"

    @property
    def lock(self) -> Path:
        """Its lock is held by whoever starts, runs or ends the server."""
        return self.root / "keeper.lock"

    @property
    def sockets(self) -> Path:
        """The directory of the sockets: the same for everybody who asks, whether it exists or not."""
        inside = self.root / "run"
        short = len(os.fsencode(inside / SOCKET_NAME)) <= LONGEST_SOCKET_PATH
        if short and LIST_SYNTAX.isdisjoint(str(inside)):
            return inside
        return Path("/tmp") / f"model-ledger-{_digest(self.root)}"  # noqa: S108 - see sockets_are_ours

    def sockets_are_ours(self) -> bool:
        """Whether the sockets can be trusted: anybody can make a directory in /tmp and wait there for us.

        Raises: FileNotFoundError
        """
        found = self.sockets.lstat()
        account = account_for(self.root)
        return stat.S_ISDIR(found.st_mode) and found.st_uid in {os.geteuid(), account.uid if account else -1}

    def make(self) -> None:
        """Make the root and its parents, so that a system user can pass whatever our umask is."""
        missing = [directory for directory in (self.root, *self.root.parents) if not directory.exists()]
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                directory.chmod(0o755)

    def make_sockets(self, account: Account | None) -> None:
        """Make the directory of the sockets, private to `account` (and root)."""
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        if not self.sockets_are_ours():
            raise EmbeddedPostgresError(
                f"{self.sockets} belongs to another user, so PostgreSQL's socket cannot be there."
            )
        self.sockets.chmod(0o700)
        if account is not None:
            os.chown(self.sockets, account.uid, account.gid)

    def check_reach(self, account: Account) -> None:
        """Refuse a root that the user who runs the server cannot enter."""
        if not account.can_enter(self.root):
            raise EmbeddedPostgresError(
                f"PostgreSQL does not run as root, and {account.name!r}, the system user who is to run it, "
                f"cannot enter {self.root}. Choose another data directory, or set DATABASE_URL."
            )

    def data_for(self, binaries: Binaries) -> Path:
        """The data directory of this major version; refused where only data of another one exists."""
        data = self.root / f"pg{binaries.major}"
        others = sorted(self.root.glob("pg[0-9]*"))
        if others and not data.exists():
            theirs = others[-1].name.removeprefix("pg")
            raise EmbeddedPostgresError(
                f"{others[-1]} holds data of PostgreSQL {theirs}, but the programs found are PostgreSQL "
                f"{binaries.major} ({binaries.directory}) and cannot read it. Set {VARIABLE} to the programs "
                f"of PostgreSQL {theirs}, or bring the data over with pg_upgrade, or move that "
                f"directory away to begin with an empty database."
            )
        return data


def data_root(wanted: Path) -> Path:
    """Where the data can live: `wanted`, or a refuge where the database's system user cannot reach that.

    Only root has to evade: PostgreSQL then runs as a system user, who cannot enter /root, and nothing is
    opened to let it in. The refuge is below /var/lib/model-ledger, the same whenever the same is wanted.
    """
    wanted = wanted.resolve()
    account = account_for(wanted)
    if account is None:
        return wanted
    nearest = next(directory for directory in (wanted, *wanted.parents) if directory.exists())
    return wanted if account.can_enter(nearest) else REFUGE / _digest(wanted)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
