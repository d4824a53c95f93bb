"""The commands that look after a ledger, while the service runs or not."""

from infrastructure.database import Database
from infrastructure.rebuild import Rebuilt, rebuild
from infrastructure.verify import Verdict, verify


async def verify_ledger(url: str) -> Verdict:
    """Verify the ledger of a database; changes nothing.

    Raises:
        DatabaseUnusable: it is out of reach, or has no ledger.
    """
    async with Database(url).ledger(readonly=True) as connection:
        return await verify(connection)


async def rebuild_projection(url: str) -> Rebuilt:
    """Make the projection anew from the events, while the service runs or not.

    Raises:
        DatabaseUnusable: it is out of reach, or has no ledger.
    """
    async with Database(url).ledger(readonly=False) as connection:
        return await rebuild(connection)
