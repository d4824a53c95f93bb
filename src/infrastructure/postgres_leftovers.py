"""What an earlier PostgreSQL server left behind: whether anything of it still runs, and how that is ended.

Whether a server is gone is asked of a file lock that each of its processes inherits, never of a process id
alone: ids are used again, but the lock is free exactly when the last process that had it is gone.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from infrastructure.postgres_account import Account, EmbeddedPostgresError, run_quietly

PROCESSES = Path("/proc")  # as on Linux only
# Looked for as the server's own user: in a container, root may not see where another user's processes work.
RESIDENTS = """
for process in /proc/[0-9]*; do
    [ "$process/cwd" -ef "$0" ] && read -r name <"$process/comm" && [ "$name" = postgres ] &&
        echo "${process#/proc/}"
done
"""
POLL = 0.01  # seconds
LAST_PATIENCE = 10.0  # seconds for a process to vanish after SIGKILL


def try_lock(lock: int) -> bool:
    """Take the lock of an open file, if nobody has it; a process that inherits the file has it too."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sole_lock(data: Path, account: Account | None, patience: float) -> int:
    """The lock, as an open file, that the next server on `data` inherits; whatever still runs there is ended.

    account: who runs the server, as in Cluster.
    patience: seconds that an orderly end may take.
    """
    lock = os.open(data.with_name("server.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    began = time.monotonic()
    told: set[tuple[int, signal.Signals]] = set()
    while not try_lock(lock):
        waited = time.monotonic() - began
        if waited > patience + LAST_PATIENCE:
            os.close(lock)
            raise EmbeddedPostgresError(f"Processes of an earlier PostgreSQL server on {data} do not end.")
        for ending in set(_endings(data, account, polite=waited < patience)) - told:
            told.add(ending)
            with contextlib.suppress(ProcessLookupError):
                os.kill(*ending)
        time.sleep(POLL)
    return lock


def postmaster(data: Path) -> int | None:
    """The first process of a server on `data`; None when the id in its file is not a server's."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        command = _command_of(pid)
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(data) in command else None


def _endings(data: Path, account: Account | None, *, polite: bool) -> Iterator[tuple[int, signal.Signals]]:
    first = postmaster(data)
    if first is not None:
        # Only this one: it ends the others in order, and SIGINT means something else to some of them.
        yield first, signal.SIGINT if polite else signal.SIGKILL
        return
    # Without it the others end by themselves, but not in the middle of a query.
    for pid in _residents(data, account):
        yield pid, signal.SIGQUIT if polite else signal.SIGKILL


def _command_of(pid: int) -> bytes:
    if PROCESSES.is_dir():
        return (PROCESSES / str(pid) / "cmdline").read_bytes()
    listing = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(listing, check=False, capture_output=True).stdout  # noqa: S603 - only the number varies


def _residents(data: Path, account: Account | None) -> Iterator[int]:
    """Every process that works in `data`, as all of a server's do. Only Linux tells."""
    for line in run_quietly(["/bin/sh", "-c", RESIDENTS, str(data)], account).stdout.split():
        yield int(line)
