"""The composition root: the only module that knows both the web and the infrastructure."""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from msgspec import Struct

from application.bootstrap import azure_model, create_first_model, demo_model
from application.ledger import Ledger
from application.workers import WorkerState
from domain.errors import LedgerError
from domain.values import Origin
from infrastructure.access_tokens import AccessTokens, ensure_administrator
from infrastructure.client_pool import ClientPool
from infrastructure.connection_tester import ProviderTester
from infrastructure.database import Database, DatabaseUnusable, alchemy, start_errors
from infrastructure.demo_process import DemoProcess
from infrastructure.embedded import EmbeddedPostgresError, data_root, lease
from infrastructure.event_store import PostgresEventStore
from infrastructure.follower import Follower
from infrastructure.installation import choose_demo_origin, demo_origin
from infrastructure.live import Live
from infrastructure.provider import KeyRing, Providers
from infrastructure.rebuild import Rebuilt, rebuild
from infrastructure.sessions import PostgresSessions, make_sign_in_link
from infrastructure.verify import Verdict, verify
from infrastructure.views import PostgresViews
from infrastructure.worker_roll import PostgresWorkerRoll
from web.browsers import Site
from web.events import EventController
from web.feed import Feed
from web.gateway import GatewayController
from web.health import HealthController, Readiness
from web.history import HistoryController
from web.identity import Gate, name_request, provide_change
from web.models import DefaultController, ModelController
from web.openapi import contract
from web.pages import page_routes
from web.problems import answer_bug, answer_http, answer_refusal
from web.sessions import SessionController
from web.settings import Settings
from web.stopping import on_stop
from web.worker_list import WorkerController

