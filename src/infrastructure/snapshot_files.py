"""The files of the local snapshot: private, written whole or not at all, and two of them.

<data directory>/snapshots/<digest of the database>.json    the newest
                                                   .older   the one before, for when the newest is damaged
                                                   .next    being written
                                                   .lock    held by whoever writes
"""

import fcntl
import logging
import os
import stat
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from msgspec import Struct

from infrastructure.local_snapshot import LocalSnapshot, UnusableSnapshot, decode, encode

logger = logging.getLogger(__name__)

SIZE_LIMIT: Final = 1 << 28
"""Bytes that are read at most: far more than any ledger's live models."""
CLOCK_SKEW: Final = timedelta(minutes=5)
"""A snapshot from further ahead than this tells that a clock is wrong, and nothing about its age."""


class SnapshotFiles(Struct, frozen=True):
    """Where the snapshots of one database are, and how long they may be served."""

    directory: Path
    database: str
    """See `local_snapshot.place_digest`."""
    max_age: timedelta

    def save(self, snapshot: LocalSnapshot) -> None:
        """Make it the newest. Nothing happens while another process of ours saves the same.

        Raises:
            OSError: it could not be written.
        """
        newest, older, following = (self._file(name) for name in ("json", "older", "next"))
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(self.directory.lstat(), stat.S_IFDIR):
            raise PermissionError(f"{self.directory} is open to others, or another user's")
        with ExitStack() as stack:
            if not _locked(self._file("lock"), stack):
                return
            _write(following, encode(snapshot))
            with suppress(FileNotFoundError):
                newest.replace(older)
            following.replace(newest)
            _sync(self.directory)

    def load(self, *, quiet: bool = False) -> LocalSnapshot | None:
        """The newest that can be served now; says why others cannot, unless `quiet`."""
        for file in (self._file("json"), self._file("older")):
            try:
                return self._usable(file)
            except FileNotFoundError:
                continue
            except (UnusableSnapshot, OSError) as error:
                if not quiet:
                    logger.warning("the local snapshot %s is not used: %s", file, error)
        return None

    def _usable(self, file: Path) -> LocalSnapshot:
        if not _is_ours(self.directory.lstat(), stat.S_IFDIR):
            raise UnusableSnapshot("its directory is open to others, or another user's")
        snapshot = decode(_read(file))
        if snapshot.database != self.database:
            raise UnusableSnapshot("it is of another database")
        age = datetime.now(UTC) - snapshot.saved_at
        if age < -CLOCK_SKEW:
            raise UnusableSnapshot("it was saved in the future: a clock is wrong")
        if age > self.max_age:
            hours = self.max_age / timedelta(hours=1)
            raise UnusableSnapshot(f"it is older than MODEL_LEDGER_SNAPSHOT_HOURS allows ({hours:g})")
        return snapshot

    def _file(self, kind: str) -> Path:
        return self.directory / f"{self.database[:16]}.{kind}"


def _locked(file: Path, stack: ExitStack) -> bool:
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(file: Path, content: bytes) -> None:
    with suppress(FileNotFoundError):
        file.unlink()  # left behind by a process that was killed
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as written:
        written.write(content)
        written.flush()
        os.fsync(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(file: Path) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        # Whoever could write it could let themselves in.
        if not _is_ours(found, stat.S_IFREG):
            raise UnusableSnapshot("it is open to others, or another user's")
        if found.st_size > SIZE_LIMIT:
            raise UnusableSnapshot("it is too large")
        return opened.read()


def _is_ours(found: os.stat_result, kind: int) -> bool:
    """Whether it belongs to this process's user, and is closed to the world.

    Made with mode 600 or 700; a group gets in where an operator wants it, as with Kubernetes' fsGroup.
    """
    is_closed = found.st_mode & 0o007 == 0
    return stat.S_IFMT(found.st_mode) == kind and found.st_uid == os.geteuid() and is_closed
