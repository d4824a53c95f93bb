"""What is live: the newest state of every model, as a snapshot of the ledger or as events carry it on."""

import logging
from collections.abc import Mapping
from typing import Final

import asyncpg
from msgspec import Struct

from application.ports import LiveModel
from domain.default import DefaultChanged
from domain.model import ModelDeleted
from domain.values import ModelId, model_of
from infrastructure import codec
from infrastructure.codec import Stored, UnreadableEvent
from infrastructure.database import Connection

logger = logging.getLogger(__name__)

SNAPSHOT_TIMEOUT: Final = 30.0
"""Seconds for each read of a snapshot, whose pages may all have to come from a disk."""

HEAD: Final = "SELECT epoch, position, hash FROM ledger_head"
# Events are fat: the newest one of a stream is all that its past comes to.
NEWEST: Final = """
    SELECT e.stream, e.version, e.position, e.type, e.schema_version, e.body::text AS body, e.recorded_at
    FROM (SELECT 'model/' || id FROM model WHERE NOT deleted UNION ALL SELECT 'default') AS living (stream)
    CROSS JOIN LATERAL (
        SELECT * FROM event WHERE stream = living.stream ORDER BY version DESC LIMIT 1) AS e
"""
BEFORE: Final = """
    SELECT stream, version, position, type, schema_version, body::text AS body, recorded_at
    FROM event WHERE stream = $1 AND version < $2 ORDER BY version DESC LIMIT 1
"""


class Live(Struct, frozen=True):
    """The live models as of a position of the ledger."""

    epoch: str
    position: int
    hash: bytes
    models: Mapping[ModelId, LiveModel]
    default: ModelId | None
    frozen: frozenset[str] = frozenset()
    """Streams whose newest event this release cannot read; they stay at their last good state."""


class LedgerMoved(Exception):
    """The ledger is not the one that was followed: a backup was restored, or its tail was lost."""


async def snapshot(connection: Connection) -> Live:
    """The live models of one moment; takes as long as there are live models.

    Raises:
        LedgerMoved: the ledger has no head.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        head = await connection.fetchrow(HEAD, timeout=SNAPSHOT_TIMEOUT)
        if head is None:
            raise LedgerMoved("the ledger has no head")
        fold = Fold(Live(str(head["epoch"]), head["position"], head["hash"], {}, None))
        for row in await connection.fetch(NEWEST, timeout=SNAPSHOT_TIMEOUT):
            newest: asyncpg.Record | None = row
            while newest is not None and not fold.take(newest):
                newest = await connection.fetchrow(
                    BEFORE, row["stream"], newest["version"], timeout=SNAPSHOT_TIMEOUT
                )
    return fold.live()


class Fold:
    """The live models while events are taken in; a copy once for many events."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._models = dict(live.models)
        self._default = live.default
        self._frozen = set(live.frozen)
        self._position, self._hash = live.position, live.hash

    def live(self) -> Live:
        """What has come of it."""
        models, frozen = self._models, frozenset(self._frozen)
        return Live(self._live.epoch, self._position, self._hash, models, self._default, frozen)

    def follow(self, row: asyncpg.Record) -> None:
        """Take in the next event of the ledger.

        Raises:
            LedgerMoved: it does not follow on what is known.
        """
        if row["position"] != self._position + 1 or row["prev_hash"] != self._hash:
            raise LedgerMoved(f"position {row['position']} does not follow on {self._position}")
        self._position, self._hash = row["position"], row["hash"]
        if self.take(row):
            self._frozen.discard(row["stream"])

    def take(self, row: asyncpg.Record) -> bool:
        """Take in an event by itself; False, and its stream is frozen, when this release cannot read it."""
        stream, model_id = row["stream"], model_of(row["stream"])
        try:
            event = codec.decode(Stored(row["type"], row["schema_version"], row["body"]))
        except UnreadableEvent as error:
            logger.error("position %s: %s; %s stays as it was", row["position"], error, stream)  # noqa: TRY400
            self._frozen.add(stream)
            return False
        if isinstance(event, DefaultChanged):
            self._default = event.model_id
        elif model_id is not None and isinstance(event, ModelDeleted):
            self._models.pop(model_id, None)
        elif model_id is not None:
            version, position, at = row["version"], row["position"], row["recorded_at"]
            self._models[model_id] = LiveModel(model_id, event.config, version, position, at)
        return True
