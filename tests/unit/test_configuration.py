"""What a configuration may be, and what is told of one that may not."""

from collections.abc import Mapping

import pytest
from factories import ORIGINS, AnyConfigFactory, AzureConfigFactory, OpenAIConfigFactory
from msgspec import UNSET
from scenario import told

from domain.configuration import CONSTRAINTS, FIELDS, READ_ONLY, ModelConfig, check
from domain.values import parse_endpoint

AZURE: Mapping[str, object] = {
    "name": "GPT-4",
    "max_tokens": 4096,
    "supports_streaming": True,
    "supports_temperature": True,
    "api_version": "2024-10-21",
    "azure_endpoint": "https://north.openai.azure.com",
}
OPENAI: Mapping[str, object] = {
    "name": "Llama",
    "max_tokens": 4096,
    "supports_streaming": True,
    "supports_temperature": True,
    "provider": "openai",
    "base_url": "https://api.openai.com/v1",
}


def problems(raw: Mapping[str, object]) -> list[str]:
    """What `check` tells, as `/pointer code`."""
    config, found = check(raw, ORIGINS)
    assert (config is None) == bool(found)
    return told(found)


def read(raw: Mapping[str, object]) -> ModelConfig:
    config, found = check(raw, ORIGINS)
    assert config is not None, found
    return config


# What is accepted


def test_the_least_that_an_azure_model_needs_is_accepted_and_the_rest_has_defaults() -> None:
    config = read(AZURE)
    assert config.fields() == {
        **AZURE,
        "provider": "azure",
        "description": "",
        "base_timeout": 120,
        "max_timeout": 300,
        "token_factor": 0.05,
        "credential": "environment",
        "enabled": True,
    }
    assert (config.base_url, config.deployment, config.reasoning, config.max_retries) == (UNSET,) * 4
    assert (config.aliases, config.fallbacks) == (UNSET,) * 2


def test_the_least_that_an_openai_model_needs_is_accepted() -> None:
    assert read(OPENAI).endpoint().origin == "https://api.openai.com"


def test_what_was_sent_is_kept_as_it_was_sent() -> None:
    sent = {**AZURE, "name": "  GPT-4 ", "base_timeout": 60, "max_timeout": 60.0, "token_factor": -0.0}
    kept = read({**sent, "azure_endpoint": "https://NORTH.openai.azure.com:443/"}).fields()
    assert kept["name"] == "  GPT-4 "
    assert kept["azure_endpoint"] == "https://NORTH.openai.azure.com:443/"
    assert [repr(kept[name]) for name in ("base_timeout", "max_timeout", "token_factor")] == [
        "60",
        "60.0",
        "-0.0",
    ]


def test_every_field_has_a_constraint_and_no_constraint_lacks_its_field() -> None:
    assert set(CONSTRAINTS) == set(FIELDS)


def test_the_factories_keep_the_rules() -> None:
    for factory in (AzureConfigFactory, OpenAIConfigFactory):
        for config in factory.batch(50):
            assert problems(config.fields()) == []


def test_configurations_that_only_keep_the_types_break_rules_and_are_told_so() -> None:
    assert all(problems(config.fields()) for config in AnyConfigFactory.batch(50))


# One rule at a time

BOTH = [pytest.param(AZURE, id="azure"), pytest.param(OPENAI, id="openai")]

