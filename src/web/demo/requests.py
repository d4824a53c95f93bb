"""What the demo upstream reads of a request: that on which its answer depends, and nothing else."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from web.demo.answers import Answer, ChatAnswer, EmbeddingsAnswer, ResponseAnswer, words

QUOTE_LIMIT: Final = 120
"""Characters of the question that an answer repeats."""
ABOUT: Final = (
    "This is the demonstration upstream that comes with Model Ledger, and no language model: it cannot "
    "answer you. To reach a real one, start Model Ledger with AZURE_OPENAI_ENDPOINT and "
    "AZURE_OPENAI_API_KEY of your Azure OpenAI resource, then set this model's azure_endpoint to that "
    "endpoint and its deployment to the name of a deployment there. The next message goes to it."
)

DemoOperation = Literal["chat/completions", "embeddings", "responses"]
Limit = Annotated[int, Meta(ge=1)] | None


class Refusal(Exception):
    """The call gets this status and error instead of an answer."""

    def __init__(self, status: int, error: Mapping[str, str | None]) -> None:
        super().__init__(error["message"])
        self.status = status
        self.error = error


class _Part(Struct):
    text: str = ""
    """Empty for images and sound."""


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None

    def text(self) -> str:
        parts = self.content or ""
        return parts if isinstance(parts, str) else " ".join(part.text for part in parts)


class _Item(Struct):
    """A message, or something else in the input of a response."""

    role: str = ""
    content: str | list[_Part] | None = None

    def text(self) -> str:
        return _Message(self.role, self.content).text()


class _StreamOptions(Struct):
    include_usage: bool = False


class ChatCall(Struct):
    """A request for a chat completion."""

    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Limit = None
    max_completion_tokens: Limit = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def answer(self) -> Answer:
        """A quote of the last question, and what this is."""
        pieces = _answer([message.text() for message in self.messages if message.role == "user"])
        limit = min(self.max_tokens or len(pieces), self.max_completion_tokens or len(pieces))
        asked = sum(len(message.text().split()) for message in self.messages)
        return ChatAnswer(pieces[:limit], asked, "length" if limit < len(pieces) else "stop")


class ResponseCall(Struct):
    """A request to the Responses API."""

    input: str | list[_Item] = ""
    model: str | None = None
    stream: bool | None = None
    max_output_tokens: Limit = None

    @property
    def include_usage(self) -> bool:
        """It is there, asked for or not."""
        return True

    def answer(self) -> Answer:
        """A quote of the last question, and what this is."""
        items = [_Item("user", self.input)] if isinstance(self.input, str) else self.input
        pieces = _answer([item.text() for item in items if item.role == "user"])
        limit = min(self.max_output_tokens or len(pieces), len(pieces))
        asked = sum(len(item.text().split()) for item in items)
        return ResponseAnswer(pieces[:limit], asked, "incomplete" if limit < len(pieces) else "completed")


class EmbeddingsCall(Struct):
    """A request for embeddings of texts, or of texts as tokens."""

    input: Annotated[str, Meta(min_length=1)] | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    model: str | None = None
    dimensions: Annotated[int, Meta(ge=1, le=3072)] = 1536
    encoding_format: Literal["float", "base64"] = "float"

    @property
    def stream(self) -> bool:
        """There is none."""
        return False

    @property
    def include_usage(self) -> bool:
        """It is there."""
        return True

    def answer(self) -> Answer:
        """One vector for each text."""
        one = isinstance(self.input, str) or isinstance(self.input[0], int)
        texts = [str(text) for text in ([self.input] if one else self.input)]
        asked = sum(len(text.split()) for text in texts)
        return EmbeddingsAnswer(texts, asked, self.dimensions, self.encoding_format)


Call = ChatCall | ResponseCall | EmbeddingsCall

CALLS: Final[Mapping[DemoOperation, type[Call]]] = {
    "chat/completions": ChatCall,
    "embeddings": EmbeddingsCall,
    "responses": ResponseCall,
}


def read_call(operation: DemoOperation, body: bytes, *, needs_model: bool) -> Call:
    """Read a request.

    Raises:
        Refusal: 400, it breaks a rule.
    """
    try:
        call = msgspec.json.decode(body, type=CALLS[operation])
    except msgspec.ValidationError as error:
        missing = re.search(r"missing required field `(\w+)`", str(error))
        place = re.search(r"`\$\.([^`]+)`$", str(error))
        param = ".".join(found[1] for found in (place, missing) if found)
        code = "missing_required_parameter" if missing else "invalid_value"
        raise invalid(f"{error}.", param=param or None, code=code) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("We could not parse the JSON body of your request.") from None
    if needs_model and not call.model:
        missing_model = "Missing required parameter: 'model'."
        raise invalid(missing_model, param="model", code="missing_required_parameter")
    return call


def invalid(message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> Refusal:
    """A refusal of what a request says."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Refusal(status, error)


def _answer(questions: list[str]) -> list[str]:
    question = " ".join(questions[-1].split()) if questions else ""
    quote = question if len(question) <= QUOTE_LIMIT else question[:QUOTE_LIMIT].rstrip() + "..."
    return words(f'You wrote: "{quote}". {ABOUT}' if quote else ABOUT)
