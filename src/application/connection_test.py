"""Trying a configuration out before calls depend on it: step by step, with nothing recorded."""

from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from domain.configuration import ModelConfig
from domain.values import ModelId

StepName = Literal["address", "resolve", "connect", "tls", "authenticate", "answer"]


class ConnectionStep(Struct, frozen=True):
    """One step towards an answer."""

    name: StepName
    ok: bool
    detail: str
    """What was found, or why it failed; holds no key."""
    seconds: float


class ConnectionReport(Struct, frozen=True):
    """The steps up to the first that failed; `tls` is among them where the address is https."""

    ok: bool
    steps: list[ConnectionStep]


@runtime_checkable
class ConnectionTester(Protocol):
    """Calls providers on trial."""

    async def test(self, model_id: ModelId, config: ModelConfig) -> ConnectionReport:
        """Make one small call with a configuration that keeps today's rules; takes bounded time."""
        ...
