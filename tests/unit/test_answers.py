"""What is read of answers as they pass: what was used, and what a provider says of itself."""

import json

import pytest

from application.ports import Tokens
from application.telemetry import Answered
from web.gateway.answered import of_stream, of_whole
from web.gateway.token_counts import END, MOST, read_tokens

CHAT = {"prompt_tokens": 3, "completion_tokens": 5}


def text(value: object) -> bytes:
    return json.dumps(value).encode()


class TestTokens:
    @pytest.mark.parametrize(
        ("usage", "tokens"),
        [
            (CHAT, Tokens(3, 5)),
            ({"prompt_tokens": 3, "total_tokens": 3}, Tokens(3, 0)),
            (
                {"input_tokens": 3, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 1}},
                Tokens(3, 5),
            ),
            ({"prompt_tokens": MOST, "completion_tokens": 0}, Tokens(MOST, 0)),
            (None, None),
            ({}, None),
            ([3, 5], None),
            ({"prompt_tokens": None, "completion_tokens": 5}, None),
            ({"prompt_tokens": 3, "completion_tokens": None}, None),
            ({"prompt_tokens": "3", "completion_tokens": 5}, None),
            ({"prompt_tokens": True, "completion_tokens": 5}, None),
            ({"prompt_tokens": 3.5, "completion_tokens": 5}, None),
            ({"prompt_tokens": -1, "completion_tokens": 5}, None),
            ({"prompt_tokens": MOST + 1, "completion_tokens": 5}, None),
        ],
    )
    def test_each_apis_usage_is_understood_and_nothing_else(
        self, usage: object, tokens: Tokens | None
    ) -> None:
        assert read_tokens(text({"choices": [], "usage": usage, "x": 1})) == tokens

    def test_it_may_be_spelled_over_lines(self) -> None:
        assert read_tokens(json.dumps({"usage": CHAT}, indent=4).encode()) == Tokens(3, 5)

    def test_of_a_stream_the_last_one_that_tells_any_counts(self) -> None:
        events = [{"usage": None}, {"usage": {**CHAT, "prompt_tokens": 1}}, {"usage": CHAT}, {"usage": None}]
        assert read_tokens(b"".join(b"data: %b\n\n" % text(event) for event in events)) == Tokens(3, 5)

    def test_the_word_in_a_text_or_in_metadata_is_none(self) -> None:
        trick = json.dumps({"usage": {"prompt_tokens": 9, "completion_tokens": 9}})
        answer = {
            "usage": CHAT,
            "text": trick,
            "metadata": {"usage": "x"},
            "tool_usage": {"prompt_tokens": 9},
        }
        assert read_tokens(text(answer)) == Tokens(3, 5)

    def test_only_the_end_is_searched(self) -> None:
        assert read_tokens(text({"data": "x" * 10 * END, "usage": CHAT})) == Tokens(3, 5)
        assert read_tokens(text({"usage": CHAT, "data": "x" * 10 * END})) is None

    @pytest.mark.parametrize(
        "answer", [b"", b'"usage"', b'"usage":', b'"usage":{', b'"usage":' + b"[" * 8_000, b'\xff"usage":{}']
    )
    def test_what_is_no_answer_tells_nothing(self, answer: bytes) -> None:
        assert read_tokens(answer) is None


class TestAnswered:
    def test_a_completion_names_its_model_its_id_and_why_it_ended(self) -> None:
        whole = {"id": "c", "model": "m", "choices": [{"finish_reason": "stop"}, {"finish_reason": "length"}]}
        assert of_whole(text(whole)) == Answered(model="m", id="c", finish_reasons=("stop", "length"))

    def test_a_stream_says_the_same_over_its_last_chunks(self) -> None:
        chunks = [
            {"id": "c", "model": "m", "choices": [{"finish_reason": None}]},
            {"id": "c", "model": "m", "choices": [{"finish_reason": "stop"}]},
            {"id": "c", "model": "m", "choices": []},
        ]
        lines = b"".join(b"data: %b\n\n" % text(chunk) for chunk in chunks) + b"data: [DONE]\n\n"
        assert of_stream(lines) == Answered(model="m", id="c", finish_reasons=("stop",))

    def test_a_response_ends_with_its_status(self) -> None:
        response = {"id": "r", "model": "m", "status": "completed"}
        told = Answered(model="m", id="r", finish_reasons=("completed",))
        assert of_whole(text(response)) == told
        assert of_stream(b"event: x\ndata: %b\n\n" % text({"type": "x", "response": response})) == told

    @pytest.mark.parametrize("answer", [b"", b"[]", b'{"model":1}', b"[" * 100_000])
    def test_what_is_not_understood_says_nothing(self, answer: bytes) -> None:
        assert of_whole(answer) == of_stream(b"data: " + answer) == Answered()
