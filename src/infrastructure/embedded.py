"""A PostgreSQL server without installing one: leases on a server that runs while anyone holds a lease.

The server belongs to one directory and is shared by every process that leases it, however many start at
once. It listens on a Unix socket in a private directory, never on TCP. `infrastructure.postgres_keeper` runs
it in a process of its own; `infrastructure.postgres_place` lists the files.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Self
from urllib.parse import quote

from infrastructure.postgres_account import EmbeddedPostgresError, account_for, minimal_environment
from infrastructure.postgres_binaries import find_binaries, within_reach
from infrastructure.postgres_keeper import LEASE_SOCKET, Orders
from infrastructure.postgres_leftovers import POLL, try_lock
from infrastructure.postgres_place import Place, data_root
from infrastructure.postgres_server import APP, DATABASE, OWNER, PORT

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "data_root", "lease"]

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class EmbeddedPostgres:
    """A lease on the embedded server of one data directory; the server runs while anyone holds a lease."""

    def __init__(self, connection: socket.socket, place: Place) -> None:
        self._connection = connection
        self._sockets = place.sockets
        self.log = place.log
        self.owner_url = self.url(DATABASE)
        self.app_url = self.url(DATABASE, owner=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, database: str, *, owner: bool = True) -> str:
        """The address of a database on this server, for its superuser or for the application's role."""
        user = OWNER if owner else APP
        return f"postgresql://{user}@/{quote(database, safe='')}?host={quote(str(self._sockets))}&port={PORT}"

    def close(self) -> None:
        """Give the lease back, once or often. The server outlives the last lease by the grace."""
        self._connection.close()


def lease(
    root: Path, *, grace: float = 0.5, timeout: float = 60, settings: Mapping[str, str] = NO_SETTINGS
) -> EmbeddedPostgres:
    """Start, or share, the server whose data lies under `root`; blocks until it accepts connections.

    grace: seconds that the server outlives its last lease.
    timeout: seconds until giving up.
    settings: further PostgreSQL settings, such as fsync=off for tests.
    Grace and settings are those of the lease that starts the server; sharing it changes neither.

    Raises: EmbeddedPostgresError
    """
    place = Place(root.resolve())
    try:
        held = _acquire(place, grace, settings, time.monotonic() + timeout)
    except TimeoutError:
        held = None
    except OSError as problem:
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL in {root} cannot be used: {problem}"
        ) from problem
    if held is None:
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL in {root} was not ready within {timeout:g} s. {_last_words(place.log)}"
        )
    return EmbeddedPostgres(held, place)


def _acquire(
    place: Place, grace: float, settings: Mapping[str, str], deadline: float
) -> socket.socket | None:
    while time.monotonic() < deadline:
        held = _join(place, deadline) or _start(place, grace, settings, deadline)
        if held is not None:
            return held
        time.sleep(POLL)
    return None


def _join(place: Place, deadline: float) -> socket.socket | None:
    """Share the server of a living keeper; None when there is none, or it is just ending."""
    with ExitStack() as undo:
        connection = undo.enter_context(socket.socket(socket.AF_UNIX))
        try:
            if not place.sockets_are_ours():
                return None
            connection.settimeout(_left(deadline))
            connection.connect(str(place.sockets / LEASE_SOCKET))
            answer = _answer(connection)
        except (FileNotFoundError, ConnectionError, BlockingIOError):
            return None
        if answer != "":
            return None
        undo.pop_all()
        return connection


def _start(place: Place, grace: float, settings: Mapping[str, str], deadline: float) -> socket.socket | None:
    """Start a keeper and its server; None while another process is starting or ending one."""
    place.make()
    lock = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not try_lock(lock):
            return None
        with ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.enter_context(ours)
            with theirs:
                _spawn_keeper(
                    _orders(place, grace, settings, lock=lock, first_lease=theirs.fileno()), place.log
                )
            ours.settimeout(_left(deadline))
            problem = _answer(ours)
            if problem != "":
                problem = problem or "The process that keeps PostgreSQL ended without a word."
                raise EmbeddedPostgresError(f"{problem} {_last_words(place.log)}")
            undo.pop_all()
            return ours
    finally:
        os.close(lock)  # the keeper has inherited it and goes on holding it


def _orders(
    place: Place, grace: float, settings: Mapping[str, str], *, lock: int, first_lease: int
) -> Orders:
    account = account_for(place.root, create=True)
    binaries = find_binaries()
    data = place.data_for(binaries)
    if account is not None:
        place.check_reach(account)
        binaries = within_reach(binaries, account, place.root)
    place.make_sockets(account)
    return Orders(
        binaries=str(binaries.directory),
        data=str(data),
        sockets=str(place.sockets),
        run_as=(account.name, account.uid, account.gid) if account else None,
        settings=dict(settings),
        grace=grace,
        lock=lock,
        lease=first_lease,
    )


def _spawn_keeper(orders: Orders, log: Path) -> None:
    """Start the keeper where our terminal's Ctrl-C does not reach it, without our environment's secrets."""
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    home = {"HOME": os.environ["HOME"]} if "HOME" in os.environ else {}  # `pip install --user` installs there
    with os.fdopen(
        os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab"
    ) as written:
        subprocess.run(  # noqa: S603 - our own module, by our own interpreter
            [sys.executable, "-P", "-m", "infrastructure.postgres_keeper", orders.to_json()],
            check=False,  # a keeper that fails leaves its lease without an answer
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            cwd="/",
            env=minimal_environment() | home,
            pass_fds=(orders.lock, orders.lease),
            start_new_session=True,
        )


def _answer(connection: socket.socket) -> str | None:
    """What the keeper says about a lease: empty when the server is there, else the problem; None: nothing."""
    with connection.makefile(encoding="utf-8") as lines:
        line = lines.readline()
    connection.settimeout(None)
    return str(json.loads(line)) if line.endswith("\n") else None


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _last_words(log: Path) -> str:
    try:
        end = log.read_text(errors="replace").splitlines()[-8:]
    except OSError:
        end = []
    return "\n".join([f"Its log {log} ends:", *end]) if end else f"Its log {log} is empty."
