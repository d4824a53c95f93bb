"""One worker process: what it is told, and its objects, wired."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from litestar import Litestar
from msgspec import Struct

from application.ledger import Ledger
from application.workers import WorkerState
from domain.values import Origin
from infrastructure.access_tokens import AccessTokens
from infrastructure.client_pool import ClientPool
from infrastructure.connection_tester import ProviderTester
from infrastructure.database import Database, alchemy, opened
from infrastructure.entra import EntraTokens, azure_identity
from infrastructure.event_store import PostgresEventStore
from infrastructure.follower import Follower
from infrastructure.live import Live
from infrastructure.metric_table import MetricTable
from infrastructure.metrics import Metrics, State, metric_table
from infrastructure.provider import Key, KeyRing, Providers
from infrastructure.recall import Recall
from infrastructure.sessions import PostgresSessions
from infrastructure.snapshot_files import SnapshotFiles
from infrastructure.usage import CONNECTIONS, PostgresUsage
from infrastructure.usage_log import UsageLog
from infrastructure.views import PostgresViews
from infrastructure.worker_roll import PostgresWorkerRoll
from web.browsers import Site
from web.composition.background import in_background, stop_with_parent
from web.feed import Feed
from web.health import Readiness, Status
from web.stopping import Patience, Stopping
from web.telemetry_settings import Telemetry

POOL_SIZE: Final = 4
"""Connections of a worker for changes; the read side has its own, up to ten."""
OWN_CHANGE: Final = 0.5
"""Seconds that the answer to a change waits until this worker serves it; usual are a few milliseconds."""
FIRST_SNAPSHOT: Final = 10.0
"""Seconds that a start waits for the ledger's state before it serves without."""


class Entra(Struct, frozen=True):
    """Where tokens of Entra ID stand for a key."""

    scope: str
    origins: frozenset[Origin]


class Standby(Struct, frozen=True):
    """What a process may serve from that has never reached the database."""

    files: SnapshotFiles
    administrator: bytes | None
    """The digest of the administrator's token that the environment gives."""


class Worker(Struct, frozen=True):
    """All that one worker process is told; handed over in memory, never by environment or argument."""

    database: Database
    keys: Mapping[Origin, str]
    o_series_max_retries: int
    require_if_match: bool
    entra: Entra | None = None
    usage_days: int = 30
    standby: Standby | None = None
    metrics: MetricTable | None = None
    """Shared by all workers; one that gets none has a table of its own."""
    local_metrics: bool = False
    telemetry: Telemetry = Telemetry()
    patience: Patience = Patience()
    site: Site = Site()

    def __repr__(self) -> str:
        """Without the keys."""
        return f"Worker({self.database!r})"


