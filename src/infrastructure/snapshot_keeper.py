"""Who writes the local snapshot."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from domain.values import Origin
from infrastructure.access_tokens import AccessTokens
from infrastructure.follower import Follower
from infrastructure.local_snapshot import LocalSnapshot
from infrastructure.snapshot_files import SnapshotFiles

logger = logging.getLogger(__name__)

LOOK: Final = 1.0
"""Seconds between looks at what a follower knows: the shortest time between two writes."""
REFRESH: Final = 60.0
"""Seconds after which a snapshot is written again though nothing changed, so that its age tells the truth."""


class SnapshotKeeper:
    """Keeps the files at what a follower knows of the ledger. One runs beside the workers, in a loop where
    nobody waits for a disk."""

    def __init__(
        self, files: SnapshotFiles, follower: Follower, tokens: AccessTokens, demo_origin: Origin | None
    ) -> None:
        self._files = files
        self._follower = follower
        self._tokens = tokens
        self._demo_origin = demo_origin
        self._saved: LocalSnapshot | None = None
        self._has_complained = False

    async def run(self) -> None:
        """Save what is new each second, until cancelled; then once more."""
        known = None
        try:
            while True:
                known = self._known() or known
                if known and self._is_due(known):
                    self._save(known)
                await asyncio.sleep(LOOK)
        finally:
            known = self._known() or known
            if known and self._is_new(known):
                self._save(known)

    def _known(self) -> LocalSnapshot | None:
        """What the follower knows; None while it does not hear from the database."""
        live, callers = self._follower.live, self._tokens.callers
        if not self._follower.connected or live is None or callers is None:
            return None
        named = {digest.hex(): caller for digest, caller in callers.items()}
        return LocalSnapshot(self._files.database, datetime.now(UTC), live, named, self._demo_origin)

    def _is_due(self, known: LocalSnapshot) -> bool:
        if self._saved is None or self._is_new(known):
            return True
        return abs((known.saved_at - self._saved.saved_at).total_seconds()) >= REFRESH  # clocks are set back

    def _is_new(self, known: LocalSnapshot) -> bool:
        saved = self._saved
        return saved is None or known.live is not saved.live or known.callers != saved.callers

    def _save(self, known: LocalSnapshot) -> None:
        self._saved = known  # also when it fails: another try comes with the next change, or in a minute
        try:
            self._files.save(known)
            self._has_complained = False
        except Exception as error:
            if not self._has_complained:
                logger.warning(
                    "the local snapshot cannot be written, so that no start works while the database is "
                    "away (MODEL_LEDGER_SNAPSHOT_HOURS=0 does without): %s",
                    error,
                    exc_info=not isinstance(error, OSError),
                )
            self._has_complained = True
