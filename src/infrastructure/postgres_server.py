"""One PostgreSQL server as a child process: its initialisation, its start and its end."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infrastructure.postgres_account import Account, EmbeddedPostgresError, minimal_environment
from infrastructure.postgres_leftovers import POLL, postmaster, sole_lock

OWNER = "model_ledger_owner"
APP = "model_ledger_app"
DATABASE = "model_ledger"
PORT = 5432  # only a part of the socket's name, nothing listens on TCP
SOCKET_NAME = f".s.PGSQL.{PORT}"
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "cluster_name": "model-ledger",
}
FIRST_SQL = f"""\
CREATE ROLE {APP} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT;
CREATE DATABASE {DATABASE};
"""
FAST_SHUTDOWN = 30.0  # seconds for a server to end its connections and write its checkpoint
KILL = 10.0  # seconds after which an impolite signal is followed by the next
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before a fork, not after it


@dataclass(frozen=True)
class Cluster:
    """What a server needs to run: its programs, its two directories, and as whom."""

    binaries: Path
    data: Path
    sockets: Path
    account: Account | None
    settings: Mapping[str, str]


class PostgresServer:
    """The server of one cluster. Whoever makes one holds the lock that lets nobody else do so."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        """Make the data directory with its roles and database, unless it exists; never a half-made one."""
        data = self._cluster.data
        for unfinished in data.parent.glob(".init-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if data.exists():
            return
        fresh = Path(tempfile.mkdtemp(prefix=".init-", dir=data.parent))
        if account := self._cluster.account:
            os.chown(fresh, account.uid, account.gid)
        durable = self._cluster.settings.get("fsync") != "off"
        self._run("initdb", "-D", str(fresh), "-U", OWNER, "-E", "UTF8", "--locale=C", "--auth=trust", "-k",
                  "--no-instructions", *([] if durable else ["--no-sync"]))  # fmt: skip
        self._run("postgres", "--single", *([] if durable else ["-F"]), "-c", "exit_on_error=on",
                  "-c", "log_checkpoints=off", "-D", str(fresh), "postgres", typed=FIRST_SQL)  # fmt: skip
        fresh.rename(data)
        _sync_directory(data.parent)

    def start(self) -> None:
        """Start, and return when connections are accepted.

        Raises: EmbeddedPostgresError when the server ends before that.
        """
        lock = sole_lock(self._cluster.data, self._cluster.account, patience=FAST_SHUTDOWN)
        try:
            process = self._process = self._spawn_server(lock)
        finally:
            os.close(lock)  # the server has inherited it
        while not self._accepts_connections(process.pid):
            if self.has_ended():
                raise EmbeddedPostgresError("PostgreSQL ended while it was starting.")
            time.sleep(POLL)

    def has_ended(self) -> bool:
        """Whether the server's first process is gone; what it leaves behind is the next start's business."""
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """End the server, in order if it can be; return when it is gone."""
        if self._process is None:
            return
        for ending, patience in (
            (signal.SIGINT, FAST_SHUTDOWN),
            (signal.SIGQUIT, KILL),
            (signal.SIGKILL, None),
        ):
            self._process.send_signal(ending)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
            return

    def _spawn_server(self, lock: int) -> subprocess.Popen[bytes]:
        data, sockets = self._cluster.data, self._cluster.sockets
        if postmaster(data) is None:  # the process id in a stale file may by now be another program's
            for stale in (data / "postmaster.pid", sockets / SOCKET_NAME, sockets / f"{SOCKET_NAME}.lock"):
                stale.unlink(missing_ok=True)
        address = {"port": str(PORT), "unix_socket_directories": str(sockets)}
        settings = SETTINGS | dict(self._cluster.settings) | address
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._spawn("postgres", "-D", str(data), *arguments, inherit=(lock,))

    def _accepts_connections(self, pid: int) -> bool:
        """What the server's file says: line 1 is whose it is, 8 the state (PostgreSQL, utils/pidfile.h)."""
        try:
            lines = (self._cluster.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return [line.strip() for line in (*lines[:1], *lines[7:8])] == [str(pid), "ready"]

    def _run(self, program: str, *arguments: str, typed: str = "") -> None:
        process = self._spawn(program, *arguments, stdin=subprocess.PIPE)
        process.communicate(typed.encode())
        if process.returncode != 0:
            raise EmbeddedPostgresError(f"PostgreSQL's {program} ended with status {process.returncode}.")

    def _spawn(
        self, program: str, *arguments: str, stdin: int = subprocess.DEVNULL, inherit: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        account = self._cluster.account
        return subprocess.Popen(  # noqa: S603 - the command is built here
            [str(self._cluster.binaries / program), *arguments],
            stdin=stdin,
            cwd="/",
            env=minimal_environment(),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            umask=0o077,
            pass_fds=inherit,
            preexec_fn=_ending_with(os.getpid()),  # noqa: PLW1509 - this process has one thread
        )


def _ending_with(parent: int) -> Callable[[], None]:
    """Ties a child to its parent: SIGKILL of the parent is the child's SIGINT, PostgreSQL's fast shutdown.

    Elsewhere than on Linux the child is left behind, and the next start ends it.
    """

    def tie() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before it was tied to
            os._exit(1)

    return tie


def _sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power failure."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
