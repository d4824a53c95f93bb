"""The composition root: the only module that knows both the web and the infrastructure."""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from msgspec import Struct
from uvicorn.config import STARTUP_FAILURE

from application.bootstrap import azure_model, create_first_model, demo_model
from application.ledger import Ledger
from application.telemetry import CallLogs, Untraced
from application.workers import WorkerState
from domain.access import Permission
from domain.errors import LedgerError
from domain.values import Origin
from infrastructure.access_tokens import AccessTokens, digest, ensure_administrator
from infrastructure.client_pool import ClientPool
from infrastructure.connection_tester import ProviderTester
from infrastructure.database import Database, DatabaseAway, DatabaseUnusable, alchemy, opened, start_errors
from infrastructure.demo_process import DemoProcess
from infrastructure.embedded import EmbeddedPostgresError, data_root, lease
from infrastructure.entra import EntraTokens, azure_identity
from infrastructure.event_store import PostgresEventStore
from infrastructure.follower import Follower, pause
from infrastructure.installation import choose_demo_origin, demo_origin
from infrastructure.live import Live
from infrastructure.local_snapshot import place_digest
from infrastructure.metric_table import MetricTable
from infrastructure.metrics import Metrics, State, metric_table
from infrastructure.preparation import Preparation
from infrastructure.provider import Key, KeyRing, Providers
from infrastructure.rebuild import Rebuilt, rebuild
from infrastructure.recall import Recall
from infrastructure.sessions import PostgresSessions, make_sign_in_link
from infrastructure.snapshot_files import SnapshotFiles
from infrastructure.snapshot_keeper import SnapshotKeeper
from infrastructure.usage import CONNECTIONS, PostgresUsage
from infrastructure.usage_log import UsageLog
from infrastructure.verify import Verdict, verify
from infrastructure.views import PostgresViews
from infrastructure.worker_roll import PostgresWorkerRoll
from web.browsers import Site
from web.events import EventController
from web.feed import Feed
from web.gateway.answers import Gateway
from web.gateway.routes import GatewayController
from web.health import HealthController, Readiness, Status
from web.history import HistoryController
from web.identity import Gate, name_request, provide_change
from web.metrics import CountRefusals, MetricsController
from web.models import DefaultController, ModelController
from web.openapi import contract
from web.pages import page_routes
from web.problems import answer_bug, answer_http, answer_refusal
from web.sessions import SessionController
from web.settings import Settings
from web.stopping import Patience, Stopping
from web.telemetry_settings import Telemetry
from web.usage import UsageController
from web.worker_list import WorkerController

if TYPE_CHECKING:
    from infrastructure.tracing import OpenTelemetry

__all__ = [
    "DatabaseUnusable",
    "EmbeddedPostgresError",
    "Prepared",
    "contract_document",
    "create_app",
    "database_urls",
    "keep_beside",
    "prepare",
    "prepare_later",
    "rebuild_projection",
    "verify_ledger",
]

logger = logging.getLogger(__name__)

POOL_SIZE: Final = 4
"""Connections of a worker for changes; the read side has its own, up to ten."""
FIRST_SNAPSHOT: Final = 10.0
"""Seconds that a start waits for the ledger's state before it serves without."""
DEMO_KEY: Final = "demonstration"
"""What the demo upstream asks for; no secret, as it guards nothing."""
BODY_LIMIT: Final = 1_000_000
"""Bytes, below /api."""


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
        self.recall = _recall(worker, self.tokens)
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
            await _background(stack, self.usage_records.keep(self.usage_days))
            stack.push_async_callback(self.usage.close)
            await _background(stack, self.usage.run())
            stack.push_async_callback(self.clients.close)
            await _background(stack, self.sessions.run())
            await _background(stack, self.follower.run())
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_SNAPSHOT):
                    await self.follower.started()
            await _background(stack, self.metrics.run())
            stack.push_async_callback(self.roll.leave)
            await _background(stack, self.roll.run())
            await _background(stack, self.feed.run(self.follower.place))
            stack.enter_context(self.stopping.heeding(self.feed.close))
            _stop_with_parent()
            yield


