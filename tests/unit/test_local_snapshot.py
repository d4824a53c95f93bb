"""The local snapshot as bytes: what it keeps, what it does not hold, and what is never taken for one."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from strategies import any_configs, any_text, model_ids

from application.ports import Caller, LiveModel
from domain.access import Role
from domain.values import Actor, ModelId, Origin
from infrastructure.live import Live
from infrastructure.local_snapshot import (
    FORMAT,
    LocalSnapshot,
    UnusableSnapshot,
    decode,
    encode,
    place_digest,
)

CANARY = "c4n4ry-token"
NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
ADMINISTRATOR = Caller(Actor("token:administrator", "administrator", "token"), Role.ADMINISTRATOR)
DIGEST = hashlib.sha256(CANARY.encode()).hexdigest()

models = st.dictionaries(model_ids, any_configs, max_size=3).map(
    lambda configs: {
        model_id: LiveModel(model_id, config, number, 10 + number, NOON + timedelta(microseconds=number))
        for number, (model_id, config) in enumerate(configs.items(), 1)
    }
)
lives = st.builds(
    Live,
    any_text,
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    models,
    st.none() | model_ids,
    st.frozensets(any_text),
)
callers = st.dictionaries(
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.builds(Caller, st.builds(Actor, any_text, any_text, st.just("token")), st.just(Role.ADMINISTRATOR)),
    max_size=3,
)
snapshots = st.builds(
    LocalSnapshot, any_text, st.just(NOON), lives, callers, st.none() | st.just(Origin("http://127.0.0.1:1"))
)


def snapshot(**changes: Any) -> LocalSnapshot:
    live = Live("epoch", 7, b"h" * 32, {}, ModelId("a"), frozenset({"model/b", "model/c"}))
    return replace(LocalSnapshot("database", NOON, live, {DIGEST: ADMINISTRATOR}, None), **changes)


def refusal(content: bytes) -> str:
    with pytest.raises(UnusableSnapshot) as caught:
        decode(content)
    return str(caught.value)


def rewritten(change: dict[str, Any], **members: Any) -> bytes:
    """A snapshot with other members, whose checksum fits."""
    head, _, body = encode(snapshot()).partition(b"\n")
    body = msgspec.json.encode({**msgspec.json.decode(body), **change, **members})
    kind = head.rpartition(b" ")[0]
    return kind + b" " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


@given(snapshots)
def test_what_is_written_is_read_again(written: LocalSnapshot) -> None:
    assert decode(encode(written)) == written


@given(snapshots)
def test_the_same_state_has_the_same_bytes(written: LocalSnapshot) -> None:
    again = replace(written, live=replace(written.live, models=dict(reversed(written.live.models.items()))))
    assert encode(again) == encode(written)


def test_it_holds_digests_of_tokens_and_no_token() -> None:
    content = encode(snapshot())
    assert DIGEST.encode() in content
    assert CANARY.encode() not in content


def test_no_changed_byte_goes_unnoticed() -> None:
    content = encode(snapshot())
    for at in range(len(content)):
        for flip in (0x01, 0x20, 0xFF):
            refusal(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])


def test_no_missing_or_further_byte_goes_unnoticed() -> None:
    content = encode(snapshot())
    for end in range(len(content)):
        refusal(content[:end])
    refusal(content + b"\n")


@given(st.binary(max_size=200))
def test_anything_else_is_no_snapshot(content: bytes) -> None:
    assert refusal(content)
    assert refusal(encode(snapshot()) + b"x" + content)


@pytest.mark.parametrize("number", [0, FORMAT - 1, FORMAT + 1, 999_999_999])
def test_another_format_is_named(number: int) -> None:
    content = encode(snapshot()).replace(b"snapshot %d " % FORMAT, b"snapshot %d " % number, 1)
    assert refusal(content) == f"its format is {number}, and this release reads {FORMAT}"


def test_fields_that_this_release_does_not_know_are_not_dropped_silently() -> None:
    caller = {**msgspec.to_builtins(ADMINISTRATOR), "only_model": "a"}
    assert decode(rewritten({})) == snapshot()
    assert refusal(rewritten({}, callers={DIGEST: caller})) == "another release wrote it: it has other fields"
    assert "other fields" in refusal(rewritten({"further": 1}))


def test_values_of_another_shape_are_refused() -> None:
    no_role = {**msgspec.to_builtins(ADMINISTRATOR), "role": "no_such_role"}
    for content in (
        rewritten({}, callers={DIGEST: no_role}),
        rewritten({"live": None}),
        rewritten({"saved_at": "yesterday"}),
    ):
        assert refusal(content).startswith("another release wrote it: ")


def test_a_body_that_nests_without_end_is_refused() -> None:
    body = b'{"live":' + b"[" * 100_000
    digest = hashlib.sha256(body).hexdigest().encode()
    assert refusal(b"model-ledger snapshot %d %s\n" % (FORMAT, digest) + body)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql://db/ledger", "postgresql://db2/ledger"),
        ("postgresql://db:5432/ledger", "postgresql://db:5433/ledger"),
        ("postgresql://db/ledger", "postgresql://db/ledger2"),
        ("postgresql://one@db", "postgresql://two@db"),
        ("postgresql:///ledger?host=/run/a", "postgresql:///ledger?host=/run/b"),
        ("postgresql:///ledger?host=/run/a&port=1", "postgresql:///ledger?host=/run/a&port=2"),
        ("postgresql://db/?dbname=one", "postgresql://db/?dbname=two"),
        ("postgresql://one,two/ledger", "postgresql://one/ledger"),
    ],
)
def test_databases_are_told_apart(one: str, other: str) -> None:
    assert place_digest(one, {}) != place_digest(other, {})


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("postgresql://user:old@db/ledger", "postgres://user:new@db/ledger"),
        ("postgresql://user:old@db/ledger", "postgresql://other@db/ledger?sslmode=require"),
        ("postgresql://db/ledger?password=old", "postgresql://db/ledger?password=new"),
        ("postgresql://u@db/x?host=h&port=1", "postgresql://u@elsewhere/x?port=1&host=h"),
    ],
)
def test_a_database_stays_the_same_with_another_login(one: str, same: str) -> None:
    assert place_digest(one, {}) == place_digest(same, {})


def test_what_an_address_leaves_out_comes_from_the_environment() -> None:
    assert place_digest("postgresql:///", {"PGHOST": "a"}) != place_digest("postgresql:///", {"PGHOST": "b"})
    assert place_digest("postgresql:///", {"PGDATABASE": "a"}) == place_digest("postgresql:///a", {})
    assert place_digest("postgresql:///", {"PGUSER": "a"}) == place_digest("postgresql://a@/", {})
