"""`model-ledger verify`: the chain computed anew, and the projection held against the events.

Reads one snapshot, which writers neither wait for nor disturb, and keeps one number for each stream in
memory. What it cannot see: a history that was rewritten as a whole, with every hash and the head. Only a
hash that was noted elsewhere tells that; this is why the verdict gives it.
"""

from typing import Final

from msgspec import Struct

from infrastructure import codec, replay
from infrastructure.chain import EVENTS, MICROSECONDS, OLDEST, Chain, Failure
from infrastructure.database import Connection

__all__ = ["Failure", "Verdict", "verify"]

BATCH: Final = 5_000
TIMEOUT: Final = 60.0
"""Seconds that one statement may take."""
SHOWN: Final = 20
"""Failures and notes that are printed; the verdict has all."""

HEAD: Final = f"""
    SELECT position, hash, {MICROSECONDS.format("recorded_at")} AS recorded_at FROM ledger_head
"""  # noqa: S608 - made of constants


class Verdict(Struct, frozen=True, kw_only=True):
    """What verification found."""

    ok: bool
    events: int
    """Events that are as they were recorded, counted from the first."""
    hash: str
    """The chain's hash after those, hexadecimal."""
    position_of_first_bad: int | None
    """The first position whose event is altered, misplaced, missing or one too many; None when none is."""
    failures: list[Failure]
    notes: list[str]
    """What could not be verified, though nothing is known to be wrong with it."""

    def lines(self) -> list[str]:
        """The verdict in plain sentences."""
        notes = [f"Note: {note}" for note in self.notes]
        if self.ok:
            proved = f"{self.events} events, chain and projection verified up to position {self.events}"
            return [f"{proved}, hash {self.hash}", *_some(notes)]
        if self.position_of_first_bad is None:
            headline = (
                f"NOT VERIFIED: the chain of {self.events} events holds, but the rows beside it do not."
            )
        else:
            headline = f"NOT VERIFIED: position {self.position_of_first_bad} is the first bad one."
        return [headline, *_some([str(failure) for failure in self.failures]), *_some(notes)]

    def __str__(self) -> str:
        """The verdict as it is printed."""
        return "\n".join(self.lines())


async def verify(connection: Connection) -> Verdict:
    """Verify the whole ledger. The connection may have the service's own rights, and is in no transaction.

    It stops at the first bad event: the projection is compared only if there is none.

    Raises:
        OSError, asyncpg.PostgresError: the database is away, or has no ledger.
    """
    chain = Chain()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        bad = await _walk(connection, chain) or await _end(connection, chain)
        notes = _unknown(chain)
        if bad:
            notes.append("the projection was not compared, as that takes events that verify")
            return _verdict(chain, [bad], notes)
        versions = {stream.decode(): version for stream, version in chain.versions.items()}
        replayed = await replay.compare(connection, versions)
    return _verdict(chain, replayed.failures, [*notes, *replayed.notes])


def _verdict(chain: Chain, failures: list[Failure], notes: list[str]) -> Verdict:
    first_bad = failures[0].position if failures else None
    return Verdict(
        ok=not failures,
        events=chain.position,
        hash=chain.hash.hex(),
        position_of_first_bad=first_bad,
        failures=failures,
        notes=notes,
    )


async def _walk(connection: Connection, chain: Chain) -> Failure | None:
    """Take in every event, in the order of positions; answers the first bad one."""
    after = OLDEST  # a row at position 0 is found as well
    while rows := await connection.fetch(EVENTS, after, BATCH, timeout=TIMEOUT):
        for row in rows:
            if bad := chain.take(row):
                return bad
        after = chain.position
    return None


async def _end(connection: Connection, chain: Chain) -> Failure | None:
    """Compare the ledger's head with its last event."""
    heads = await connection.fetch(HEAD, timeout=TIMEOUT)
    if len(heads) != 1:
        return Failure(None, "ledger_head", f"it has {len(heads)} rows instead of one")
    position, hash_, recorded_at = heads[0]
    if position > chain.position:
        missing = chain.position + 1
        return Failure(missing, "event", f"position {missing} is missing: the ledger's head is at {position}")
    if position < chain.position:
        return Failure(position + 1, "event", f"it lies beyond the ledger's head, which is at {position}")
    if (hash_, recorded_at) != (chain.hash, chain.recorded_at):
        which = "hash" if hash_ != chain.hash else "recorded_at"
        return Failure(position or None, "ledger_head", f"its {which} is not that of the last event")
    return None


def _unknown(chain: Chain) -> list[str]:
    """Tell of events that a newer release wrote: the chain proves them, nothing here reads them."""
    notes = []
    for (kind, version), count in chain.types.items():
        known = codec.SCHEMA_VERSIONS.get(kind.decode(), 0)
        schema_version = int.from_bytes(version, signed=True)
        if schema_version > known:
            notes.append(
                f"{count} events of {kind.decode()}, schema version {schema_version}, are not known here"
            )
    return notes


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN
    return lines if more <= 0 else [*lines[:SHOWN], f"... and {more} more"]