def create_app(worker: Worker, number: int = 0) -> Litestar:
    """The application of one worker process; workers are numbered from 0."""
    parts = Parts(worker, number)
    telemetry = _open_telemetry(worker.telemetry)
    log = CallLogs(parts.usage, parts.metrics)
    local = [Permission.READ_METRICS] if worker.local_metrics else []
    gate = Gate(parts.tokens, parts.sessions, worker.site, local)
    app = Litestar(
        route_handlers=[
            ModelController,
            DefaultController,
            HistoryController,
            UsageController,
            EventController,
            SessionController,
            WorkerController,
            GatewayController,
            HealthController,
            MetricsController,
            *page_routes(is_secure=worker.site.is_secure),
        ],
        guards=[gate],
        dependencies={
            "ledger": _provide(parts.ledger),
            "views": _provide(parts.views),
            "clients": _provide(parts.clients),
            "usage": _provide(parts.usage_records),
            "feed": _provide(parts.feed),
            "gate": _provide(gate),
            "tester": _provide(parts.tester),
            "sessions": _provide(parts.sessions),
            "roll": _provide(parts.roll),
            "site": _provide(worker.site),
            "origins": _provide(parts.origins),
            "health": _provide(parts.health),
            "scrape": _provide(parts.metrics.scrape),
            "change": Provide(provide_change),
        },
        exception_handlers={LedgerError: answer_refusal, HTTPException: answer_http, Exception: answer_bug},
        before_send=[name_request],
        after_exception=[CountRefusals(parts.metrics.refused)],
        lifespan=[parts.lifespan, partial(_flushed, telemetry)],
        request_max_body_size=BODY_LIMIT,
        openapi_config=contract(),
        logging_config=None,
    )
    app.state.gateway = Gateway(parts.clients, log, telemetry or Untraced(), parts.stopping)
    app.state.require_if_match = worker.require_if_match
    return app


def contract_document() -> Mapping[str, Any]:
    """The published contract (OpenAPI) as the service answers it; no database is asked."""
    nowhere = Database("postgresql://nobody@127.0.0.1/nothing")
    return create_app(Worker(nowhere, {}, 0, require_if_match=False)).openapi_schema.to_schema()


def _open_telemetry(telemetry: Telemetry) -> "OpenTelemetry | None":
    if not telemetry.variables:
        return None
    from infrastructure.tracing import open_telemetry  # the SDK takes a fifth of a second to import

    try:
        return open_telemetry(telemetry.variables, traces=telemetry.traces, metrics=telemetry.metrics)
    except Exception as error:  # noqa: BLE001 - of a variable that the settings leave to the SDK
        logger.critical("OpenTelemetry's variables (OTEL_*) do not allow a start: %s", error)
        raise SystemExit(STARTUP_FAILURE) from None


@asynccontextmanager
async def _flushed(telemetry: "OpenTelemetry | None", _: Litestar) -> AsyncIterator[None]:
    """At the end, send what is not sent yet."""
    try:
        yield
    finally:
        if telemetry is not None:
            await telemetry.close()


class Prepared(Struct, frozen=True):
    """A database that is ready, and what a start needs to know of it."""

    worker: Worker
    demo_origin: Origin | None
    new_token: str | None
    """The administrator's token, if it was made just now; nobody will see it again."""
    sign_in_code: str = ""
    """What a link signs the administrator in with, once; empty while the database is away."""
    later: Callable[[], Awaitable["Prepared"]] | None = None
    """Prepares the database, if it was away; until then the local snapshot stands in for it."""


