"""What a configuration makes of a call, as sentences and laws."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from domain import calls
from domain.calls import SAMPLING, Shaped
from domain.configuration import ModelConfig
from domain.values import ModelId

GPT = ModelId("gpt-4")
O3 = ModelId("o3-mini")
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
REQUESTS = st.fixed_dictionaries(
    {"model": st.just("gpt-4"), "messages": st.just([{"role": "user", "content": "hi"}])},
    optional={
        "max_tokens": JSON_VALUES,
        "max_completion_tokens": JSON_VALUES,
        "temperature": JSON_VALUES,
        "stream": st.booleans() | st.none(),
        "stream_options": JSON_VALUES,
        "x_unknown": JSON_VALUES,
    },
)


def raw(request: dict[str, Any]) -> dict[str, Raw]:
    return msgspec.json.decode(msgspec.json.encode(request), type=dict[str, Raw])


def shaped(config: ModelConfig = CONFIG, model_id: ModelId = GPT, **request: Any) -> Shaped:
    return calls.shape(model_id, config, raw({"model": model_id, **request}))


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

    @pytest.mark.parametrize("trick", ["9000", 9e3, 1e300, "inf", 10**30])
    def test_no_spelling_of_a_number_gets_past_the_ceiling(self, trick: object) -> None:
        assert plain(shaped(max_tokens=trick))["max_tokens"] == 4096

    @pytest.mark.parametrize("value", [None, "many", True, [9000], "nan", "-inf"])
    def test_what_is_no_number_is_left_for_the_provider_to_judge(self, value: object) -> None:
        result = shaped(max_tokens=value)
        assert (plain(result)["max_tokens"], result.adjusted, result.limit) == (value, {}, None)

    def test_the_lower_of_two_limits_counts(self) -> None:
        assert shaped(max_tokens=100, max_completion_tokens=50).limit == 50


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

    @pytest.mark.parametrize(
        ("model_id", "config", "expected"),
        [
            (O3, CONFIG, True),
            (GPT, PLAIN, True),
            (GPT, CONFIG, False),
            (ModelId("omni"), CONFIG, False),
            (O3, replace(CONFIG, reasoning=False), False),
            (GPT, REASONING, True),
        ],
    )
    def test_it_is_derived_from_the_id_and_the_temperature_unless_it_is_set(
        self, model_id: ModelId, config: ModelConfig, expected: object
    ) -> None:
        assert calls.is_reasoning(model_id, config) is expected

    def test_reasoning_models_have_a_number_of_retries_of_their_own(self) -> None:
        assert calls.retries(GPT, CONFIG, 7) == calls.RETRIES
        assert calls.retries(O3, CONFIG, 7) == 7
        assert calls.retries(O3, replace(CONFIG, max_retries=1), 7) == 1


class TestTheRest:
    def test_a_model_without_temperature_gets_none_of_its_kin(self) -> None:
        result = shaped(PLAIN, **dict.fromkeys(SAMPLING, 1))
        assert plain(result) == {"model": GPT}
        assert result.adjusted == dict.fromkeys(SAMPLING, "dropped")

    def test_a_model_that_cannot_stream_is_asked_for_the_whole_answer(self) -> None:
        result = shaped(PLAIN, stream=True, stream_options={"include_usage": True})
        assert plain(result) == {"model": GPT}
        assert (result.stream, result.adjusted) == (False, {"stream": "whole"})

    def test_a_model_that_streams_is_asked_for_a_stream(self) -> None:
        result = shaped(stream=True)
        assert (result.stream, plain(result)["stream"], result.adjusted) == (True, True, {})

    def test_the_provider_gets_the_deployments_name(self) -> None:
        assert plain(shaped(replace(CONFIG, deployment="prod"))) == {"model": "prod"}
        assert plain(shaped()) == {"model": GPT}


class TestTime:
    def test_it_grows_with_the_prompt_and_the_limit(self) -> None:
        assert calls.timeout(CONFIG, 400, 100) == 120 + 0.05 * (100 + 100)

    def test_without_a_limit_the_ceiling_counts(self) -> None:
        assert calls.timeout(CONFIG, 0, None) == min(300, 120 + 0.05 * 4096)

    @given(prompt=st.integers(0, 2 * 10**7), limit=st.none() | st.integers(-(10**30), 10**7))
    def test_it_is_never_below_the_base_nor_above_the_maximum(self, prompt: int, limit: int | None) -> None:
        assert CONFIG.base_timeout <= calls.timeout(CONFIG, prompt, limit) <= CONFIG.max_timeout


@given(config=CONFIGS, request=REQUESTS)
def test_unknown_fields_stay_byte_for_byte(config: ModelConfig, request: dict[str, Any]) -> None:
    before = raw(request)
    after = calls.shape(GPT, config, before).fields
    for name in {"messages", "x_unknown"} & request.keys():
        assert bytes(after[name]) == bytes(before[name])


@given(config=CONFIGS, request=REQUESTS)
def test_every_field_that_differs_is_told_of(config: ModelConfig, request: dict[str, Any]) -> None:
    before = raw(request)
    result = calls.shape(GPT, config, before)
    changed = {
        name
        for name in before.keys() | result.fields.keys()
        if bytes(before.get(name, b"")) != bytes(result.fields.get(name, b""))
    }
    companions = {"max_completion_tokens", "stream_options"}  # told of under the field that they belong to
    assert changed - companions <= result.adjusted.keys()


@given(config=CONFIGS, request=REQUESTS)
def test_shaping_twice_is_shaping_once(config: ModelConfig, request: dict[str, Any]) -> None:
    once = calls.shape(GPT, config, raw(request))
    twice = calls.shape(GPT, config, once.fields)
    assert plain(twice) == plain(once)
    assert twice.adjusted == {}


@given(config=CONFIGS, request=REQUESTS)
def test_what_is_told_is_fit_for_a_header(config: ModelConfig, request: dict[str, Any]) -> None:
    for name, what in calls.shape(GPT, config, raw(request)).adjusted.items():
        assert name.isidentifier()
        assert what.isidentifier() or what.isdecimal()
