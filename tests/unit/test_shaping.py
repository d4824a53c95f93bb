"""What a configuration makes of a request's fields, as sentences and laws."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from domain.configuration import ModelConfig
from domain.shaping import (
    CHAT_SAMPLING,
    RESPONSES_SAMPLING,
    Fields,
    Shaped,
    shape_chat,
    shape_embeddings,
    shape_responses,
)
from domain.values import ModelId

Shape = Callable[[ModelId, ModelConfig, Fields], Shaped]

GPT = ModelId("gpt-4")
CONFIG = ModelConfig(
    name="A model",
    max_tokens=4096,
    supports_streaming=True,
    supports_temperature=True,
    azure_endpoint="https://example.openai.azure.com",
    api_version="2025-01-01-preview",
)
PLAIN = replace(CONFIG, supports_streaming=False, supports_temperature=False)
REASONING = replace(CONFIG, reasoning=True)

STREAMING = pytest.mark.parametrize("shape", [shape_chat, shape_responses])
MESSAGES = pytest.mark.parametrize(("shape", "name"), [(shape_chat, "messages"), (shape_responses, "input")])

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CONFIGS = st.sampled_from([CONFIG, PLAIN, REASONING, replace(PLAIN, reasoning=False)])
SHAPES = st.sampled_from([shape_chat, shape_responses, shape_embeddings])
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user"]), "content": JSON_VALUES}
)
REQUESTS = st.fixed_dictionaries(
    {"model": st.just("gpt-4"), "messages": st.lists(MESSAGE, min_size=1, max_size=3)},
    optional={
        "input": st.lists(MESSAGE, max_size=3) | JSON_VALUES,
        "max_tokens": JSON_VALUES,
        "max_completion_tokens": JSON_VALUES,
        "max_output_tokens": JSON_VALUES,
        "temperature": JSON_VALUES,
        "stream": st.booleans() | st.none(),
        "stream_options": JSON_VALUES,
        "x_unknown": JSON_VALUES,
    },
)


def raw(request: dict[str, Any]) -> dict[str, Raw]:
    return msgspec.json.decode(msgspec.json.encode(request), type=dict[str, Raw])


def shaped(config: ModelConfig = CONFIG, shape: Shape = shape_chat, **request: Any) -> Shaped:
    return shape(GPT, config, raw({"model": GPT, **request}))


def plain(result: Shaped) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(result.fields))


class TestLimits:
    def test_a_limit_above_the_ceiling_becomes_the_ceiling_and_is_told(self) -> None:
        result = shaped(max_tokens=9000)
        assert plain(result)["max_tokens"] == 4096
        assert (result.adjusted, result.limit) == ({"max_tokens": "4096"}, 4096)

    def test_a_limit_at_the_ceiling_is_left_alone(self) -> None:
        result = shaped(max_tokens=4096)
        assert (plain(result)["max_tokens"], result.adjusted, result.limit) == (4096, {}, 4096)

    def test_a_call_that_names_no_limit_gets_none(self) -> None:
        result = shaped()
        assert result.fields.keys() == {"model"}
        assert result.limit is None

    @pytest.mark.parametrize("trick", ["9000", 9e3, 1e300, "inf", 10**30, "1e999", " 99999 "])
    def test_no_spelling_of_a_number_gets_past_the_ceiling(self, trick: object) -> None:
        assert plain(shaped(max_tokens=trick))["max_tokens"] == 4096
        assert plain(shaped(shape=shape_responses, max_output_tokens=trick))["max_output_tokens"] == 4096

    @pytest.mark.parametrize("value", [None, "many", True, [9000], "nan", "-inf"])
    def test_what_is_no_number_is_left_for_the_provider_to_judge(self, value: object) -> None:
        result = shaped(max_tokens=value)
        assert (plain(result)["max_tokens"], result.adjusted, result.limit) == (value, {}, None)

    def test_the_lower_of_two_limits_counts(self) -> None:
        assert shaped(max_tokens=100, max_completion_tokens=50).limit == 50

    def test_a_response_has_a_limit_of_its_own_name(self) -> None:
        result = shaped(shape=shape_responses, max_output_tokens=9000, max_tokens=9000)
        assert plain(result) == {"model": GPT, "max_output_tokens": 4096, "max_tokens": 9000}
        assert (result.adjusted, result.limit) == ({"max_output_tokens": "4096"}, 4096)

    def test_embeddings_have_no_output_tokens(self) -> None:
        result = shaped(PLAIN, shape_embeddings, max_tokens=9000, temperature=1, stream=True)
        assert plain(result) == {"model": GPT, "max_tokens": 9000, "temperature": 1, "stream": True}
        assert (result.limit, result.stream, result.adjusted) == (0, False, {})


class TestReasoning:
    def test_a_reasoning_model_takes_its_limit_under_the_other_name(self) -> None:
        result = shaped(REASONING, max_tokens=100)
        assert plain(result) == {"model": GPT, "max_completion_tokens": 100}
        assert result.adjusted == {"max_tokens": "max_completion_tokens"}

    def test_a_renamed_limit_is_clamped_too(self) -> None:
        result = shaped(REASONING, max_tokens=9000)
        assert plain(result) == {"model": GPT, "max_completion_tokens": 4096}
        assert result.adjusted == {"max_tokens": "max_completion_tokens", "max_completion_tokens": "4096"}

    def test_with_both_limits_the_right_one_stays(self) -> None:
        result = shaped(REASONING, max_tokens=10, max_completion_tokens=20)
        assert plain(result) == {"model": GPT, "max_completion_tokens": 20}
        assert result.adjusted == {"max_tokens": "dropped"}


class TestRoles:
    @MESSAGES
    def test_where_both_stand_a_reasoning_model_gets_developers_only(self, shape: Shape, name: str) -> None:
        roles = ["system", "developer", "user", "system"]
        text = "[{}]".format(",".join(f'{{"x" : 1.50,"role": "{role}"}}' for role in roles))
        result = shape(GPT, REASONING, {"model": Raw(b'"gpt-4"'), name: Raw(text.encode())})
        assert [message["role"] for message in plain(result)[name]] == [
            "developer",
            "developer",
            "user",
            "developer",
        ]
        untouched = b'{"x" : 1.50,"role": "user"}'
        assert untouched in bytes(result.fields[name])
        assert bytes(result.fields[name]).count(b"1.50") == 4
        assert result.adjusted == {name: "developer"}

    @MESSAGES
    @pytest.mark.parametrize(
        "text",
        [
            b'[{"role": "system"}, {"role": "user", "content": "a developer"}]',
            b'[{"role": "developer"}, {"role": "user", "content": "\\"system\\""}]',
            b'[{"role": "developer", "name": "system"}]',
            b'[{"role": "developer"}, {"role": 1}, {"role": "system"}]',
            b'["developer", "system"]',
            b'{"developer": "system"}',
        ],
    )
    def test_else_the_messages_stay_byte_for_byte(self, shape: Shape, name: str, text: bytes) -> None:
        result = shape(GPT, REASONING, {"model": Raw(b'"gpt-4"'), name: Raw(text)})
        assert bytes(result.fields[name]) == text
        assert result.adjusted == {}

    @MESSAGES
    def test_other_models_may_have_both(self, shape: Shape, name: str) -> None:
        messages = [{"role": "system"}, {"role": "developer"}]
        assert plain(shaped(CONFIG, shape, **{name: messages}))[name] == messages


class TestTheRest:
    @pytest.mark.parametrize(
        ("shape", "kin"), [(shape_chat, CHAT_SAMPLING), (shape_responses, RESPONSES_SAMPLING)]
    )
    def test_a_model_without_temperature_gets_none_of_its_kin(
        self, shape: Shape, kin: tuple[str, ...]
    ) -> None:
        result = shaped(PLAIN, shape, **dict.fromkeys(kin, 1))
        assert plain(result) == {"model": GPT}
        assert result.adjusted == dict.fromkeys(kin, "dropped")

    @STREAMING
    def test_a_model_that_cannot_stream_is_asked_for_the_whole_answer(self, shape: Shape) -> None:
        result = shaped(PLAIN, shape, stream=True, stream_options={"include_usage": True})
        assert plain(result) == {"model": GPT}
        assert (result.stream, result.adjusted) == (False, {"stream": "whole"})

    @STREAMING
    def test_a_model_that_streams_is_asked_for_a_stream(self, shape: Shape) -> None:
        result = shaped(shape=shape, stream=True)
        assert (result.stream, plain(result)["stream"], result.adjusted) == (True, True, {})

    @pytest.mark.parametrize("shape", [shape_chat, shape_responses, shape_embeddings])
    def test_the_provider_gets_the_deployments_name(self, shape: Shape) -> None:
        assert plain(shaped(replace(CONFIG, deployment="prod"), shape)) == {"model": "prod"}
        assert plain(shaped(shape=shape)) == {"model": GPT}


@given(config=CONFIGS, shape=SHAPES, request=REQUESTS)
def test_what_is_not_told_of_stays_byte_for_byte(
    config: ModelConfig, shape: Shape, request: dict[str, Any]
) -> None:
    before = raw(request)
    result = shape(GPT, config, before)
    # Told of under the field that they belong to.
    companions = {"max_tokens": {"max_completion_tokens"}, "stream": {"stream_options"}}
    told = {"model", *result.adjusted}.union(*(companions.get(name, set()) for name in result.adjusted))
    for name in (before.keys() | result.fields.keys()) - told:
        assert bytes(before.get(name, b"")) == bytes(result.fields.get(name, b"")), name
    assert "x_unknown" not in told


@given(config=CONFIGS, shape=SHAPES, request=REQUESTS)
def test_shaping_twice_is_shaping_once(config: ModelConfig, shape: Shape, request: dict[str, Any]) -> None:
    once = shape(GPT, config, raw(request))
    twice = shape(GPT, config, once.fields)
    assert plain(twice) == plain(once)
    assert twice.adjusted == {}


@given(config=CONFIGS, shape=SHAPES, request=REQUESTS)
def test_what_is_told_is_fit_for_a_header(config: ModelConfig, shape: Shape, request: dict[str, Any]) -> None:
    for name, what in shape(GPT, config, raw(request)).adjusted.items():
        assert name.isidentifier()
        assert what.isidentifier() or what.isdecimal()