async def prepare(settings: Settings, url: str, owner_url: str | None) -> Prepared:
    """Have the database ready, or the local snapshot while the database cannot be reached.

    Raises:
        DatabaseUnusable: and there is no snapshot that can be served, or it is not just away; the message
            says why and what to do.
    """
    try:
        return await _prepare(settings, url, owner_url, None)
    except DatabaseAway as away:
        standby = _standby(settings, url)
        snapshot = standby.files.load() if standby else None
        if snapshot is None:
            raise
        logger.warning(
            "%s; until then the local snapshot of %s is served",
            away,
            snapshot.saved_at.isoformat(" ", "seconds"),
        )
        demo = snapshot.demo_origin
        database = Database(url, preparation=Preparation())
        later = partial(_prepare, settings, url, owner_url, demo)
        return Prepared(_worker(settings, database, demo), demo, None, later=later)


async def prepare_later(prepared: Prepared) -> str | None:
    """Prepare a database that was away as soon as it is back, and have the workers use it.

    Answers the administrator's token if one had to be made.
    """
    preparation = prepared.worker.database.preparation
    if prepared.later is None or preparation is None:
        return None
    failures, told = 0, ""
    while True:
        try:
            fresh = await prepared.later()
        except DatabaseAway:
            pass
        except DatabaseUnusable as error:
            if str(error) != told:
                told = str(error)
                logger.error("the database is back, but of no use: %s", told)  # noqa: TRY400 - no bug
        except Exception:
            logger.exception("preparing the database failed")
        else:
            preparation.finish(lesser=fresh.worker.database.role is not None)
            return fresh.new_token
        failures += 1
        await asyncio.sleep(pause(failures))


async def _prepare(
    settings: Settings, url: str, owner_url: str | None, demo_before: Origin | None
) -> Prepared:
    """Migrate, and make what a first start makes; any number of processes may do so at once."""
    database = await Database.prepare(url, owner_url)
    with start_errors():
        connection = await database.connect()
        try:
            if settings.azure():
                demo = await demo_origin(connection)
            else:
                demo = await choose_demo_origin(connection, demo_before)
            worker = _worker(settings, database, demo)
            await _create_first_model(settings, worker, demo)
            # Last: what fails after a token was made would leave one that nobody saw.
            token = await ensure_administrator(connection, settings.admin_token)
            code = await make_sign_in_link(connection)
        finally:
            connection.terminate()
    return Prepared(worker, demo, token, code)


def _worker(settings: Settings, database: Database, demo: Origin | None) -> Worker:
    return Worker(
        database,
        _keys(settings, demo),
        settings.o_series_max_retries,
        settings.require_if_match,
        Entra(settings.entra_scope, settings.allowed_origins()) if settings.entra_scope else None,
        settings.usage_days,
        _standby(settings, database.url),
        metric_table(settings.workers),
        settings.local_metrics,
        settings.telemetry,
        Patience(settings.stop_delay, settings.drain),
        Site(settings.public_origin()),
    )


def _standby(settings: Settings, url: str) -> Standby | None:
    """The embedded server has none: it is away only when we are."""
    if settings.database_url is None or settings.snapshot_hours == 0:
        return None
    directory = Path(settings.data_dir).absolute() / "snapshots"
    files = SnapshotFiles(directory, place_digest(url), timedelta(hours=settings.snapshot_hours))
    return Standby(files, digest(settings.admin_token) if settings.admin_token else None)


def _recall(worker: Worker, tokens: AccessTokens) -> Recall:
    standby, preparation = worker.standby, worker.database.preparation
    is_told = preparation is not None and not preparation.done  # by the start that chose the snapshot
    return Recall(
        standby.files if standby else None, tokens, standby.administrator if standby else None, quiet=is_told
    )


def _keys(settings: Settings, demo: Origin | None) -> Mapping[Origin, str]:
    """The key of each origin that gets one."""
    # Without a real key the environment's is the demo's, which is no secret.
    origins = () if settings.entra_scope else settings.allowed_origins()
    keys = dict.fromkeys(origins, settings.azure_api_key or DEMO_KEY)
    # Never the real key: whoever holds that port of this machine would get it.
    return {**keys, demo: DEMO_KEY} if demo else keys


