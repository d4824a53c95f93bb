"""What is served while the database was never reached: the local snapshot, until it is too old."""

import logging
import time
from datetime import UTC, datetime

from infrastructure.access_tokens import AccessTokens
from infrastructure.live import Live
from infrastructure.local_snapshot import LocalSnapshot
from infrastructure.snapshot_files import SnapshotFiles

logger = logging.getLogger(__name__)


class Recall:
    """One process's view of the snapshot: loaded when it is first asked for, and forgotten in time."""

    def __init__(
        self, files: SnapshotFiles | None, tokens: AccessTokens, administrator: bytes | None, *, quiet: bool
    ) -> None:
        """`administrator`: see `AccessTokens.recall`; `quiet`: what is wrong with the files was told."""
        self._files = files
        self._tokens = tokens
        self._administrator = administrator
        self._quiet = quiet
        self._snapshot: LocalSnapshot | None = None
        self._age = 0.0
        self._loaded_at = 0.0
        self._is_loaded = False

    @property
    def age(self) -> float:
        """Seconds since what is served was last known to be the ledger's state."""
        return self._age + time.monotonic() - self._loaded_at

    def live(self) -> Live | None:
        """The live models to serve; None when there are none that are young enough."""
        if self._files is None:
            return None
        if not self._is_loaded:
            self._load(self._files)
        elif self._snapshot and self.age > self._files.max_age.total_seconds():
            logger.error(
                "the local snapshot is older than MODEL_LEDGER_SNAPSHOT_HOURS allows and the database is "
                "still away: nothing is served any more"
            )
            self._tokens.forget()
            self._snapshot = None
        return self._snapshot.live if self._snapshot else None

    def _load(self, files: SnapshotFiles) -> None:
        self._is_loaded = True
        self._snapshot = files.load(quiet=self._quiet)
        if self._snapshot is None:
            return
        self._age = max(0.0, (datetime.now(UTC) - self._snapshot.saved_at).total_seconds())
        self._loaded_at = time.monotonic()
        callers = {bytes.fromhex(each): caller for each, caller in self._snapshot.callers.items()}
        self._tokens.recall(callers, self._administrator)
