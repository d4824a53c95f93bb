"""`model-ledger rebuild`: the projection made anew from the events.

The work is done by the function `ledger_rebuild` of the first migration, in one statement and under the
lock that every append takes: no event can come between reading and writing. Readers see the old rows until
it commits and the new ones after, and never wait; an append waits for as long as it takes, which depends on
the number of models and not on the length of their history.
"""

from typing import Final

from msgspec import Struct

from infrastructure.database import Connection

TIMEOUT: Final = 60.0
"""Seconds. An append that waits for more than 2 is refused with `ledger_busy`."""
REBUILD: Final = "SELECT models, changed FROM ledger_rebuild()"


class Rebuilt(Struct, frozen=True):
    """What a rebuild did."""

    models: int
    """Models in the projection, deleted ones included."""
    changed: int
    """Rows that were added, removed or put right, that of the default pointer included."""

    def lines(self) -> list[str]:
        """What was done, in a plain sentence."""
        outcome = f"{self.changed} rows put right" if self.changed else "every row was right already"
        return [f"{self.models} models rebuilt from their events: {outcome}"]

    def __str__(self) -> str:
        """What was done, as it is printed."""
        return "\n".join(self.lines())


async def rebuild(connection: Connection) -> Rebuilt:
    """Make the rows of `model` and `default_model` anew. The connection may have the service's own rights.

    The row of a model whose newest event is of a type or schema version that the database's release does
    not know stays as it is. If a row changed, every worker reads the models anew. The events are taken as
    they are: verify them first.

    Raises:
        asyncpg.LockNotAvailableError: appends held the ledger's lock for 2 s; try again.
        OSError, asyncpg.PostgresError: the database is away, or has no ledger.
    """
    row = await connection.fetchrow(REBUILD, timeout=TIMEOUT)
    return Rebuilt(row["models"], row["changed"]) if row else Rebuilt(0, 0)
