"""PostgreSQL keeps the promises of the ports, as the fakes of the unit tests do."""

from collections.abc import AsyncIterator

import pytest
from event_store_contract import EventStoreContract
from service import Databases
from views_contract import ViewsContract

from infrastructure.database import Database, alchemy
from infrastructure.event_store import PostgresEventStore
from infrastructure.views import PostgresViews


class OnPostgres:
    """The ports on an empty ledger of its own."""

    @pytest.fixture
    async def store(self, databases: Databases, database: str) -> AsyncIterator[PostgresEventStore]:
        async with Database(databases.app_url(database)).pool(4) as pool:
            yield PostgresEventStore(pool)

    @pytest.fixture
    async def views(self, databases: Databases, database: str) -> AsyncIterator[PostgresViews]:
        engine = Database(databases.app_url(database)).engine()
        yield PostgresViews(alchemy(engine))
        await engine.dispose()


class TestPostgresEventStore(OnPostgres, EventStoreContract):
    """See the contract."""


class TestPostgresViews(OnPostgres, ViewsContract):
    """See the contract."""
