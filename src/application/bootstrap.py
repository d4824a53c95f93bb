"""The models that a start makes: from the environment's Azure variables, or the demonstration."""

from typing import Final

from msgspec import Struct
from uuid_utils.compat import uuid7

from application.ledger import Ledger
from application.ports import Context
from application.views import ModelView, Views
from domain.configuration import ModelConfig
from domain.default import SetDefault
from domain.errors import ModelExists
from domain.model import CreateModel
from domain.values import SYSTEM, Endpoint, ModelId, Origin

DEMO: Final = ModelId("demo")


class FirstModel(Struct, frozen=True):
    """A model that the environment asks for."""

    model_id: ModelId
    config: ModelConfig


def azure_model(deployment: str, endpoint: Endpoint, api_version: str) -> FirstModel:
    """The model of the AZURE_OPENAI_ variables; its limits are the mission's, to be edited later."""
    config = ModelConfig(
        name=deployment,
        description="Created from the AZURE_OPENAI_ variables at the first start.",
        max_tokens=40_000,
        supports_streaming=False,
        supports_temperature=False,
        api_version=api_version,
        azure_endpoint=endpoint.url,
        base_timeout=120,
        max_timeout=300,
        token_factor=0.05,
    )
    return FirstModel(ModelId(deployment), config)


def demo_model(origin: Origin, api_version: str) -> FirstModel:
    """The model of an installation that has no provider yet."""
    config = ModelConfig(
        name="Demonstration",
        description="Answers that it is a demonstration. Add a model of your own, then delete this one.",
        max_tokens=4_096,
        supports_streaming=True,
        supports_temperature=True,
        api_version=api_version,
        azure_endpoint=origin,
    )
    return FirstModel(DEMO, config)


async def create_first_model(
    ledger: Ledger, views: Views, first: FirstModel, demo_origin: Origin | None
) -> None:
    """Create the model on an empty ledger; later only if nothing but the demonstration is there.

    Any number of processes may do so at once; the model comes into being once. What a person has
    deleted or changed is never made again, and a name that a person has given to another model stays with it.
    """
    context = Context(SYSTEM, "system", uuid7().hex, "first start")
    if await views.head() == 0:
        await _create(ledger, first, context)
        return
    models = await views.models()
    is_new = (await views.liveness(first.model_id))[0] == "absent"
    is_alias = any(first.model_id in (model.aliases or ()) for model in models.values())
    if is_new and not is_alias and models and all(_is_demo(each, demo_origin) for each in models.values()):
        await _create(ledger, first, context)
        await ledger.execute(SetDefault(first.model_id), context)


async def _create(ledger: Ledger, first: FirstModel, context: Context) -> None:
    try:
        await ledger.execute(CreateModel(first.model_id, first.config), context)
    except ModelExists:
        return  # another process was first


def _is_demo(model: ModelView, demo_origin: Origin | None) -> bool:
    return model.endpoint().origin == demo_origin