class Parts:
    """The objects of one worker, wired; nothing is open before `lifespan`."""

    def __init__(self, worker: Worker, number: int = 0) -> None:
        ring = KeyRing({**_tokens(worker.entra), **worker.keys})
        self.pool = worker.database.pool(POOL_SIZE)
        self.engine = worker.database.engine()
        self.views = PostgresViews(alchemy(self.engine))
        self.origins = ring.origins
        self.ledger = Ledger(PostgresEventStore(self.pool), ring.origins)
        self.tokens = AccessTokens()
        self.sessions = PostgresSessions(self.pool, self.tokens)
        providers = Providers(ring, worker.o_series_max_retries)
        self.clients = ClientPool(providers.connect)
        self.tester = ProviderTester(providers)
        self.recall = recall_of(worker, self.tokens)
        self.follower = Follower(
            worker.database, [self._serve], [self.tokens.read, self.sessions.read], self.recall.live
        )
        self.roll = PostgresWorkerRoll(self.pool, self._standing, self.follower.moved)
        self.feed = Feed(self.views, self.follower.moved)
        self.stopping = Stopping(worker.patience)
        self.usage_pool = worker.database.pool(CONNECTIONS)
        self.usage_records = PostgresUsage(self.usage_pool)
        self.usage_days = worker.usage_days
        self.usage = UsageLog(self.usage_records.write, kept=worker.usage_days > 0)
        self.metrics = Metrics(worker.metrics or metric_table(1), number, self.state)

    async def _serve(self, live: Live) -> None:
        await self.clients.reconcile(live.models)

    def _standing(self) -> WorkerState:
        told = self.health()
        return WorkerState(told.position, told.status, told.follower, told.degraded)

    async def serves(self, position: int) -> None:
        """Wait until calls here see what stands at that position; not for ever, as the change is made."""
        follower = self.follower
        with suppress(TimeoutError):
            async with asyncio.timeout(OWN_CHANGE):
                while (place := follower.place)[1] < position:
                    await follower.moved(place)

    def health(self) -> Readiness:
        """What the probes are told."""
        follower, live = self.follower, self.follower.live
        age = int(self.recall.age) if live and not follower.reached else None
        degraded = []
        if live is None:
            degraded.append("the database was not reached yet, and nothing stands in for it")
        elif age is not None:
            degraded.append("the database does not answer: serving the local snapshot of the configuration")
        elif not follower.connected:
            degraded.append("the database does not answer: serving the last known configuration")
        if live and live.frozen:
            degraded.append(
                f"{len(live.frozen)} models were changed by a newer release and stay as they were"
            )
        if self.clients.degraded:
            degraded.append(f"{len(self.clients.degraded)} models have a configuration that no client fits")
        serving: Status = "degraded" if degraded else "ready"
        return Readiness(
            "stopping" if self.stopping.begun else "starting" if live is None else serving,
            follower.position,
            follower.mode if follower.connected else "disconnected",
            degraded,
            age,
        )

    def state(self) -> State:
        """What the metrics tell of this worker."""
        follower, clients = self.follower, self.clients
        current_at = follower.current_at
        if follower.live is not None and not follower.reached:
            current_at = time.monotonic() - self.recall.age
        return State(
            running=clients.leases,
            active=clients.open,
            draining=clients.draining,
            degraded=len(clients.degraded),
            position=follower.position,
            current_at=current_at,
            listening=follower.connected and follower.mode == "listening",
            waiting=self.usage.waiting,
            dropped=self.usage.dropped,
        )

    @asynccontextmanager
    async def lifespan(self, _: Litestar) -> AsyncIterator[None]:
        """Open everything in order, and close it in the other."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.dispose)
            await stack.enter_async_context(opened(self.pool))
            await stack.enter_async_context(opened(self.usage_pool))
            await in_background(stack, self.usage_records.keep(self.usage_days))
            stack.push_async_callback(self.usage.close)
            await in_background(stack, self.usage.run())
            stack.push_async_callback(self.clients.close)
            await in_background(stack, self.sessions.run())
            await in_background(stack, self.follower.run())
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_SNAPSHOT):
                    await self.follower.started()
            await in_background(stack, self.metrics.run())
            stack.push_async_callback(self.roll.leave)
            await in_background(stack, self.roll.run())
            await in_background(stack, self.feed.run(self.follower.place))
            stack.enter_context(self.stopping.heeding(self.feed.close))
            stop_with_parent()
            yield


def recall_of(worker: Worker, tokens: AccessTokens) -> Recall:
    """What a process serves from while it has never reached the database."""
    standby, preparation = worker.standby, worker.database.preparation
    is_told = preparation is not None and not preparation.done  # by the start that chose the snapshot
    return Recall(
        standby.files if standby else None, tokens, standby.administrator if standby else None, quiet=is_told
    )


def _tokens(entra: Entra | None) -> Mapping[Origin, Key]:
    """The tokens of Entra ID, by the origins that get them."""
    return dict.fromkeys(entra.origins, EntraTokens(azure_identity(entra.scope))) if entra else {}
