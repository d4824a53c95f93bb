"""What the demo upstream answers, in the shapes of Azure OpenAI's APIs."""

import base64
import re
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import shake_256
from math import hypot
from typing import Final, Literal, Protocol
from uuid import uuid4

import msgspec
from msgspec import Struct, field

MODEL: Final = "demo-upstream"


class Answer(Protocol):
    """One answer in both forms of its API."""

    def whole(self) -> bytes:
        """The answer as JSON."""
        ...

    def events(self, *, include_usage: bool = False) -> Iterator[bytes]:
        """The same as server-sent events: the opening, then one for each piece, then the end."""
        ...


def _now() -> int:
    return int(time.time())


class ChatAnswer(Struct, frozen=True):
    """A chat completion. `pieces` joined are its text; each counts as one token."""

    pieces: Sequence[str]
    prompt_tokens: int = 1
    finish_reason: Literal["stop", "length"] = "stop"
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=_now)

    def whole(self) -> bytes:
        """See `Answer.whole`."""
        message = {"role": "assistant", "content": "".join(self.pieces), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return msgspec.json.encode(self._object("chat.completion", [choice], {"usage": self._usage()}))

    def events(self, *, include_usage: bool = False) -> Iterator[bytes]:
        """See `Answer.events`: role, pieces, finish reason, usage if asked for, `[DONE]`."""
        nothing_yet = {"usage": None} if include_usage else {}
        yield self._event({"role": "assistant", "content": "", "refusal": None}, None, nothing_yet)
        for piece in self.pieces:
            yield self._event({"content": piece}, None, nothing_yet)
        yield self._event({}, self.finish_reason, nothing_yet)
        if include_usage:
            yield sse(self._object("chat.completion.chunk", [], {"usage": self._usage()}))
        yield b"data: [DONE]\n\n"

    def _event(self, delta: object, finish_reason: str | None, extra: Mapping[str, object]) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse(self._object("chat.completion.chunk", [choice], extra))

    def _object(self, kind: str, choices: object, extra: Mapping[str, object]) -> dict[str, object]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": MODEL}
        return {**head, "system_fingerprint": "fp_demo", "choices": choices, **extra}

    def _usage(self) -> dict[str, int]:
        completion = len(self.pieces)
        total = self.prompt_tokens + completion
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": completion, "total_tokens": total}


class ResponseAnswer(Struct, frozen=True):
    """An answer of the Responses API, with one message. `pieces` as in a chat."""

    pieces: Sequence[str]
    prompt_tokens: int = 1
    status: Literal["completed", "incomplete"] = "completed"
    id: str = field(default_factory=lambda: f"resp_{uuid4().hex}")
    item_id: str = field(default_factory=lambda: f"msg_{uuid4().hex}")
    created: int = field(default_factory=_now)

    def whole(self) -> bytes:
        """See `Answer.whole`."""
        return msgspec.json.encode(self._response(self.status, [self._message(self.status)], self._usage()))

    def events(self, *, include_usage: bool = False) -> Iterator[bytes]:  # noqa: ARG002 - it is there anyway
        """See `Answer.events`; the opening and the end are several events each."""
        text, place = "".join(self.pieces), {"item_id": self.item_id, "output_index": 0, "content_index": 0}
        begun = self._response("in_progress", [], None)
        item = {**self._message("in_progress"), "content": []}
        number = iter(range(len(self.pieces) + 8))
        yield b"".join(
            (
                _event("response.created", number, response=begun),
                _event("response.in_progress", number, response=begun),
                _event("response.output_item.added", number, output_index=0, item=item),
                _event("response.content_part.added", number, part=_part(""), **place),
            )
        )
        for piece in self.pieces:
            yield _event("response.output_text.delta", number, delta=piece, logprobs=[], **place)
        done = self._message(self.status)
        yield b"".join(
            (
                _event("response.output_text.done", number, text=text, logprobs=[], **place),
                _event("response.content_part.done", number, part=_part(text), **place),
                _event("response.output_item.done", number, output_index=0, item=done),
                _event(
                    f"response.{self.status}",
                    number,
                    response=self._response(self.status, [done], self._usage()),
                ),
            )
        )

    def _message(self, status: str) -> dict[str, object]:
        content = [_part("".join(self.pieces))]
        return {
            "id": self.item_id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _response(self, status: str, output: object, usage: object) -> dict[str, object]:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None,
            "metadata": {},
            "model": MODEL,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": usage,
        }

    def _usage(self) -> dict[str, object]:
        return {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": len(self.pieces),
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + len(self.pieces),
        }


class EmbeddingsAnswer(Struct, frozen=True):
    """Vectors of length 1 that follow from the texts alone, and mean nothing."""

    texts: Sequence[str]
    prompt_tokens: int = 1
    dimensions: int = 1536
    encoding: Literal["float", "base64"] = "float"

    def whole(self) -> bytes:
        """See `Answer.whole`."""
        data = [
            {"object": "embedding", "index": index, "embedding": self._embedding(text)}
            for index, text in enumerate(self.texts)
        ]
        usage = {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens}
        return msgspec.json.encode({"object": "list", "data": data, "model": MODEL, "usage": usage})

    def events(self, *, include_usage: bool = False) -> Iterator[bytes]:  # noqa: ARG002
        """Embeddings have none."""
        return iter(())

    def _embedding(self, text: str) -> list[float] | str:
        numbers = [byte - 127.5 for byte in shake_256(text.encode()).digest(self.dimensions)]
        length = hypot(*numbers)
        vector = [number / length for number in numbers]
        if self.encoding == "float":
            return vector
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def words(text: str) -> list[str]:
    """The words of a text, each with the blanks before it, so that joined they are the text again."""
    return re.findall(r"\s*\S+", text)


def sse(data: object) -> bytes:
    """One server-sent event with that JSON."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _event(kind: str, number: Iterator[int], **fields: object) -> bytes:
    return b"event: %b\n" % kind.encode() + sse({"type": kind, "sequence_number": next(number), **fields})


def _part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
