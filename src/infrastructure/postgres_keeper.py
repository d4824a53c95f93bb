"""The process that keeps the embedded PostgreSQL running for as long as anyone holds a lease on it.

    started by the first lease --> serving --(no lease for the grace, SIGTERM, data root deleted)--> stopping
                                    |   ^
                     (server died)  v   |  (at most 5 times a minute)
                                   healing

A lease is an open Unix socket, so a holder that is killed gives it back like one that closes it. The lock
on `keeper.lock`, inherited from the starter, makes this the only keeper of its directory, and ends with it.

Run as `python -m infrastructure.postgres_keeper <orders as JSON>`, by `infrastructure.embedded` only.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

from infrastructure.postgres_account import Account, EmbeddedPostgresError
from infrastructure.postgres_server import Cluster, PostgresServer

LEASE_SOCKET = "lease"
MOST_RESTARTS = 5
RESTART_WINDOW = 60.0  # seconds
LOOK_AROUND = 1.0  # seconds between looks whether the data root is still there


@dataclass(frozen=True)
class Orders:
    """All that a keeper is told. `lock` and `lease` (the first one) are inherited file descriptors."""

    binaries: str
    data: str
    sockets: str
    run_as: tuple[str, int, int] | None
    settings: dict[str, str]
    grace: float
    lock: int
    lease: int

    def to_json(self) -> str:
        """The form in which orders travel on the command line."""
        return json.dumps(asdict(self))

    def cluster(self) -> Cluster:
        """The part that is about the server."""
        account = Account(*self.run_as) if self.run_as else None
        return Cluster(Path(self.binaries), Path(self.data), Path(self.sockets), account, self.settings)


class Leases:
    """The open leases, and the socket at which new ones are taken."""

    def __init__(self, first: socket.socket, path: Path) -> None:
        self._path = path
        self._held = {first}
        self._listener = socket.socket(socket.AF_UNIX)
        self._selector = selectors.DefaultSelector()
        self._awake, waker = socket.socketpair()
        for end in (self._awake, waker):
            end.settimeout(0)  # as set_wakeup_fd demands
        self._waker = waker

    def __bool__(self) -> bool:
        return bool(self._held)

    def open(self) -> None:
        """Tell the first holder that the server is there, take others from now on, and wake for signals."""
        self._path.unlink(missing_ok=True)  # a killed keeper's, where nobody listens any more
        self._listener.bind(str(self._path))
        self._listener.listen(128)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno())
        for waited_for in (self._awake, self._listener):
            self._selector.register(waited_for, selectors.EVENT_READ)
        for first in list(self._held):
            self._welcome(first)

    def wait(self, timeout: float) -> set[int]:
        """Wait for a change of the leases or a signal, `timeout` seconds at most; the signals that came."""
        signals: set[int] = set()
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._awake:
                signals |= set(self._awake.recv(1024))
            elif key.fileobj is self._listener:
                self._welcome(self._listener.accept()[0])
            elif isinstance(key.fileobj, socket.socket) and not _alive(key.fileobj):
                self._end(key.fileobj)
        return signals

    def close(self) -> None:
        """Take no more leases; whoever is just asking finds a closed door and starts another keeper."""
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _welcome(self, holder: socket.socket) -> None:
        self._held.add(holder)
        self._selector.register(holder, selectors.EVENT_READ)
        if not _tell(holder, ""):
            self._end(holder)

    def _end(self, holder: socket.socket) -> None:
        self._selector.unregister(holder)
        self._held.discard(holder)
        holder.close()


def main() -> None:
    """Become a process of its own, run the server, and tell the first lease's holder what came of it."""
    orders = Orders(**json.loads(sys.argv[1]))
    if os.fork():  # the starter waits for this one; the other has no parent who would have to bury it
        os._exit(0)
    first = socket.socket(fileno=orders.lease)
    server = PostgresServer(orders.cluster())
    leases = Leases(first, Path(orders.sockets) / LEASE_SOCKET)
    try:
        server.initialise()
        server.start()
        leases.open()
        _serve(server, leases, orders)
    except (EmbeddedPostgresError, OSError) as problem:
        print(f"keeper: {problem}", file=sys.stderr)  # noqa: T201 - the server's log
        _tell(first, str(problem))
    finally:
        if _is_deleted(orders.lock):
            server.stop()
        else:
            leases.close()
            server.stop()
            _remove_if_empty(Path(orders.sockets))


def _serve(server: PostgresServer, leases: Leases, orders: Orders) -> None:
    """Run until nobody has held a lease for the grace, or this process is ended, or its data root deleted."""
    restarts: deque[float] = deque(maxlen=MOST_RESTARTS)
    idle_since = time.monotonic()
    while not _is_deleted(orders.lock):
        now = time.monotonic()
        if leases:
            idle_since = now
        elif now - idle_since >= orders.grace:
            return
        if server.has_ended():
            _heal(server, restarts)
        rest_of_grace = idle_since + orders.grace - now
        signals = leases.wait(LOOK_AROUND if leases else min(LOOK_AROUND, rest_of_grace))
        if signals & {signal.SIGTERM, signal.SIGINT}:
            return


def _heal(server: PostgresServer, restarts: deque[float]) -> None:
    """Start a server that died, on the same data and socket. `restarts`: when the last ones were."""
    while True:
        now = time.monotonic()
        if len(restarts) == MOST_RESTARTS and now - restarts[0] < RESTART_WINDOW:
            raise EmbeddedPostgresError(
                f"PostgreSQL died {MOST_RESTARTS} times within {RESTART_WINDOW:.0f} s."
            )
        restarts.append(now)
        try:
            server.start()
        except EmbeddedPostgresError as problem:
            print(f"keeper: {problem}", file=sys.stderr)  # noqa: T201 - the server's log
            continue
        return


def _is_deleted(file: int) -> bool:
    """Whether an open file has no name any more. Another keeper may then use the paths that were ours."""
    return os.fstat(file).st_nlink == 0


def _tell(holder: socket.socket, problem: str) -> bool:
    """Send the one line that a holder waits for: a JSON string, empty when the server is there."""
    try:
        holder.sendall(json.dumps(problem).encode() + b"\n")
    except OSError:  # gone already
        return False
    return True


def _alive(holder: socket.socket) -> bool:
    try:
        return bool(holder.recv(64))
    except OSError:
        return False


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):  # not empty: somebody else's matter
        directory.rmdir()


if __name__ == "__main__":
    main()