WRONG = [
    # field, value, code
    ("name", "", "invalid_value"),
    ("name", "x" * 201, "invalid_value"),
    ("name", None, "invalid_value"),
    ("name", 7, "invalid_value"),
    ("name", "   ", "invalid_text"),
    ("name", "\u3000\u2003", "invalid_text"),
    ("name", "a\nb", "invalid_text"),
    ("name", "a\x00", "invalid_text"),
    ("name", "a\x1b[31m", "invalid_text"),
    ("name", "a\x7f", "invalid_text"),
    ("name", "a\x85b", "invalid_text"),
    ("name", "a\ud800", "invalid_text"),
    ("description", "a\r\nb", "invalid_text"),
    ("description", "\udfff", "invalid_text"),
    ("description", "x" * 2_001, "invalid_value"),
    ("description", None, "invalid_value"),
    ("max_tokens", 0, "invalid_value"),
    ("max_tokens", -1, "invalid_value"),
    ("max_tokens", 10_000_001, "invalid_value"),
    ("max_tokens", 10**400, "invalid_value"),
    ("max_tokens", 4096.0, "invalid_value"),
    ("max_tokens", "4096", "invalid_value"),
    ("max_tokens", True, "invalid_value"),
    ("max_tokens", None, "invalid_value"),
    ("max_tokens", [4096], "invalid_value"),
    ("supports_streaming", 1, "invalid_value"),
    ("supports_streaming", "true", "invalid_value"),
    ("supports_streaming", None, "invalid_value"),
    ("supports_temperature", 0, "invalid_value"),
    ("supports_temperature", {}, "invalid_value"),
    ("enabled", "yes", "invalid_value"),
    ("enabled", None, "invalid_value"),
    ("reasoning", None, "invalid_value"),
    ("reasoning", 1, "invalid_value"),
    ("max_retries", -1, "invalid_value"),
    ("max_retries", 11, "invalid_value"),
    ("max_retries", 1.5, "invalid_value"),
    ("max_retries", None, "invalid_value"),
    ("base_timeout", 0, "invalid_value"),
    ("base_timeout", 0.0, "invalid_value"),
    ("base_timeout", -5, "invalid_value"),
    ("base_timeout", 86_401, "invalid_value"),
    ("base_timeout", 1e22, "invalid_value"),
    ("base_timeout", 10**400, "invalid_value"),
    ("base_timeout", float("nan"), "invalid_value"),
    ("base_timeout", float("inf"), "invalid_value"),
    ("base_timeout", "120", "invalid_value"),
    ("base_timeout", True, "invalid_value"),
    ("base_timeout", 300.5, "above_max_timeout"),
    ("max_timeout", 86_400.5, "invalid_value"),
    ("max_timeout", -0.0, "invalid_value"),
    ("max_timeout", None, "invalid_value"),
    ("token_factor", -0.01, "invalid_value"),
    ("token_factor", 86_401, "invalid_value"),
    ("token_factor", False, "invalid_value"),
    ("deployment", "", "invalid_value"),
    ("deployment", "-a", "invalid_value"),
    ("deployment", "a b", "invalid_value"),
    ("deployment", "a?b", "invalid_value"),
    ("deployment", "a#b", "invalid_value"),
    ("deployment", "a%2Fb", "invalid_value"),
    ("deployment", "a\\b", "invalid_value"),
    ("deployment", "a\n", "invalid_value"),
    ("deployment", "é", "invalid_value"),
    ("deployment", "a/../b", "invalid_value"),
    ("deployment", "a/./b", "invalid_value"),
    ("deployment", "a//b", "invalid_value"),
    ("deployment", "a/", "invalid_value"),
    ("deployment", "x" * 257, "invalid_value"),
    ("deployment", None, "invalid_value"),
    ("credential", "prod", "unknown_credential"),
    ("credential", "", "unknown_credential"),
    ("credential", "Environment", "unknown_credential"),
    ("credential", 1, "invalid_value"),
    ("aliases", None, "invalid_value"),
    ("aliases", "chat", "invalid_value"),
    ("aliases", {"chat": 1}, "invalid_value"),
    ("aliases", [f"a{number}" for number in range(21)], "invalid_value"),
    ("fallbacks", None, "invalid_value"),
    ("fallbacks", "gpt-4", "invalid_value"),
    ("fallbacks", [f"a{number}" for number in range(11)], "invalid_value"),
]


@pytest.mark.parametrize("raw", BOTH)
@pytest.mark.parametrize(
    ("field", "value", "code"), WRONG, ids=[f"{field}-{number}" for number, (field, *_) in enumerate(WRONG)]
)
def test_a_wrong_value_is_told_with_its_field_and_nothing_else(
    raw: Mapping[str, object], field: str, value: object, code: str
) -> None:
    assert problems(raw) == []
    assert problems({**raw, field: value}) == [f"/{field} {code}"]


