"""The current token of Entra ID: fetched once for all who wait, renewed beside those who use it."""

import asyncio
import threading
from dataclasses import dataclass

import pytest

from infrastructure.entra import PATIENCE, REFRESH, EntraTokens, NoToken


@dataclass
class Fetched:
    token: str
    expires_on: int


class Entra:
    """Hands out numbered tokens that hold for an hour, or fails."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.fetches = 0
        self.away = False
        self.gate = threading.Event()
        self.gate.set()
        self.tokens = EntraTokens(self.fetch, lambda: self.now)

    def fetch(self) -> Fetched:
        self.fetches += 1
        assert self.gate.wait(5)
        if self.away:
            raise ConnectionError("a secret in a message")
        return Fetched(f"token-{self.fetches}", int(self.now) + 3_600)

    async def renewed(self) -> None:
        assert self.tokens._renewal is not None
        await self.tokens._renewal


async def test_many_who_wait_share_one_fetch() -> None:
    entra = Entra()
    assert set(await asyncio.gather(*(entra.tokens.token() for _ in range(20)))) == {"token-1"}
    assert entra.fetches == 1


async def test_a_token_is_used_until_shortly_before_its_end() -> None:
    entra = Entra()
    await entra.tokens.token()
    entra.now += 3_600 - REFRESH
    assert await entra.tokens.token() == "token-1"
    assert entra.fetches == 1


async def test_it_is_renewed_beside_the_calls_that_still_use_it() -> None:
    entra = Entra()
    await entra.tokens.token()
    entra.now += 3_600 - REFRESH + 1
    entra.gate.clear()
    assert await entra.tokens.token() == "token-1", "nobody waits for the new one"
    entra.gate.set()
    await entra.renewed()
    assert await entra.tokens.token() == "token-2"


async def test_while_entra_is_away_a_token_that_holds_is_used_and_renewed_with_patience() -> None:
    entra = Entra()
    await entra.tokens.token()
    entra.away, entra.now = True, entra.now + 3_600 - REFRESH + 1
    assert await entra.tokens.token() == "token-1"
    await entra.renewed()
    assert await entra.tokens.token() == "token-1"
    assert entra.fetches == 2
    entra.now += PATIENCE
    assert await entra.tokens.token() == "token-1"
    await entra.renewed()
    assert entra.fetches == 3


async def test_without_a_token_that_holds_calls_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    entra = Entra()
    await entra.tokens.token()
    entra.away, entra.now = True, entra.now + 3_600
    with pytest.raises(NoToken):
        await entra.tokens.token()
    assert "ConnectionError" in caplog.text
    assert "a secret" not in caplog.text
    entra.away = False
    assert await entra.tokens.token() == "token-3", "and go on by themselves"


async def test_a_caller_who_leaves_does_not_end_the_fetch_of_the_others() -> None:
    entra = Entra()
    entra.gate.clear()
    first, second = (asyncio.create_task(entra.tokens.token()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    entra.gate.set()
    assert await second == "token-1"
    assert entra.fetches == 1