def _tokens(entra: Entra | None) -> Mapping[Origin, Key]:
    """The tokens of Entra ID, by the origins that get them."""
    return dict.fromkeys(entra.origins, EntraTokens(azure_identity(entra.scope))) if entra else {}


async def _create_first_model(settings: Settings, worker: Worker, demo: Origin | None) -> None:
    azure = settings.azure()
    if azure is not None and settings.azure_deployment is not None:
        first = azure_model(settings.azure_deployment, azure, settings.azure_api_version)
    elif demo is not None:
        first = demo_model(demo, settings.azure_api_version)
    else:
        return
    parts = Parts(worker)
    async with parts.pool:
        try:
            await create_first_model(parts.ledger, parts.views, first, demo)
        finally:
            await parts.engine.dispose()


async def keep_beside(prepared: Prepared) -> None:
    """Run what stands beside the workers, until cancelled: the demo upstream while a live model points at it,
    and the local snapshot."""
    worker, origin = prepared.worker, prepared.demo_origin
    if origin is None and worker.standby is None:
        return
    tokens = AccessTokens()
    async with asyncio.TaskGroup() as tasks:
        subscribers = []
        if origin is not None:
            process = _demo_process(origin)
            subscribers.append(process.reconcile)
            tasks.create_task(process.run())
        follower = Follower(worker.database, subscribers, [tokens.read], _recall(worker, tokens).live)
        if worker.standby is not None:
            tasks.create_task(SnapshotKeeper(worker.standby.files, follower, tokens, origin).run())
        tasks.create_task(follower.run())


def _demo_process(origin: Origin) -> DemoProcess:
    # -P: not what happens to lie in the directory that we were started in.
    command = [sys.executable, "-P", "-m", "web.cli", "demo-upstream", "--exit-with-parent"]
    port = urlsplit(origin).port
    return DemoProcess(origin, DEMO_KEY, [*command, "--port", str(port)])


def database_urls(
    settings: Settings, stack: ExitStack, *, create: bool
) -> tuple[str, str | None, Path | None]:
    """The database's addresses for service and owner; the embedded server runs until the stack ends.

    The third value is where the embedded server keeps its data; None for an external one.

    Raises:
        EmbeddedPostgresError: the message says why and what to do.
        DatabaseUnusable: there is no embedded database yet, and `create` is false.
    """
    if settings.database_url is not None:
        return settings.database_url, settings.owner_database_url, None
    wanted = Path(settings.data_dir).absolute()
    if any(place.exists() and not place.is_dir() for place in (wanted, *wanted.parents)):
        raise DatabaseUnusable(
            f"MODEL_LEDGER_DATA_DIR: a directory is needed, and {wanted} is or is below a file"
        )
    root = data_root(wanted)
    if not create and not any(root.glob("pg[0-9]*")):
        raise DatabaseUnusable(f"there is no database in {root}; name it by --data-dir or DATABASE_URL")
    server = stack.enter_context(lease(root))
    return server.app_url, server.owner_url, root


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


def _provide(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)


async def _background(stack: AsyncExitStack, work: Coroutine[None, None, None]) -> None:
    task = asyncio.create_task(work)
    task.add_done_callback(_complain)

    async def end() -> None:
        while not task.done():  # more than once: what is just being connected may miss it
            task.cancel()
            await asyncio.wait([task], timeout=1)

    stack.push_async_callback(end)


def _complain(task: asyncio.Task[None]) -> None:
    """Say at once that work ended which never should; else only the end of the process would tell."""
    if not task.cancelled() and (error := task.exception()):
        logger.critical("work in the background failed", exc_info=error)


def _stop_with_parent() -> None:
    """A worker whose supervisor was killed must not go on alone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop, sentinel = asyncio.get_running_loop(), parent.sentinel

        def stop() -> None:
            loop.remove_reader(sentinel)  # it stays readable, and once is enough
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(sentinel, stop)
