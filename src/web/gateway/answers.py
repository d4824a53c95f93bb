"""The answer to a call, by the model that it names or by one that stands in for that."""

from contextlib import suppress
from math import inf
from time import perf_counter

from litestar.types import Receive, Scope, Send

from application.ports import CallLog, Clients, Lease, ProviderFailed
from application.telemetry import TraceContext, Traces
from domain.errors import ModelNotFound
from web.gateway.disconnects import CallerLeft, Unwatched, WhileConnected
from web.gateway.exchanges import Exchange
from web.gateway.provider_errors import ProviderRefusal, provider_failure
from web.gateway.requests import GatewayRequest
from web.gateway.trace_context import read_trace_context
from web.stopping import Stopping


class Gateway:
    """What every call passes through: the clients, and those who are told of it."""

    def __init__(
        self, clients: Clients, log: CallLog, traces: Traces, stopping: Stopping | None = None
    ) -> None:
        self.clients = clients
        self.log = log
        self.traces = traces
        self.unwatched = Unwatched()
        self.stopping = stopping or Stopping()


class GatewayAnswer:
    """An ASGI application: all of a call happens in one task, so that its end cannot be missed."""

    def __init__(self, gateway: Gateway, asked: GatewayRequest) -> None:
        self._gateway = gateway
        self._asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; a caller who leaves ends the call.

        Raises:
            ModelNotFound, ProviderRefusal: and nothing was answered yet.
        """
        call = _Call(self._gateway, self._asked, send, read_trace_context(scope["headers"]))
        with suppress(CallerLeft):
            async with WhileConnected(receive, self._gateway.unwatched):
                await call.run()


class _Call:
    """One request on its way from model to model; the first one's time limit holds for all."""

    def __init__(
        self, gateway: Gateway, asked: GatewayRequest, send: Send, incoming: TraceContext | None
    ) -> None:
        self._gateway = gateway
        self._asked = asked
        self._send = send
        self._incoming = incoming
        self._deadline = inf
        self._attempts = 0

    async def run(self) -> None:
        """Answer; when no model does, the failure is that of the one that was named."""
        clients = self._gateway.clients
        try:
            async with clients.lease(self._asked.model) as lease:
                failure = await self._ask(lease)
                named = lease.model.model_id
        except ProviderFailed as error:
            raise provider_failure(error) from None
        if failure is None:
            return
        refusal: ProviderRefusal | None = failure
        for other in clients.fallbacks(named):
            if refusal is None or not refusal.elsewhere or perf_counter() >= self._deadline:
                break
            with suppress(ModelNotFound, ProviderFailed):  # it cannot be called now
                async with clients.lease(other) as lease:
                    refusal = await self._ask(lease)
        if refusal is not None:
            failure.headers["x-model-ledger-attempts"] = str(self._attempts)
            raise failure

    async def _ask(self, lease: Lease) -> ProviderRefusal | None:
        gateway, asked, now = self._gateway, self._asked, perf_counter()
        exchange = Exchange(lease, asked, self._send, self._attempts)
        if self._deadline == inf:
            self._deadline = now + exchange.timeout
        trace = gateway.traces.begin(asked.operation.name, lease.model, self._incoming)
        try:
            within = min(exchange.timeout, self._deadline - now)
            return await exchange.run(trace.headers, within, gateway.stopping)
        finally:
            self._attempts += exchange.attempts
            record = exchange.record()
            trace.end(record, exchange.answered() if trace.detailed else None)
            gateway.log.record(record)
