"""The pool of clients: each call keeps the one that was current when it started.

                    connect                       replaced, or its model is gone
    wanted model ──────────────> open ──────────────────────────────────────────┐
                      │                          lent:     draining ──┐         │
                      └─ fails: degraded         not lent:            ▼         ▼
                         (an old client stays)            closed <── last lease ends

A client is one connection to a provider; a model is served by one client at a time. A change that the
client would not notice keeps it, and only what leases tell of the model is new. There is no clock here: a
client closes when nobody can use it any more, and never before. Names and fallbacks are always those of the
newest configuration, also where an old client stays.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from msgspec import Struct

from application.ports import Lease, LiveModel, ProviderAnswer, ProviderCall, ProviderFailed
from domain.errors import ModelNotFound
from domain.values import ModelId

UNFIT = "this model's configuration cannot be used here; its history tells who can correct it"


class CannotConnect(Exception):
    """No client can be made from a model's configuration; the message is for operators."""


class Client(Protocol):
    """What the pool lends: a provider's client, made from one version of a model's configuration."""

    def fits(self, model: LiveModel) -> bool:
        """Whether a new client for that model would be just the same."""
        ...

    def send(self, model: LiveModel, call: ProviderCall) -> AbstractAsyncContextManager[ProviderAnswer]:
        """See `Lease.send`; the model is one that this client fits."""
        ...

    async def close(self) -> None:
        """Called once, when no call uses it and none will."""
        ...


Connect = Callable[[LiveModel], Client]
"""Makes a client without any I/O, or raises `CannotConnect`."""


class ClientPool:
    """Clients by model, always at the newest configuration that `reconcile` was given.

    All bookkeeping happens between two awaits of one event loop: what is read together fits together.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._models: Mapping[ModelId, LiveModel] = {}
        self._aliases: Mapping[str, ModelId] = {}
        self._serving: Mapping[ModelId, _Serving] = {}
        self._draining: set[_Held] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._leases = 0
        self.degraded: Mapping[ModelId, str] = {}
        """Enabled models whose newest configuration makes no client, and why; an old one may still serve."""

    @property
    def open(self) -> int:
        """Clients that are lent to new calls."""
        return len(self._serving)

    @property
    def draining(self) -> int:
        """Clients that only running calls still use."""
        return len(self._draining)

    @property
    def leases(self) -> int:
        """Calls that are running."""
        return self._leases

    async def reconcile(self, wanted: Mapping[ModelId, LiveModel]) -> None:
        """Serve exactly these models from now on; never waits for a running call."""
        serving: dict[ModelId, _Serving] = {}
        degraded: dict[ModelId, str] = {}
        for model_id, model in wanted.items():
            current = self._serving.get(model_id)
            try:
                serving[model_id] = self._serve(model, current)
            except CannotConnect as error:
                if not model.config.enabled:
                    continue  # switching off works, whatever else is wrong with the configuration
                degraded[model_id] = str(error)
                if current:
                    serving[model_id] = current
        self._models, self._aliases = wanted, _aliases(wanted)
        self._swap(serving)
        self.degraded = degraded

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[Lease]:
        """See `Clients.lease`."""
        model_id = self._aliases.get(name, ModelId(name))
        serving = self._serving.get(model_id)
        if serving is None and model_id in self.degraded:
            raise ProviderFailed("not_bound", UNFIT, attempts=0)
        if serving is None or not serving.model.config.enabled:
            raise ModelNotFound(name)
        held = serving.held
        held.leases += 1
        self._leases += 1
        try:
            yield _Lent(serving.model, held.client)
        finally:
            held.leases -= 1
            self._leases -= 1
            if not held.leases and held in self._draining:
                self._close(held)

    def names(self) -> Mapping[str, LiveModel]:
        """See `Clients.names`."""
        usable: dict[str, LiveModel] = {
            model_id: serving.model
            for model_id, serving in self._serving.items()
            if serving.model.config.enabled
        }
        named = {alias: usable[model_id] for alias, model_id in self._aliases.items() if model_id in usable}
        return dict(sorted((usable | named).items()))

    def fallbacks(self, model_id: ModelId) -> Sequence[ModelId]:
        """See `Clients.fallbacks`."""
        found = []
        met = {model_id}
        ahead = [*reversed(self._listed(model_id))]
        while ahead:
            other = ahead.pop()
            if other in met:
                continue
            met.add(other)
            serving = self._serving.get(other)
            if serving and serving.model.config.enabled:
                found.append(other)
            ahead.extend(reversed(self._listed(other)))
        return found

    async def close(self) -> None:
        """Lend nothing any more, and close what is idle; what is lent closes at its last lease's end."""
        self._models, self._aliases = {}, {}
        self._swap({})
        self.degraded = {}
        await asyncio.gather(*self._closing)

    def _listed(self, model_id: ModelId) -> Sequence[ModelId]:
        model = self._models.get(model_id)
        return (model and model.config.fallbacks) or ()

    def _serve(self, model: LiveModel, current: "_Serving | None") -> "_Serving":
        if current and (current.model is model or current.model == model):
            return current
        if current and current.held.client.fits(model):
            return _Serving(model, current.held)
        return _Serving(model, _Held(self._connect(model)))

    def _swap(self, serving: Mapping[ModelId, "_Serving"]) -> None:
        kept = {each.held for each in serving.values()}
        retired = [each.held for each in self._serving.values() if each.held not in kept]
        self._serving = serving
        for held in retired:
            self._draining.add(held)
            if not held.leases:
                self._close(held)

    def _close(self, held: "_Held") -> None:
        # In a task of its own: neither a change nor a caller waits for a provider's goodbye.
        self._draining.remove(held)
        closing = asyncio.create_task(held.client.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _aliases(models: Mapping[ModelId, LiveModel]) -> Mapping[str, ModelId]:
    """What each alias means. Ids win over aliases, and smaller ids over greater ones."""
    holders = sorted((model_id for model_id, model in models.items() if model.config.aliases), reverse=True)
    return {
        alias: holder
        for holder in holders
        for alias in models[holder].config.aliases or ()
        if alias not in models
    }


class _Held:
    """A client, and the number of calls that use it now."""

    __slots__ = ("client", "leases")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.leases = 0


class _Serving(Struct, frozen=True):
    model: LiveModel
    held: _Held


class _Lent(Struct, frozen=True):
    model: LiveModel
    client: Client

    def send(self, call: ProviderCall) -> AbstractAsyncContextManager[ProviderAnswer]:
        return self.client.send(self.model, call)
