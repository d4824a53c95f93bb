"""A start, before any worker serves: the database, the keys, and what a first start makes."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from application.bootstrap import azure_model, create_first_model, demo_model
from domain.values import Origin
from infrastructure.access_tokens import AccessTokens, digest, ensure_administrator
from infrastructure.database import Database, DatabaseAway, DatabaseUnusable, start_errors
from infrastructure.demo_process import DemoProcess
from infrastructure.embedded import EmbeddedPostgresError, data_root, lease
from infrastructure.follower import Follower, pause
from infrastructure.installation import choose_demo_origin, demo_origin
from infrastructure.local_snapshot import place_digest
from infrastructure.metrics import metric_table
from infrastructure.preparation import Preparation
from infrastructure.sessions import make_sign_in_link
from infrastructure.snapshot_files import SnapshotFiles
from infrastructure.snapshot_keeper import SnapshotKeeper
from web.browsers import Site
from web.composition.worker import Entra, Parts, Standby, Worker, recall_of
from web.settings import Settings
from web.stopping import Patience

logger = logging.getLogger(__name__)

REFUSALS: Final = (DatabaseUnusable, EmbeddedPostgresError)
"""Why a start, or a command, may be refused; the message is meant for the user."""
DEMO_KEY: Final = "demonstration"
"""What the demo upstream asks for; no secret, as it guards nothing."""


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


def _keys(settings: Settings, demo: Origin | None) -> Mapping[Origin, str]:
    """The key of each origin that gets one."""
    # Without a real key the environment's is the demo's, which is no secret.
    origins = () if settings.entra_scope else settings.allowed_origins()
    keys = dict.fromkeys(origins, settings.azure_api_key or DEMO_KEY)
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
        follower = Follower(worker.database, subscribers, [tokens.read], recall_of(worker, tokens).live)
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