LIMITS = [
    ("name", "x"),
    ("name", "x" * 200),
    ("name", "Ünïcödé 模型 👩\u200d🔬"),
    ("description", "x" * 2_000),
    ("max_tokens", 1),
    ("max_tokens", 10_000_000),
    ("max_retries", 0),
    ("max_retries", 10),
    ("base_timeout", 1e-7),
    ("base_timeout", 300),
    ("base_timeout", 300.0),
    ("max_timeout", 120),
    ("max_timeout", 86_400),
    ("max_timeout", 86_400.0),
    ("token_factor", 0),
    ("token_factor", -0.0),
    ("token_factor", 86_400),
    ("deployment", "a"),
    ("deployment", "gpt-4.1_mini:v2@x+y"),
    ("deployment", "x" * 256),
    ("reasoning", False),
    ("enabled", False),
    ("credential", None),
    ("aliases", []),
    ("aliases", [f"a{number}" for number in range(20)]),
    ("aliases", ["a", "A", "0", "meta-llama/Llama-3-8B", "a/b/c:latest", "a..b", "x" * 128]),
    ("fallbacks", []),
    ("fallbacks", [f"a{number}" for number in range(10)]),
    ("fallbacks", ["gpt-4o:2024-11-20", "A.b_c:d-e", "x" * 128]),
]


@pytest.mark.parametrize("raw", BOTH)
@pytest.mark.parametrize(
    ("field", "value"), LIMITS, ids=[f"{field}-{number}" for number, (field, _) in enumerate(LIMITS)]
)
def test_a_value_at_its_limit_is_accepted(raw: Mapping[str, object], field: str, value: object) -> None:
    assert repr(read({**raw, field: value}).fields()[field]) == repr(value)


@pytest.mark.parametrize("field", ["name", "max_tokens", "supports_streaming", "supports_temperature"])
def test_a_field_that_every_model_needs_is_required(field: str) -> None:
    assert problems({name: value for name, value in AZURE.items() if name != field}) == [f"/{field} required"]


def test_the_base_timeout_is_compared_with_the_default_limit_too() -> None:
    assert problems({**AZURE, "max_timeout": 60}) == ["/base_timeout above_max_timeout"]
    assert problems({**AZURE, "base_timeout": 301}) == ["/base_timeout above_max_timeout"]


def test_a_timeout_that_is_no_number_is_not_compared() -> None:
    assert problems({**AZURE, "base_timeout": "400"}) == ["/base_timeout invalid_value"]


# Other names, other models


@pytest.mark.parametrize(
    "alias",
    ["", " ", "-a", "/a", "a/", "a//b", "a/../b", "./a", "a b", "a\n", "a%2Fb", "a?b", "é", "x" * 129],
)
def test_an_alias_is_a_plain_word_whose_parts_slashes_may_divide(alias: str) -> None:
    assert problems({**AZURE, "aliases": ["fine", alias]}) == ["/aliases/1 invalid_value"]


@pytest.mark.parametrize("fallback", ["", "-a", "a/b", "a b", "é", "x" * 129])
def test_a_fallback_is_an_id(fallback: str) -> None:
    told_code = "invalid_value" if not 1 <= len(fallback) <= 128 else "invalid_id"
    assert problems({**AZURE, "fallbacks": ["fine", fallback]}) == [f"/fallbacks/1 {told_code}"]


@pytest.mark.parametrize("field", ["aliases", "fallbacks"])
@pytest.mark.parametrize("wrong", [None, 1, True, ["a"], {"a": 1}])
def test_of_a_list_the_item_that_is_wrong_is_told(field: str, wrong: object) -> None:
    assert problems({**AZURE, field: ["a", "b", wrong]}) == [f"/{field}/2 invalid_value"]


