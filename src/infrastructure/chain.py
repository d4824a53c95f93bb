"""The chain, computed anew from the columns of each event.

Shares nothing with the writer, which is the function `ledger_append` inside the database. What is hashed
are fields, each its length in four bytes and then its bytes, or ffffffff for NULL; numbers are big-endian:

    digest = sha256(salt, body, reason, actor_name)
    hash   = sha256(algorithm, prev_hash, position, event_id, stream, version, type, schema_version, digest,
                    actor, meta, recorded_at in microseconds since 1970)
"""

import struct
from collections import Counter
from hashlib import sha256
from typing import Final

import asyncpg
from msgspec import Struct

ALGORITHM: Final = b"model-ledger/sha256/1"
GENESIS: Final = bytes(32)
"""What the first event has for the hash before it."""
OLDEST: Final = -(2**63)
"""Stands for a time that is not finite; before every other."""
MICROSECONDS: Final = (
    "CASE WHEN isfinite({0}) THEN (extract(epoch FROM {0}) * 1000000)::bigint"
    " ELSE '-9223372036854775808'::bigint END"
)
"""SQL: a time as microseconds since 1970, or `OLDEST`."""

# Texts come as their UTF-8 bytes, as they were hashed.
EVENTS: Final = f"""
    SELECT position, uuid_send(event_id) AS event_id, convert_to(stream, 'UTF8') AS stream, version,
        convert_to(type, 'UTF8') AS type, int2send(schema_version) AS schema_version,
        convert_to(body::text, 'UTF8') AS body, body_salt, body_digest, convert_to(actor, 'UTF8') AS actor,
        convert_to(actor_name, 'UTF8') AS actor_name, convert_to(reason, 'UTF8') AS reason,
        convert_to(meta::text, 'UTF8') AS meta, {MICROSECONDS.format("recorded_at")} AS recorded_at,
        prev_hash, hash
    FROM event WHERE position > $1 ORDER BY position LIMIT $2
"""  # noqa: S608 - made of constants

ABSENT: Final = b"\xff\xff\xff\xff"
UINT32: Final = struct.Struct(">I")
INT32: Final = struct.Struct(">i")
INT64: Final = struct.Struct(">q")


class Failure(Struct, frozen=True):
    """Something that is not as it was recorded; `position` is None for what is no event."""

    position: int | None
    subject: str
    detail: str

    def __str__(self) -> str:
        """One line for people."""
        place = "" if self.position is None else f"position {self.position}, "
        return f"{place}{self.subject}: {self.detail}"


class Chain:
    """The part of the ledger that is proved so far; at first nothing."""

    def __init__(self) -> None:
        self.position = 0
        self.hash = GENESIS
        self.recorded_at = OLDEST
        """Microseconds since 1970, of the last event."""
        self.versions: dict[bytes, int] = {}
        """The last version of each stream."""
        self.types: Counter[tuple[bytes, bytes]] = Counter()
        """How many events there are of each type and schema version (two bytes)."""

    def take(self, row: asyncpg.Record) -> Failure | None:
        """Take the next row of `EVENTS` in, or say what is wrong with it."""
        position, wanted = row["position"], self.position + 1
        if position > wanted:
            return Failure(wanted, "event", f"position {wanted} is missing")
        if position < wanted:
            return Failure(position, "event", f"position {position} is before the first one")
        if problem := self._misplaced(row) or _altered(row):
            return Failure(position, f"{row['stream'].decode()} version {row['version']}", problem)
        self.position, self.hash, self.recorded_at = position, row["hash"], row["recorded_at"]
        self.versions[row["stream"]] = row["version"]
        self.types[row["type"], row["schema_version"]] += 1
        return None

    def _misplaced(self, row: asyncpg.Record) -> str | None:
        """How the event does not follow on the ones before it; None when it does."""
        last = self.versions.get(row["stream"], 0)
        if row["version"] != last + 1:
            return f"its version does not follow on version {last} of its stream"
        if row["recorded_at"] < self.recorded_at:
            return "its recorded_at is before that of the event before it"
        if row["prev_hash"] != self.hash:
            return "its prev_hash is not the hash of the event before it"
        return None


def _altered(row: asyncpg.Record) -> str | None:
    """Which digest the event's columns do not have; None when they have both."""
    digest = _sha256(row["body_salt"], row["body"], row["reason"], row["actor_name"])
    if row["body_digest"] != digest:
        return "its body, reason or actor_name does not match its body_digest"
    place = (ALGORITHM, row["prev_hash"], INT64.pack(row["position"]), row["event_id"], row["stream"])
    kind = (INT32.pack(row["version"]), row["type"], row["schema_version"])
    content = (digest, row["actor"], row["meta"], INT64.pack(row["recorded_at"]))
    return None if row["hash"] == _sha256(*place, *kind, *content) else "its hash is not that of its columns"


def _sha256(*fields: bytes | None) -> bytes:
    return sha256(b"".join([_field(field) for field in fields])).digest()


def _field(value: bytes | None) -> bytes:
    return ABSENT if value is None else UINT32.pack(len(value)) + value
