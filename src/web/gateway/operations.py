"""What differs between the operations that the gateway passes to a provider."""

from collections.abc import Callable
from typing import Final, Literal

from msgspec import Struct

from application.ports import Operation
from domain.configuration import ModelConfig
from domain.shaping import Fields, Shaped, shape_chat, shape_embeddings, shape_responses
from domain.values import ModelId
from web.gateway.chat_events import CHAT_EVENTS
from web.gateway.event_streams import EventForm
from web.gateway.request_fields import check_input, check_messages, check_nothing
from web.gateway.response_events import RESPONSE_EVENTS


class GatewayOperation(Struct, frozen=True):
    """One of them; everything else is the same for all."""

    name: Operation
    path: Literal["/chat/completions", "/embeddings", "/responses"]
    """Below the provider's base address, as below /v1."""
    check: Callable[[Fields], None]
    """Raises `GatewayRefusal` for a request that lacks what every provider asks for."""
    shape: Callable[[ModelId, ModelConfig, Fields], Shaped]
    form: EventForm | None
    """Of its streams; None when it has none."""


CHAT: Final = GatewayOperation("chat", "/chat/completions", check_messages, shape_chat, CHAT_EVENTS)
EMBEDDINGS: Final = GatewayOperation("embeddings", "/embeddings", check_input, shape_embeddings, None)
RESPONSES: Final = GatewayOperation(
    "responses", "/responses", check_nothing, shape_responses, RESPONSE_EVENTS
)