@pytest.mark.parametrize("field", ["aliases", "fallbacks"])
def test_nothing_stands_twice_in_a_list(field: str) -> None:
    found = problems({**AZURE, field: ["a", "b", "A", "a", "b", "a"]})
    assert found == [f"/{field}/3 doubled", f"/{field}/4 doubled", f"/{field}/5 doubled"]


def test_lists_are_kept_in_the_order_in_which_they_were_sent() -> None:
    config = read({**AZURE, "aliases": ["b", "a"], "fallbacks": ["z", "y"]})
    assert (config.aliases, config.fallbacks) == (("b", "a"), ("z", "y"))
    assert hash(config) == hash(read({**AZURE, "aliases": ["b", "a"], "fallbacks": ["z", "y"]}))


# The provider


@pytest.mark.parametrize("provider", ["", "Azure", "anthropic", None, 1, ["azure"]])
def test_another_provider_is_refused_and_nothing_is_concluded_from_it(provider: object) -> None:
    assert problems({**AZURE, "provider": provider}) == ["/provider invalid_value"]
    assert problems({**OPENAI, "provider": provider}) == ["/provider invalid_value"]


@pytest.mark.parametrize("field", ["azure_endpoint", "api_version"])
def test_an_azure_model_needs_its_endpoint_and_its_api_version(field: str) -> None:
    assert problems({name: value for name, value in AZURE.items() if name != field}) == [f"/{field} required"]


def test_an_openai_model_needs_its_base_url() -> None:
    assert problems({name: value for name, value in OPENAI.items() if name != "base_url"}) == [
        "/base_url required"
    ]


def test_an_address_of_the_other_provider_is_refused() -> None:
    assert problems({**AZURE, "base_url": "https://api.openai.com"}) == ["/base_url not_for_provider"]
    assert problems({**OPENAI, "azure_endpoint": "https://north.openai.azure.com"}) == [
        "/azure_endpoint not_for_provider"
    ]


def test_an_azure_deployment_has_no_slash_but_a_model_of_an_openai_server_may() -> None:
    assert problems({**AZURE, "deployment": "org/model"}) == ["/deployment invalid_value"]
    assert read({**OPENAI, "deployment": "org/model"}).deployment == "org/model"


@pytest.mark.parametrize(
    "version", ["", " ", "-a", "2024 10", "a/b", "a?b", "a&b=c", "v1\n", "é", "x" * 65, None, 2024]
)
def test_an_api_version_is_one_plain_word(version: object) -> None:
    assert problems({**AZURE, "api_version": version}) == ["/api_version invalid_value"]


def test_an_address_that_is_none_is_told_once() -> None:
    assert problems({**AZURE, "azure_endpoint": "https://169.254.169.254"}) == ["/azure_endpoint invalid_url"]
    assert problems({**OPENAI, "base_url": "//api.openai.com"}) == ["/base_url invalid_url"]
    assert problems({**OPENAI, "base_url": ""}) == ["/base_url invalid_url"]
    assert problems({**OPENAI, "base_url": None}) == ["/base_url invalid_value"]
    assert problems({**OPENAI, "base_url": "https://" + "a" * 2_000}) == ["/base_url invalid_value"]


# The environment's key


def test_the_environments_key_goes_only_to_the_origins_that_an_operator_allowed() -> None:
    _, found = check({**OPENAI, "base_url": "https://evil.example/v1"}, ORIGINS)
    assert told(found) == ["/base_url credential_not_bound"]
    assert "MODEL_LEDGER_KEY_ORIGINS" in found[0].detail
    assert "https://evil.example" in found[0].detail


def test_without_a_key_any_provider_may_be_called() -> None:
    assert problems({**OPENAI, "base_url": "https://evil.example/v1", "credential": None}) == []


def test_without_allowed_origins_the_environments_key_goes_nowhere() -> None:
    assert told(check(AZURE, frozenset())[1]) == ["/azure_endpoint credential_not_bound"]
    assert told(check(OPENAI, frozenset())[1]) == ["/base_url credential_not_bound"]


