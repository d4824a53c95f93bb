"""The models that a start makes: once, and never against what a person chose."""

import pytest
from event_store_contract import ANNA
from factories import ORIGINS
from memory_store import MemoryEventStore, MemoryViews
from msgspec.structs import replace

from application.bootstrap import DEMO, azure_model, create_first_model, demo_model
from application.ledger import Ledger
from domain.model import UpdateModel
from domain.values import ModelId, Origin, parse_endpoint

DEMO_ORIGIN = Origin("http://127.0.0.1:8080")
DEMO_MODEL = demo_model(DEMO_ORIGIN, "2024-10-21")
AZURE = azure_model("gpt-4o", parse_endpoint("https://north.openai.azure.com"), "2024-10-21")
GPT = ModelId("gpt-4o")


@pytest.fixture
def store() -> MemoryEventStore:
    return MemoryEventStore()


@pytest.fixture
def views(store: MemoryEventStore) -> MemoryViews:
    return MemoryViews(store)


@pytest.fixture
def ledger(store: MemoryEventStore) -> Ledger:
    return Ledger(store, ORIGINS)


async def test_beside_the_demonstration_alone_the_environments_model_becomes_the_default(
    ledger: Ledger, views: MemoryViews
) -> None:
    await create_first_model(ledger, views, DEMO_MODEL, DEMO_ORIGIN)
    await create_first_model(ledger, views, AZURE, DEMO_ORIGIN)
    models = await views.models()
    assert {name: model.is_default for name, model in models.items()} == {DEMO: False, GPT: True}


async def test_a_name_that_a_person_gave_to_the_demonstration_stays_with_it(
    ledger: Ledger, views: MemoryViews, store: MemoryEventStore
) -> None:
    await create_first_model(ledger, views, DEMO_MODEL, DEMO_ORIGIN)
    await ledger.execute(UpdateModel(DEMO, replace(DEMO_MODEL.config, aliases=(GPT,))), ANNA)
    before = len(store.rows)
    await create_first_model(ledger, views, AZURE, DEMO_ORIGIN)
    assert len(store.rows) == before