__all__ = [
    "DatabaseUnusable",
    "EmbeddedPostgresError",
    "Prepared",
    "contract_document",
    "create_app",
    "database_urls",
    "keep_demo",
    "prepare",
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


class Worker(Struct, frozen=True):
    """All that one worker process is told; handed over in memory, never by environment or argument."""

    database: Database
    keys: Mapping[Origin, str]
    o_series_max_retries: int
    require_if_match: bool
    site: Site = Site()

    def __repr__(self) -> str:
        """Without the keys."""
        return f"Worker({self.database!r})"


class Parts:
    """The objects of one worker, wired; nothing is open before `lifespan`."""

    def __init__(self, worker: Worker) -> None:
        ring = KeyRing(worker.keys)
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
        self.follower = Follower(worker.database, [self._serve], [self.tokens.read, self.sessions.read])
        self.roll = PostgresWorkerRoll(self.pool, self._state, self.follower.moved)
        self.feed = Feed(self.views, self.follower.moved)

    async def _serve(self, live: Live) -> None:
        await self.clients.reconcile(live.models)

    def _state(self) -> WorkerState:
        told = self.health()
        return WorkerState(told.position, told.status, told.follower, told.degraded)

    def health(self) -> Readiness:
        """What the probes are told."""
        follower, live = self.follower, self.follower.live
        degraded = []
        if not follower.connected:
            degraded.append("the database does not answer: serving the last known configuration")
        if live and live.frozen:
            degraded.append(
                f"{len(live.frozen)} models were changed by a newer release and stay as they were"
            )
        if self.clients.degraded:
            degraded.append(f"{len(self.clients.degraded)} models have a configuration that no client fits")
        return Readiness(
            "starting" if live is None else "degraded" if degraded else "ready",
            follower.position,
            follower.mode if follower.connected else "disconnected",
            degraded,
        )

    @asynccontextmanager
    async def lifespan(self, _: Litestar) -> AsyncIterator[None]:
        """Open everything in order, and close it in the other."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.dispose)
            await stack.enter_async_context(self.pool)
            stack.push_async_callback(self.clients.close)
            await _background(stack, self.sessions.run())
            await _background(stack, self.follower.run())
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_SNAPSHOT):
                    await self.follower.started()
            stack.push_async_callback(self.roll.leave)
            await _background(stack, self.roll.run())
            await _background(stack, self.feed.run(self.follower.place))
            stack.enter_context(on_stop(self.feed.close))
            _stop_with_parent()
            yield


def create_app(worker: Worker) -> Litestar:
    """The application of one worker process."""
    parts = Parts(worker)
    gate = Gate(parts.tokens, parts.sessions, worker.site)
    app = Litestar(
        route_handlers=[
            ModelController,
            DefaultController,
            HistoryController,
            EventController,
            SessionController,
            WorkerController,
            GatewayController,
            HealthController,
            *page_routes(is_secure=worker.site.is_secure),
        ],
        guards=[gate],
        dependencies={
            "ledger": _provide(parts.ledger),
            "views": _provide(parts.views),
            "clients": _provide(parts.clients),
            "feed": _provide(parts.feed),
            "gate": _provide(gate),
            "tester": _provide(parts.tester),
            "sessions": _provide(parts.sessions),
            "roll": _provide(parts.roll),
            "site": _provide(worker.site),
            "origins": _provide(parts.origins),
            "health": _provide(parts.health),
            "change": Provide(provide_change),
        },
        exception_handlers={LedgerError: answer_refusal, HTTPException: answer_http, Exception: answer_bug},
        before_send=[name_request],
        lifespan=[parts.lifespan],
        request_max_body_size=BODY_LIMIT,
        openapi_config=contract(),
        logging_config=None,
    )
    app.state.require_if_match = worker.require_if_match
    return app


def contract_document() -> Mapping[str, Any]:
    """The published contract (OpenAPI) as the service answers it; no database is asked."""
    nowhere = Database("postgresql://nobody@127.0.0.1/nothing")
    return create_app(Worker(nowhere, {}, 0, require_if_match=False)).openapi_schema.to_schema()


class Prepared(Struct, frozen=True):
    """A database that is ready, and what a start needs to know of it."""

    worker: Worker
    demo_origin: Origin | None
    new_token: str | None
    """The administrator's token, if it was made just now; nobody will see it again."""
    sign_in_code: str
    """What a link signs the administrator in with, once."""


async def prepare(settings: Settings, url: str, owner_url: str | None) -> Prepared:
    """Migrate, and make what a first start makes; any number of processes may do so at once.

    Raises:
        DatabaseUnusable: the message says why and what to do.
    """
    database = await Database.prepare(url, owner_url)
    with start_errors():
        connection = await database.connect()
        try:
            demo = await (demo_origin(connection) if settings.azure() else choose_demo_origin(connection))
            worker = Worker(
                database,
                _keys(settings, demo),
                settings.o_series_max_retries,
                settings.require_if_match,
                Site(settings.public_origin()),
            )
            await _create_first_model(settings, worker, demo)
            # Last: what fails after a token was made would leave one that nobody saw.
            token = await ensure_administrator(connection, settings.admin_token)
            code = await make_sign_in_link(connection)
        finally:
            connection.terminate()
    return Prepared(worker, demo, token, code)


def _keys(settings: Settings, demo: Origin | None) -> Mapping[Origin, str]:
    """The key of each origin that gets one."""
    # Without a real key the environment's is the demo's, which is no secret.
    keys = dict.fromkeys(settings.allowed_origins(), settings.azure_api_key or DEMO_KEY)
    # Never the real key: whoever holds that port of this machine would get it.
    return {**keys, demo: DEMO_KEY} if demo else keys


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


async def keep_demo(prepared: Prepared) -> None:
    """Run the demo upstream while a live model points at it, until cancelled."""
    origin = prepared.demo_origin
    if origin is None:
        return
    # -P: not what happens to lie in the directory that we were started in.
    command = [sys.executable, "-P", "-m", "web.cli", "demo-upstream", "--exit-with-parent"]
    port = urlsplit(origin).port
    process = DemoProcess(origin, DEMO_KEY, [*command, "--port", str(port)])
    follower = Follower(prepared.worker.database, [process.reconcile])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follower.run())
        tasks.create_task(process.run())


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
