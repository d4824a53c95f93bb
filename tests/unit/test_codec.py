"""The stored form of events: what was ever written can be read for ever."""

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from factories import AnyConfigFactory, AzureConfigFactory

from domain.catalog import Event
from domain.default import DefaultChanged
from domain.model import ModelCreated, ModelRolledBack, ModelUpdated
from infrastructure import codec
from infrastructure.codec import EVENTS, SCHEMA_VERSIONS, Body, Stored, UnreadableEvent, decode, encode

GOLDEN = Path(__file__).parent / "golden"

RECORDED = {
    # Every type and schema version that a release ever wrote, with its body's SHA-256. Add lines; never
    # change or remove one: somebody's ledger holds such events.
    "default.changed.v1.json": "5c292b963fb74a2501a2ffa66ddb7e9bcaf9a6a985f35ea788a65479c6397270",
    "model.created.v1.json": "f70d78456d14c4a38180507faee1b75736b2bb0928ffab879cf5eb3dda6a2897",
    "model.deleted.v1.json": "038740f1a311c8cd5ba0611cff874458c5bae3ca13718f6563422f33bd42c416",
    "model.restored.v1.json": "9acc554cae48bcaf90399a2d338e78a4f553c002433e4e650c6318ebf34fe3b8",
    "model.rolled_back.v1.json": "a262f521949970897f4013688c196a1afd440a024294e86119eb0994d4608132",
    "model.updated.v1+links.json": "e2b92782ca85be04c37956eb1d5d5394c9d34e4106003d09f20464fe4ed1a771",
    "model.updated.v1.json": "4ad1dc7bbb6f59623d02d2be3d679b748adffa70ecb2b3f9f40fe861754280a7",
}


def golden(name: str) -> dict[str, Any]:
    """A golden file: `type`, `schema_version`, `body` as it was stored, and the fields of its `event`.

    After a `+` its name may tell which fields it is about, that came later without a new schema version.
    """
    content: dict[str, Any] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    assert kind_of(name) == f"{content['type']}.v{content['schema_version']}"
    return content


def kind_of(name: str) -> str:
    return name.removesuffix(".json").partition("+")[0]


def stored(name: str) -> Stored:
    content = golden(name)
    return Stored(content["type"], content["schema_version"], content["body"])


# Golden files


def test_every_type_and_schema_version_has_its_golden_file() -> None:
    known = {f"{kind}.v{n}" for kind, newest in SCHEMA_VERSIONS.items() for n in range(1, newest + 1)}
    assert known == {kind_of(name) for name in RECORDED}


def test_no_golden_file_goes_missing_and_none_is_unknown() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(RECORDED)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_golden_body_is_never_changed(name: str) -> None:
    assert hashlib.sha256(golden(name)["body"].encode()).hexdigest() == RECORDED[name]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_golden_body_is_read_as_the_event_that_it_was(name: str) -> None:
    event = decode(stored(name))
    assert type(event) is EVENTS[golden(name)["type"]]
    read = json.loads(msgspec.json.encode(event))
    expected = golden(name)["event"]
    assert expected, "a golden file says what its event holds"
    # A field that came later has its default: only what was written then is compared, numbers as written.
    for field, value in expected.items():
        if isinstance(value, dict):
            assert {inner: repr(read[field][inner]) for inner in value} == {
                inner: repr(content) for inner, content in value.items()
            }
        else:
            assert repr(read[field]) == repr(value)


def test_the_golden_bodies_cover_every_field_of_a_configuration() -> None:
    fields = {field for name in RECORDED for field in golden(name)["event"].get("config", {})}
    assert fields >= set(AzureConfigFactory.build().fields())
    assert fields >= {"base_url", "deployment", "reasoning", "max_retries"}


# Writing


def test_every_event_has_a_tag_and_a_schema_version() -> None:
    assert set(EVENTS.values()) == set(get_args(Event))
    assert len(EVENTS) == len(get_args(Event)) == 6
    assert set(SCHEMA_VERSIONS) == set(EVENTS)


def test_the_type_is_not_repeated_in_the_body() -> None:
    written = encode(DefaultChanged(None))
    assert written == Stored("default.changed", 1, '{"model_id":null}')


def test_an_event_is_written_with_all_its_defaults_but_without_what_is_not_set() -> None:
    config = AzureConfigFactory.build()
    written = json.loads(encode(ModelCreated(config)).body)
    assert written == {"config": config.fields()}
    assert "base_url" not in written["config"]


def test_the_body_is_compact_unicode_on_one_line() -> None:
    config = msgspec.structs.replace(AzureConfigFactory.build(), name="Köln 模型 \n")
    body = encode(ModelUpdated(config)).body
    assert "Köln 模型 \\n" in body
    assert "\n" not in body
    assert ": " not in body.replace(config.description, "")


def test_what_is_written_is_read_back() -> None:
    for config in AnyConfigFactory.batch(30):
        assert decode(encode(ModelRolledBack(3, config))) == ModelRolledBack(3, config)


# What this release cannot read

BODY = encode(ModelCreated(AzureConfigFactory.build())).body
CONFIG = json.loads(BODY)["config"]


