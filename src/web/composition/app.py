"""The application of one worker process."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from uvicorn.config import STARTUP_FAILURE

from application.telemetry import CallLogs, Untraced
from domain.access import Permission
from domain.errors import LedgerError
from infrastructure.database import Database
from web.composition.worker import Parts, Worker
from web.events import EventController
from web.gateway.answers import Gateway
from web.gateway.routes import GatewayController
from web.health import HealthController
from web.history import HistoryController
from web.identity import Gate, name_request, provide_change
from web.metrics import CountRefusals, MetricsController
from web.models import DefaultController, ModelController
from web.openapi import contract
from web.pages import page_routes
from web.problems import answer_bug, answer_http, answer_refusal
from web.sessions import SessionController
from web.telemetry_settings import Telemetry
from web.usage import UsageController
from web.worker_list import WorkerController

if TYPE_CHECKING:
    from infrastructure.tracing import OpenTelemetry

logger = logging.getLogger(__name__)

BODY_LIMIT: Final = 1_000_000
"""Bytes, below /api."""


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
            "serves": _provide(parts.serves),
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


def _provide(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
