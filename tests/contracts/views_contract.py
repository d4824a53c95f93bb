"""What every reader of single models keeps: the part of `Views` that the ways back need.

A test class inherits it and gives the fixtures `store`, an empty ledger, and `views`, which reads it.
"""

import pytest
from event_store_contract import ANNA, CONFIG, CREATED, DELETED, GPT, OTHER, append_of
from msgspec.structs import replace

from application.ports import EventStore
from application.views import Views
from domain.catalog import Change
from domain.errors import ModelNotFound, VersionNotFound
from domain.model import ModelUpdated

SECOND = replace(CONFIG, name="second")
UPDATED = Change(CREATED.stream, ModelUpdated(SECOND))


class ViewsContract:
    """The promises of `Views.model`, `Views.config` and `Views.liveness`, each as a test."""

    async def test_a_live_model_is_read_with_its_event(self, store: EventStore, views: Views) -> None:
        await store.append(append_of(CREATED, gpt=0))
        receipt = await store.append(append_of(UPDATED, gpt=1))
        model = await views.model(GPT)
        assert model.config() == SECOND
        assert (model.version, model.position, model.is_default) == (2, receipt.position, False)
        assert model.updated_by == ANNA.actor

    async def test_of_each_version_the_configuration_is_read(self, store: EventStore, views: Views) -> None:
        await store.append(append_of(CREATED, gpt=0))
        await store.append(append_of(UPDATED, DELETED, gpt=1))
        assert [(await views.config(GPT, version)).name for version in (1, 2, 3)] == [
            CONFIG.name,
            "second",
            CONFIG.name,
        ]

    @pytest.mark.parametrize("version", [-1, 0, 2, 2**31, 2**63])
    async def test_a_version_that_never_was_is_not_read(
        self, store: EventStore, views: Views, version: int
    ) -> None:
        await store.append(append_of(CREATED, gpt=0))
        with pytest.raises(VersionNotFound) as refused:
            await views.config(GPT, version)
        assert (refused.value.model_id, refused.value.version) == (GPT, version)

    async def test_a_model_that_never_was_is_not_read(self, store: EventStore, views: Views) -> None:
        await store.append(append_of(CREATED, gpt=0))
        with pytest.raises(ModelNotFound):
            await views.model(OTHER)
        with pytest.raises(ModelNotFound):
            await views.config(OTHER, 1)

    async def test_a_deleted_model_is_not_read_and_told_when_it_went(
        self, store: EventStore, views: Views
    ) -> None:
        await store.append(append_of(CREATED, DELETED, gpt=0))
        with pytest.raises(ModelNotFound) as refused:
            await views.model(GPT)
        assert refused.value.deleted_at_version == 2

    async def test_liveness_follows_the_stream(self, store: EventStore, views: Views) -> None:
        assert await views.liveness(GPT) == ("absent", 0)
        await store.append(append_of(CREATED, gpt=0))
        assert await views.liveness(GPT) == ("live", 1)
        await store.append(append_of(DELETED, gpt=1))
        assert await views.liveness(GPT) == ("deleted", 2)
        await store.append(append_of(CREATED, gpt=2))
        assert await views.liveness(GPT) == ("live", 3)