@pytest.mark.parametrize(
    "address",
    [
        "http://api.openai.com",  # another scheme
        "https://api.openai.com:8443",  # another port
        "https://api.openai.com.evil.example",
        "https://xapi.openai.com",
        "https://evil.example/api.openai.com",
        "https://openai.com",
    ],
)
def test_an_origin_is_bound_as_a_whole(address: str) -> None:
    assert problems({**OPENAI, "base_url": address}) == ["/base_url credential_not_bound"]


@pytest.mark.parametrize(
    "address",
    [
        "https://api.openai.com",
        "https://API.OpenAI.com/v1",
        "https://api.openai.com:443/v1",
        "https://api.openai.com./v1",
        "https://api.openai.com/any/path",
    ],
)
def test_an_origin_is_the_same_however_it_is_written(address: str) -> None:
    assert problems({**OPENAI, "base_url": address}) == []


# Everything at once


def test_all_that_is_wrong_is_told_at_once() -> None:
    raw = {
        "name": "a\x00",
        "max_tokens": 0,
        "supports_streaming": "yes",
        "provider": "openai",
        "azure_endpoint": "https://north.openai.azure.com",
        "base_url": "https://user:key@evil.example",
        "api_version": "a b",
        "deployment": "../secret",
        "description": "\x1b",
        "base_timeout": 500,
        "token_factor": -1,
        "credential": "prod",
        "reasoning": None,
        "max_retries": 99,
        "enabled": 1,
        "temprature": 0.5,
        "version": 7,
    }
    assert problems(raw) == [
        "/api_version invalid_value",
        "/azure_endpoint not_for_provider",
        "/base_timeout above_max_timeout",
        "/base_url invalid_url",
        "/credential unknown_credential",
        "/deployment invalid_value",
        "/description invalid_text",
        "/enabled invalid_value",
        "/max_retries invalid_value",
        "/max_tokens invalid_value",
        "/name invalid_text",
        "/reasoning invalid_value",
        "/supports_streaming invalid_value",
        "/supports_temperature required",
        "/temprature unknown_field",
        "/token_factor invalid_value",
        "/version read_only",
    ]


def test_of_an_empty_request_every_required_field_is_told() -> None:
    assert problems({}) == [
        "/api_version required",
        "/azure_endpoint required",
        "/max_tokens required",
        "/name required",
        "/supports_streaming required",
        "/supports_temperature required",
    ]


@pytest.mark.parametrize("field", sorted(READ_ONLY))
def test_what_the_ledger_sets_is_not_set_by_a_request(field: str) -> None:
    assert problems({**AZURE, field: 1}) == [f"/{field} read_only"]


@pytest.mark.parametrize(
    ("field", "pointer"), [("api_key", "/api_key"), ("a/b~c", "/a~1b~0c"), ("", "/"), ("Name", "/Name")]
)
def test_an_unknown_field_is_refused_and_its_pointer_escaped(field: str, pointer: str) -> None:
    assert problems({**AZURE, field: 1}) == [f"{pointer} unknown_field"]


def test_the_name_of_an_unknown_field_is_told_shortened() -> None:
    (problem,) = check({**AZURE, "x" * 100_000: 1}, ORIGINS)[1]
    assert problem.pointer == "/" + "x" * 200


def test_a_problem_is_told_in_plain_words() -> None:
    (problem,) = check({**AZURE, "max_tokens": "many"}, ORIGINS)[1]
    assert problem.detail == "Expected 'int', got 'str'"


# Where calls go


def test_where_calls_go_is_decided_in_one_place() -> None:
    assert read(AZURE).endpoint() == parse_endpoint("https://north.openai.azure.com")
    assert read(OPENAI).endpoint() == parse_endpoint("https://api.openai.com/v1")


@pytest.mark.parametrize(
    "config",
    [ModelConfig(**{**AZURE, "azure_endpoint": UNSET}), ModelConfig(**{**OPENAI, "base_url": ""})],
    ids=["azure", "openai"],
)
def test_a_recorded_configuration_without_an_address_leads_nowhere(config: ModelConfig) -> None:
    with pytest.raises(ValueError, match="begins with"):
        config.endpoint()
