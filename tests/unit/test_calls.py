"""What a configuration makes of a call's tries and time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from domain import calls
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
WITHOUT_TEMPERATURE = replace(CONFIG, supports_temperature=False)


class TestReasoning:
    @pytest.mark.parametrize(
        ("model_id", "config", "expected"),
        [
            (O3, CONFIG, True),
            (GPT, WITHOUT_TEMPERATURE, True),
            (GPT, CONFIG, False),
            (ModelId("omni"), CONFIG, False),
            (O3, replace(CONFIG, reasoning=False), False),
            (GPT, replace(CONFIG, reasoning=True), True),
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


class TestTime:
    def test_it_grows_with_the_prompt_and_the_limit(self) -> None:
        assert calls.timeout(CONFIG, 400, 100) == 120 + 0.05 * (100 + 100)

    def test_without_a_limit_the_ceiling_counts(self) -> None:
        assert calls.timeout(CONFIG, 0, None) == min(300, 120 + 0.05 * 4096)

    @given(prompt=st.integers(0, 2 * 10**7), limit=st.none() | st.integers(-(10**30), 10**7))
    def test_it_is_never_below_the_base_nor_above_the_maximum(self, prompt: int, limit: int | None) -> None:
        assert CONFIG.base_timeout <= calls.timeout(CONFIG, prompt, limit) <= CONFIG.max_timeout
