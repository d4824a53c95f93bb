"""The client pool: what it opens, lends, keeps and closes, with clients that only remember."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from application.ports import LiveModel, ProviderAnswer, ProviderCall, ProviderFailed
from domain.configuration import ModelConfig
from domain.errors import ModelNotFound
from domain.values import ModelId
from infrastructure.client_pool import CannotConnect, ClientPool

GPT = ModelId("gpt-4")
O3 = ModelId("o3")
CONFIG = ModelConfig(
    name="A model",
    max_tokens=4096,
    supports_streaming=True,
    supports_temperature=True,
    provider="openai",
    base_url="https://one.example/v1",
)
ELSEWHERE = replace(CONFIG, base_url="https://two.example/v1")
UNFIT = replace(CONFIG, base_url="https://unfit.example/v1")
CALL = ProviderCall("/chat/completions", b"{}", stream=False, timeout=1, headers={})


def live(config: ModelConfig = CONFIG, version: int = 1, model_id: ModelId = GPT) -> LiveModel:
    return LiveModel(
        model_id, config, version, position=version, recorded_at=datetime(2026, 1, 1, tzinfo=UTC)
    )


def named(*aliases: str) -> ModelConfig:
    return replace(CONFIG, aliases=aliases)


def falls(model_id: str, *others: str, version: int = 1, **changes: object) -> LiveModel:
    """A model that falls back to others."""
    fallbacks = tuple(ModelId(other) for other in others)
    return live(replace(CONFIG, fallbacks=fallbacks, **changes), version, ModelId(model_id))


class FakeClient:
    """Serves one address; answers with it."""

    def __init__(self, url: object) -> None:
        self.url = url
        self.closed = 0
        self.may_close = asyncio.Event()
        self.may_close.set()

    def fits(self, model: LiveModel) -> bool:
        return model.config.base_url == self.url

    def send(self, model: LiveModel, call: ProviderCall) -> AbstractAsyncContextManager[ProviderAnswer]:
        return self._send(model)

    @asynccontextmanager
    async def _send(self, model: LiveModel) -> AsyncIterator[ProviderAnswer]:
        assert not self.closed, "a closed client was lent"
        yield ProviderAnswer(200, {"version": str(model.version)}, 1, _chunks(str(self.url).encode()))

    async def close(self) -> None:
        await self.may_close.wait()
        self.closed += 1


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    yield body


class Connecting:
    """Makes fake clients and remembers them; no client fits an address that is unfit."""

    def __init__(self) -> None:
        self.made: list[FakeClient] = []

    def __call__(self, model: LiveModel) -> FakeClient:
        if "unfit" in str(model.config.base_url):
            raise CannotConnect("no client fits")
        self.made.append(FakeClient(model.config.base_url))
        return self.made[-1]


@pytest.fixture
def connecting() -> Connecting:
    return Connecting()


@pytest.fixture
async def pool(connecting: Connecting) -> AsyncIterator[ClientPool]:
    pool = ClientPool(connecting)
    yield pool
    await pool.close()
    assert (pool.open, pool.draining, pool.leases) == (0, 0, 0)
    await asyncio.sleep(0)
    assert [client.closed for client in connecting.made] == [1] * len(connecting.made)


async def serve(pool: ClientPool, *models: LiveModel) -> None:
    await pool.reconcile({model.model_id: model for model in models})


def counts(pool: ClientPool) -> tuple[int, int, int]:
    return pool.open, pool.draining, pool.leases


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


class TestLending:
    async def test_a_lease_is_of_the_version_that_was_current_when_it_began(self, pool: ClientPool) -> None:
        await serve(pool, live(CONFIG, 1))
        async with pool.lease(GPT) as old:
            await serve(pool, live(ELSEWHERE, 2))
            async with pool.lease(GPT) as new:
                assert (old.model.version, new.model.version) == (1, 2)
                assert counts(pool) == (1, 1, 2)
        assert counts(pool) == (1, 0, 0)

    async def test_a_replaced_client_still_answers_those_who_hold_it(self, pool: ClientPool) -> None:
        await serve(pool, live(CONFIG, 1))
        async with pool.lease(GPT) as lease:
            await serve(pool, live(ELSEWHERE, 2))
            async with lease.send(CALL) as answer:
                assert [chunk async for chunk in answer.chunks] == [b"https://one.example/v1"]
                assert answer.headers["version"] == "1"

    async def test_a_replaced_client_closes_when_its_last_lease_ends(
        self, pool: ClientPool, connecting: Connecting
    ) -> None:
        await serve(pool, live(CONFIG, 1))
        async with pool.lease(GPT):
            async with pool.lease(GPT):
                await serve(pool, live(ELSEWHERE, 2))
            await settle()
            assert connecting.made[0].closed == 0
        await settle()
        assert connecting.made[0].closed == 1
        assert connecting.made[1].closed == 0

    async def test_an_idle_client_closes_at_once_when_it_is_replaced(
        self, pool: ClientPool, connecting: Connecting
    ) -> None:
        await serve(pool, live(CONFIG, 1))
        await serve(pool, live(ELSEWHERE, 2))
        await settle()
        assert [client.closed for client in connecting.made] == [1, 0]

    async def test_a_call_that_fails_gives_its_client_back(self, pool: ClientPool) -> None:
        await serve(pool, live())
        with pytest.raises(ZeroDivisionError):
            async with pool.lease(GPT):
                raise ZeroDivisionError
        assert counts(pool) == (1, 0, 0)

    async def test_a_change_waits_neither_for_calls_nor_for_a_client_that_closes_slowly(
        self, pool: ClientPool, connecting: Connecting
    ) -> None:
        await serve(pool, live(CONFIG, 1))
        connecting.made[0].may_close.clear()
        async with pool.lease(GPT):
            async with asyncio.timeout(1):
                await serve(pool, live(ELSEWHERE, 2))
        assert counts(pool) == (1, 0, 0)
        connecting.made[0].may_close.set()
        await settle()


class TestChanges:
    @pytest.mark.parametrize(
        "change",
        [
            {"name": "B"},
            {"description": "new"},
            {"max_tokens": 1},
            {"max_timeout": 200},
            {"supports_streaming": False},
        ],
    )
    async def test_what_the_client_would_not_notice_keeps_it_but_leases_know(
        self, pool: ClientPool, connecting: Connecting, change: dict[str, object]
    ) -> None:
        await serve(pool, live(CONFIG, 1))
        async with pool.lease(GPT) as old:
            await serve(pool, live(replace(CONFIG, **change), 2))
            async with pool.lease(GPT) as new:
                assert (old.model.version, new.model.version) == (1, 2)
        assert len(connecting.made) == 1
        assert counts(pool) == (1, 0, 0)

    async def test_the_same_again_changes_nothing(self, pool: ClientPool, connecting: Connecting) -> None:
        for _ in range(3):
            await serve(pool, live(), live(model_id=O3))
        assert len(connecting.made) == 2

    async def test_a_deleted_model_is_lent_no_more_but_its_calls_end_well(
        self, pool: ClientPool, connecting: Connecting
    ) -> None:
        await serve(pool, live())
        async with pool.lease(GPT) as lease:
            await serve(pool)
            with pytest.raises(ModelNotFound):
                async with pool.lease(GPT):
                    pass
            async with lease.send(CALL) as answer:
                assert answer.status == 200
            assert counts(pool) == (0, 1, 1)
        await settle()
        assert connecting.made[0].closed == 1

    async def test_a_disabled_model_is_not_lent_and_comes_back_with_the_same_client(
        self, pool: ClientPool, connecting: Connecting
    ) -> None:
        await serve(pool, live(CONFIG, 1))
        await serve(pool, live(replace(CONFIG, enabled=False), 2))
        with pytest.raises(ModelNotFound):
            async with pool.lease(GPT):
                pass
        assert pool.names() == {}
        await serve(pool, live(CONFIG, 3))
        async with pool.lease(GPT) as lease:
            assert lease.model.version == 3
        assert len(connecting.made) == 1


class TestNames:
    async def test_models_are_listed_by_all_their_names_in_order(self, pool: ClientPool) -> None:
        await serve(pool, live(named("z", "a"), model_id=O3), live(model_id=GPT))
        assert [(name, model.model_id) for name, model in pool.names().items()] == [
            ("a", O3),
            (GPT, GPT),
            (O3, O3),
            ("z", O3),
        ]

    async def test_a_model_is_lent_by_its_id_and_by_each_of_its_aliases(self, pool: ClientPool) -> None:
        await serve(pool, live(named("a", "team/a:8b")), live(model_id=O3))
        for name in (GPT, "a", "team/a:8b"):
            async with pool.lease(name) as lease:
                assert lease.model.model_id == GPT

    async def test_a_name_leads_elsewhere_at_once_when_it_is_handed_on_and_keeps_both_clients(
        self, pool: ClientPool, connecting: Connecting
    ) -> None:
        await serve(pool, live(named("a")), live(model_id=O3))
        async with pool.lease("a") as before:
            await serve(pool, live(version=2), live(named("a"), 2, O3))
            async with pool.lease("a") as after:
                assert (before.model.model_id, after.model.model_id) == (GPT, O3)
        assert len(connecting.made) == 2
        await serve(pool, live(version=3), live(version=3, model_id=O3))
        with pytest.raises(ModelNotFound) as refused:
            async with pool.lease("a"):
                pass
        assert refused.value.model_id == "a"

    async def test_an_id_wins_over_an_alias_also_of_a_model_that_is_switched_off(
        self, pool: ClientPool
    ) -> None:
        await serve(pool, live(named(O3)), live(model_id=O3))
        async with pool.lease(O3) as lease:
            assert lease.model.model_id == O3
        assert pool.names()[O3].model_id == O3
        await serve(pool, live(named(O3)), live(replace(CONFIG, enabled=False), model_id=O3))
        assert O3 not in pool.names()
        with pytest.raises(ModelNotFound):
            async with pool.lease(O3):
                pass

    @pytest.mark.parametrize("order", [1, -1])
    async def test_of_two_models_with_one_alias_the_smaller_id_wins(
        self, pool: ClientPool, order: int
    ) -> None:
        both = [live(named("a"), model_id=O3), live(named("a"), model_id=GPT)]
        await serve(pool, *both[::order])
        async with pool.lease("a") as lease:
            assert lease.model.model_id == GPT
        assert pool.names()["a"].model_id == GPT

    async def test_a_disabled_model_has_no_names(self, pool: ClientPool) -> None:
        await serve(pool, live(replace(named("a"), enabled=False)))
        assert pool.names() == {}
        with pytest.raises(ModelNotFound) as refused:
            async with pool.lease("a"):
                pass
        assert refused.value.model_id == "a"

    async def test_an_alias_of_a_model_without_a_client_is_not_missing_but_failed(
        self, pool: ClientPool
    ) -> None:
        await serve(pool, live(replace(UNFIT, aliases=("a",))))
        with pytest.raises(ProviderFailed):
            async with pool.lease("a"):
                pass
        assert pool.names() == {}

    async def test_names_are_the_newest_ones_where_an_old_client_stays(self, pool: ClientPool) -> None:
        await serve(pool, live(named("old"), 1))
        await serve(pool, live(replace(UNFIT, aliases=("new",)), 2))
        async with pool.lease("new") as lease:
            assert lease.model.version == 1
        assert list(pool.names()) == [GPT, "new"]


class TestFallbacks:
    async def test_they_are_in_order_and_depth_first_and_each_stands_once(self, pool: ClientPool) -> None:
        await serve(
            pool, falls("a", "b", "c"), falls("b", "d", "c"), falls("c", "e"), falls("d", "e"), falls("e")
        )
        assert pool.fallbacks(ModelId("a")) == ["b", "d", "e", "c"]
        assert pool.fallbacks(ModelId("c")) == ["e"]

    async def test_a_model_without_any_has_none_nor_has_one_that_is_not_there(self, pool: ClientPool) -> None:
        await serve(pool, falls("a"), live())
        for model_id in ("a", GPT, "nobody"):
            assert pool.fallbacks(ModelId(model_id)) == []

    async def test_a_model_never_stands_in_for_itself_whatever_was_recorded(self, pool: ClientPool) -> None:
        await serve(pool, falls("a", "a", "b"), falls("b", "c"), falls("c", "a", "b"))
        assert pool.fallbacks(ModelId("a")) == ["b", "c"]

    async def test_one_that_cannot_be_called_is_passed_over_for_its_own(self, pool: ClientPool) -> None:
        off, unfit = falls("off", "b", enabled=False), falls("unfit", "c", base_url=UNFIT.base_url)
        await serve(pool, falls("a", "gone", "off", "unfit"), off, unfit, falls("b"), falls("c"))
        assert pool.fallbacks(ModelId("a")) == ["b", "c"]

    async def test_a_fallback_is_an_id_and_no_alias(self, pool: ClientPool) -> None:
        await serve(pool, falls("a", "other"), live(named("other")))
        assert pool.fallbacks(ModelId("a")) == []

    async def test_a_change_counts_at_once_and_connects_nothing(
        self, pool: ClientPool, connecting: Connecting
    ) -> None:
        await serve(pool, falls("a", "b"), falls("b"), falls("c"))
        await serve(pool, falls("a", "c", version=2), falls("b"), falls("c"))
        assert pool.fallbacks(ModelId("a")) == ["c"]
        await serve(pool, falls("a", "c", version=2), falls("b"))
        assert pool.fallbacks(ModelId("a")) == []
        assert len(connecting.made) == 3

    async def test_a_chain_of_any_length_is_followed(self, pool: ClientPool) -> None:
        await serve(pool, *(falls(str(number), str(number + 1)) for number in range(3_000)))
        assert pool.fallbacks(ModelId("0")) == [str(number) for number in range(1, 3_000)]


class TestDegraded:
    async def test_the_old_client_stays_when_no_new_one_can_be_made(self, pool: ClientPool) -> None:
        await serve(pool, live(CONFIG, 1))
        await serve(pool, live(UNFIT, 2))
        async with pool.lease(GPT) as lease:
            assert lease.model.version == 1
        assert pool.degraded == {GPT: "no client fits"}

    async def test_the_next_good_configuration_ends_it(
        self, pool: ClientPool, connecting: Connecting
    ) -> None:
        await serve(pool, live(CONFIG, 1))
        await serve(pool, live(UNFIT, 2))
        await serve(pool, live(ELSEWHERE, 3))
        async with pool.lease(GPT) as lease:
            assert lease.model.version == 3
        assert pool.degraded == {}
        assert len(connecting.made) == 2

    async def test_one_that_never_had_a_client_is_not_missing_but_failed(self, pool: ClientPool) -> None:
        await serve(pool, live(UNFIT, 1))
        with pytest.raises(ProviderFailed, match="configuration") as failure:
            async with pool.lease(GPT):
                pass
        assert failure.value.kind == "not_bound"
        assert pool.names() == {}

    async def test_others_are_not_held_up(self, pool: ClientPool) -> None:
        await serve(pool, live(UNFIT, 1), live(CONFIG, 2, O3))
        async with pool.lease(O3) as lease:
            assert lease.model.version == 2

    async def test_switching_off_works_whatever_else_is_wrong(self, pool: ClientPool) -> None:
        await serve(pool, live(CONFIG, 1))
        await serve(pool, live(replace(UNFIT, enabled=False), 2))
        with pytest.raises(ModelNotFound):
            async with pool.lease(GPT):
                pass


async def test_closing_lets_running_calls_end(pool: ClientPool, connecting: Connecting) -> None:
    await serve(pool, live(), live(model_id=O3))
    async with pool.lease(GPT) as lease:
        await pool.close()
        assert [client.closed for client in connecting.made] == [0, 1]
        async with lease.send(CALL) as answer:
            assert answer.status == 200
    await settle()
    assert [client.closed for client in connecting.made] == [1, 1]


async def test_fifty_calls_over_twenty_changes_all_keep_their_own_client(
    pool: ClientPool, connecting: Connecting
) -> None:
    release = asyncio.Event()
    urls = [f"https://{number}.example/v1" for number in range(20)]

    async def call() -> tuple[int, bytes]:
        async with pool.lease(GPT) as lease:
            await release.wait()
            async with lease.send(CALL) as answer:
                return lease.model.version, b"".join([chunk async for chunk in answer.chunks])

    calls = []
    for version, url in enumerate(urls):
        await serve(pool, live(replace(CONFIG, base_url=url), version))
        calls += [asyncio.create_task(call()) for _ in range(50 // 20 + 1)]
        await settle()
    assert counts(pool) == (1, 19, 60)
    release.set()
    for version, body in await asyncio.gather(*calls):
        assert body == urls[version].encode()
    assert counts(pool) == (1, 0, 0)
