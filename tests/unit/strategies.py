"""Configurations, documents and addresses for the laws."""

from string import ascii_letters, digits

import msgspec
from factories import AZURE, OPENAI
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from domain.configuration import DAY, ENVIRONMENT, FIELDS, ModelConfig
from domain.default import DefaultChanged
from domain.model import ModelCreated, ModelDeleted, ModelRestored, ModelRolledBack, ModelUpdated
from domain.values import ModelId

HARD_FLOATS = (1e22, 1e-7, -0.0, 0.0, 0.1, 5e-324, 1.7976931348623157e308, 2.0**53 + 2, 120.0)
HARD_INTS = (0, -1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**30, 10**400)
HARD_TEXTS = ("", "\x00", "\x7f", "\u2028", "\ufeff", "\U0010ffff", "e\u0301", '"\\/</script>', "\ufffe")

any_text = st.sampled_from(HARD_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
any_int = st.sampled_from(HARD_INTS) | st.integers()
any_number = any_int | st.sampled_from(HARD_FLOATS) | st.floats(allow_nan=False, allow_infinity=False)
alias_names = st.from_regex(r"\A[A-Z][A-Za-z0-9_-]{0,5}([/:.][a-z0-9]{1,5}){0,2}\Z")
fallback_ids = st.sampled_from(["gpt-4o", "o3", "Mistral.7b:latest"])
model_ids = st.text(ascii_letters + digits, min_size=1, max_size=1).map(ModelId)


def optional(values: st.SearchStrategy) -> st.SearchStrategy:
    """One of the values, or the field is not set."""
    return st.just(UNSET) | values


_any_required = {
    "name": any_text,
    "max_tokens": any_int,
    "supports_streaming": st.booleans(),
    "supports_temperature": st.booleans(),
}
_any_optional = {
    "provider": st.sampled_from(["azure", "openai"]),
    "api_version": optional(any_text),
    "azure_endpoint": optional(any_text),
    "base_url": optional(any_text),
    "deployment": optional(any_text),
    "description": any_text,
    "base_timeout": any_number,
    "max_timeout": any_number,
    "token_factor": any_number,
    "credential": st.none() | any_text,
    "reasoning": optional(st.booleans()),
    "max_retries": optional(any_int),
    "enabled": st.booleans(),
    "aliases": optional(st.lists(any_text, max_size=3).map(tuple)),
    "fallbacks": optional(st.lists(any_text, max_size=3).map(tuple)),
}
assert {*_any_required, *_any_optional} == set(FIELDS)

any_configs = st.fixed_dictionaries(_any_required, optional=_any_optional).map(
    lambda fields: ModelConfig(**fields)
)
"""Whatever the types allow."""

config_pairs = st.tuples(any_configs, st.fixed_dictionaries({}, optional=_any_required | _any_optional)).map(
    lambda pair: (pair[0], replace(pair[0], **pair[1]))
)
"""A configuration, and the same with some fields changed."""

any_events = st.one_of(
    st.builds(ModelCreated, any_configs),
    st.builds(ModelUpdated, any_configs),
    st.builds(ModelDeleted, any_configs),
    st.builds(ModelRolledBack, any_int, any_configs),
    st.builds(ModelRestored, any_int, any_configs),
    st.builds(DefaultChanged, st.none() | any_text),
)

people_text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=200)
seconds = st.integers(1, DAY) | st.floats(0, DAY, exclude_min=True)
deployments = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:@+-]{0,20}\Z").filter(lambda name: ".." not in name)

_common = {
    "name": people_text.filter(lambda text: text.strip()),
    "max_tokens": st.integers(1, 10_000_000),
    "supports_streaming": st.booleans(),
    "supports_temperature": st.booleans(),
}
_optional = {
    "deployment": deployments,
    "description": people_text,
    "token_factor": st.integers(0, DAY) | st.floats(0, DAY),
    "reasoning": st.booleans(),
    "max_retries": st.integers(0, 10),
    "enabled": st.booleans(),
    "aliases": st.lists(alias_names, max_size=20, unique=True),
    "fallbacks": st.lists(fallback_ids, max_size=3, unique=True),
}
_azure = st.fixed_dictionaries(
    {
        "provider": st.just("azure"),
        "api_version": st.sampled_from(["2024-10-21", "v1"]),
        "azure_endpoint": st.sampled_from(AZURE),
    }
)
_openai = st.fixed_dictionaries({"provider": st.just("openai"), "base_url": st.sampled_from(OPENAI)})
_timeouts = st.tuples(seconds, seconds).map(
    lambda pair: {"base_timeout": min(pair), "max_timeout": max(pair)}
)
_credential = st.fixed_dictionaries({}, optional={"credential": st.sampled_from([None, ENVIRONMENT])})

valid_fields = st.builds(
    lambda *parts: {name: value for part in parts for name, value in part.items()},
    st.fixed_dictionaries(_common, optional=_optional),
    _azure | _openai,
    st.just({}) | _timeouts,
    _credential,
)
"""Requests that keep today's rules under `ORIGINS`."""

valid_configs = valid_fields.map(lambda fields: msgspec.convert(fields, ModelConfig))

json_values = st.recursive(
    st.none() | st.booleans() | any_number | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(st.sampled_from([*FIELDS, "version", "a/b", "~"]) | any_text, json_values)
flat_objects = st.dictionaries(
    st.sampled_from("abcdef"),
    st.none() | any_number | any_text | st.lists(any_text, max_size=3),
    max_size=6,
)
"""Objects that hold no objects."""

_pieces = st.sampled_from(
    [
        *("http://", "https://", "HTTPS://", "//", "/", "\\", "@", ":", "::", "?", "#", "%", "%41", "%00"),
        *(
            "[",
            "]",
            "[::1]",
            "[fe80::1%25lo]",
            "[::ffff:10.0.0.1]",
            "[v1.a]",
            "10.0.0.1",
            "127.1",
            "0x7f",
            "017",
        ),
        *("2130706433", ".", "..", "a", "xn--a", "example.com", "metadata", ":0", ":443", ":99999", ";", ","),
        *("*", "é", "ａ", "。", " ", "\t", "\n", "\x00", "\ud800", "_", "-"),
    ]
)
urlish = st.lists(_pieces, max_size=7).map("".join)
"""Texts that look like addresses, most of them bad ones."""
near_urls = st.builds(
    lambda scheme, host, port, path: f"{scheme}://{host}{port}{path}",
    st.sampled_from(["http", "https"]),
    st.lists(st.from_regex(r"\A[A-Za-z0-9_-]{1,6}\Z"), min_size=1, max_size=3).map(".".join)
    | st.sampled_from(
        ["a.example", "A.Example.", "localhost", "xn--mnchen-3ya.example", "127.0.0.1.", "[::1]"]
    )
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
    st.sampled_from(["", ":80", ":443", ":08080"]) | st.integers(0, 70_000).map(lambda port: f":{port}"),
    st.from_regex(r"\A(/[A-Za-z0-9._~;=@:-]{0,6}){0,3}\Z"),
)
"""Texts of which most are addresses."""
