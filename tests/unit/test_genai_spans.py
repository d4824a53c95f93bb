"""What OpenTelemetry is told of a call, in the names of its conventions."""

import pytest
from live_models import live_model
from records import call

from application.ports import Tokens
from application.telemetry import Answered
from infrastructure.genai_spans import TOKENS, describe, outcome


def test_a_model_of_azure_is_described_before_it_is_called() -> None:
    described = describe("chat", live_model())
    assert described.span_name == "chat gpt-4"
    assert described.of_metrics == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "gpt-4",
        "server.address": "north.openai.azure.com",
        "server.port": 443,
    }
    assert described.of_span == {
        **described.of_metrics,
        "openai.api.type": "chat_completions",
        "model_ledger.config.version": 7,
    }
    assert described.of_input == {**described.of_metrics, "gen_ai.token.type": "input"}
    assert described.of_output == {**described.of_metrics, "gen_ai.token.type": "output"}


@pytest.mark.parametrize(
    ("base_url", "address", "port"),
    [("http://127.0.0.1:8080/v1", "127.0.0.1", 8080), ("http://[::1]/v1", "::1", 80)],
)
def test_any_other_server_is_named_by_its_own_address(base_url: str, address: str, port: int) -> None:
    described = describe("responses", live_model(provider="openai", base_url=base_url))
    assert described.span_name == "chat gpt-4"
    assert described.of_span["openai.api.type"] == "responses"
    assert described.of_span["gen_ai.provider.name"] == "openai"
    assert (described.of_span["server.address"], described.of_span["server.port"]) == (address, port)


def test_an_address_that_todays_rules_refuse_is_left_out() -> None:
    described = describe("embeddings", live_model(azure_endpoint="nonsense"))
    assert described.span_name == "embeddings gpt-4"
    assert "server.address" not in described.of_span


def test_a_plain_success_tells_its_tokens() -> None:
    assert outcome(call(tokens=Tokens(10, 20)), None) == {
        "model_ledger.retries": 0,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
    }


def test_a_stream_that_failed_tells_how_and_after_how_many_retries() -> None:
    assert outcome(call(stream=True, error="broken", attempts=3, tokens=None), None) == {
        "model_ledger.retries": 2,
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.5,
        "error.type": "broken",
    }


def test_a_call_that_never_reached_a_provider_has_no_retries() -> None:
    assert outcome(call(attempts=0, tokens=None), None) == {"model_ledger.retries": 0}


def test_what_the_provider_says_of_its_answer_is_told_if_it_was_found_out() -> None:
    told = outcome(call(tokens=None), Answered(model="gpt-4-0613", finish_reasons=["stop"]))
    assert told == {
        "model_ledger.retries": 0,
        "gen_ai.response.model": "gpt-4-0613",
        "gen_ai.response.finish_reasons": ("stop",),
    }


def test_there_is_a_most_of_what_a_provider_has_told() -> None:
    endless = Answered(model="m" * 10_000, id="i" * 10_000, finish_reasons=["r" * 10_000] * 10_000)
    told = outcome(call(), endless)
    assert len(repr(told)) < 6_000


def test_the_buckets_of_tokens_are_those_of_the_conventions() -> None:
    assert (TOKENS[0], TOKENS[1], TOKENS[-1]) == (1, 4, 67_108_864)