def test_the_undamaged_body_can_be_read() -> None:
    assert isinstance(decode(Stored("model.created", 1, BODY)), ModelCreated)


@pytest.mark.parametrize("kind", ["model.archived", "ModelCreated", "model.Created", "", "default"])
def test_an_unknown_type_is_unreadable(kind: str) -> None:
    with pytest.raises(UnreadableEvent, match="is not known here"):
        decode(Stored(kind, 1, BODY))


@pytest.mark.parametrize("kind", sorted(EVENTS))
def test_a_newer_schema_version_is_unreadable(kind: str) -> None:
    with pytest.raises(UnreadableEvent, match="is not known here"):
        decode(Stored(kind, SCHEMA_VERSIONS[kind] + 1, BODY))


@pytest.mark.parametrize("version", [0, -1])
def test_a_schema_version_that_never_was_is_unreadable(version: int) -> None:
    with pytest.raises(UnreadableEvent):
        decode(Stored("model.created", version, BODY))


DAMAGED = {
    "empty": "",
    "cut off": BODY[:-1],
    "something after it": BODY + "}",
    "no JSON": "config",
    "single quotes": BODY.replace('"', "'"),
    "null": "null",
    "a list": "[]",
    "a number": "3",
    "nothing in it": "{}",
    "nested too deep": "[" * 100_000,
    "another type inside": json.dumps({"type": "model.updated", "config": CONFIG}),
    "no configuration": json.dumps({"config": None}),
    "a list as configuration": json.dumps({"config": []}),
    "a field missing": json.dumps({"config": {k: v for k, v in CONFIG.items() if k != "name"}}),
    "a field of another type": json.dumps({"config": {**CONFIG, "max_tokens": "many"}}),
    "a fraction of a token": json.dumps({"config": {**CONFIG, "max_tokens": 0.5}}),
    "a timeout that is no number": json.dumps({"config": {**CONFIG, "base_timeout": None}}),
    "a provider of a newer release": json.dumps({"config": {**CONFIG, "provider": "bedrock"}}),
    "a field of a newer release": json.dumps({"config": {**CONFIG, "region": "eu"}}),
    "a lone surrogate": json.dumps({"config": {**CONFIG, "name": "\ud800"}}),
}


@pytest.mark.parametrize("body", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_body_is_unreadable(body: str) -> None:
    with pytest.raises(UnreadableEvent):
        decode(Stored("model.created", 1, body))


def test_a_body_that_was_redacted_is_unreadable() -> None:
    with pytest.raises(UnreadableEvent):
        decode(msgspec.structs.replace(stored("model.created.v1.json"), body=None))


@pytest.mark.parametrize("body", ['{"to_version":"3","config":%s}', '{"config":%s}'])
def test_a_rollback_without_its_version_is_unreadable(body: str) -> None:
    with pytest.raises(UnreadableEvent):
        decode(Stored("model.rolled_back", 1, body % json.dumps(CONFIG)))


# Upcasting


def test_an_older_body_is_lifted_step_by_step_to_todays_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    def name_the_target(body: Body) -> Body:
        return {"model": body["target"]}

    def name_the_id(body: Body) -> Body:
        return {"model_id": body["model"] or None}

    monkeypatch.setattr(codec, "SCHEMA_VERSIONS", {**SCHEMA_VERSIONS, "default.changed": 3})
    monkeypatch.setattr(
        codec, "UPCASTERS", {("default.changed", 1): name_the_target, ("default.changed", 2): name_the_id}
    )
    assert decode(Stored("default.changed", 1, '{"target":"gpt-4"}')) == DefaultChanged("gpt-4")
    assert decode(Stored("default.changed", 2, '{"model":""}')) == DefaultChanged(None)
    assert decode(Stored("default.changed", 3, '{"model_id":"gpt-4"}')) == DefaultChanged("gpt-4")
    with pytest.raises(UnreadableEvent):
        decode(Stored("default.changed", 4, '{"model_id":"gpt-4"}'))


def test_new_events_are_written_in_the_newest_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "SCHEMA_VERSIONS", {**SCHEMA_VERSIONS, "default.changed": 3})
    assert encode(DefaultChanged("gpt-4")).schema_version == 3


def test_an_upcaster_that_does_not_fit_its_body_makes_it_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "SCHEMA_VERSIONS", {**SCHEMA_VERSIONS, "default.changed": 2})
    monkeypatch.setattr(
        codec, "UPCASTERS", {("default.changed", 1): lambda body: {"model_id": body["target"]}}
    )
    with pytest.raises(UnreadableEvent):
        decode(Stored("default.changed", 1, '{"other":"gpt-4"}'))


def test_without_the_upcaster_of_a_step_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "SCHEMA_VERSIONS", {**SCHEMA_VERSIONS, "default.changed": 2})
    with pytest.raises(UnreadableEvent):
        decode(Stored("default.changed", 1, '{"model_id":"gpt-4"}'))


def test_an_upcaster_exists_for_every_schema_version_but_the_newest() -> None:
    steps = {(kind, n) for kind, newest in SCHEMA_VERSIONS.items() for n in range(1, newest)}
    assert set(codec.UPCASTERS) == steps
