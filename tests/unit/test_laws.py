"""What holds for every past, every configuration and every text."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
import jsonpatch
import msgspec
from factories import ORIGINS, AzureConfigFactory, OpenAIConfigFactory
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Struct
from msgspec.structs import replace
from scenario import Past
from strategies import (
    any_configs,
    any_events,
    config_pairs,
    json_objects,
    near_urls,
    urlish,
    valid_configs,
    valid_fields,
)

from application.rollback import CredentialChoice
from domain.catalog import Change, Command
from domain.changes import as_json_patch, difference, merge
from domain.configuration import ENVIRONMENT, FIELDS, ModelConfig, check
from domain.default import DefaultChanged, SetDefault
from domain.errors import LedgerError, ModelExists, ModelNotFound
from domain.model import (
    Absent,
    CreateModel,
    Deleted,
    DeleteModel,
    Live,
    RestoreModel,
    RollBackModel,
    UpdateModel,
)
from domain.values import DEFAULT_STREAM, ModelId, model_of, model_stream, parse_endpoint, text_problem
from infrastructure import codec
from infrastructure.codec import Stored
from infrastructure.projections import Row, project

# Sequences of commands

IDS = [ModelId("a"), ModelId("b"), ModelId("c")]
CONFIGS = [
    replace(AzureConfigFactory.build(), name="first", credential=ENVIRONMENT),
    replace(OpenAIConfigFactory.build(), name="second", credential=None),
    replace(AzureConfigFactory.build(), name="disabled", enabled=False),
    replace(AzureConfigFactory.build(), name="linked", aliases=("x", "team/y"), fallbacks=(IDS[1],)),
]
LINKED = [
    *CONFIGS,
    replace(AzureConfigFactory.build(), name="named like another", aliases=("c", "z")),
    *(replace(AzureConfigFactory.build(), name=f"to {other}", fallbacks=(other,)) for other in IDS),
]


class Asked(Struct, frozen=True):
    """A command before its past is known: `version` counts from the newest one backwards."""

    kind: type[Command]
    model_id: ModelId
    config: ModelConfig
    other: ModelId | None
    version: int
    fitting: bool
    """Whether the caller looks first, and asks what the model's state allows."""

    def command(self, past: Past) -> Command:
        """The command as a caller would send it who knows that past."""
        versions = past.streams.get(model_stream(self.model_id), [])
        number = max(1, len(versions) - self.version)
        event = versions[number - 1] if versions else None
        old = self.config if event is None or isinstance(event, DefaultChanged) else event.config
        commands: dict[type[Command], Command] = {
            CreateModel: CreateModel(self.model_id, self.config),
            UpdateModel: UpdateModel(self.model_id, self.config),
            DeleteModel: DeleteModel(self.model_id, self.other),
            RollBackModel: RollBackModel(self.model_id, number, old),
            RestoreModel: RestoreModel(self.model_id, number, old),
            SetDefault: SetDefault(self.other),
        }
        return commands[self._fitting(past) if self.fitting else self.kind]

    def _fitting(self, past: Past) -> type[Command]:
        state = past.models.get(self.model_id, Absent())
        is_default = past.default.model_id == self.model_id
        match state:
            case Absent():
                return CreateModel
            case Deleted():
                return CreateModel if self.kind is CreateModel else RestoreModel
            case Live() if self.kind in {CreateModel, RestoreModel}:
                return SetDefault if is_default else UpdateModel
            case Live():
                return self.kind


KINDS: list[type[Command]] = [CreateModel, UpdateModel, DeleteModel, RollBackModel, RestoreModel, SetDefault]


def sequences_of(configs: list[ModelConfig]) -> st.SearchStrategy[list[Asked]]:
    asked = st.builds(
        Asked,
        st.sampled_from([*KINDS, RollBackModel, UpdateModel]),
        st.sampled_from(IDS),
        st.sampled_from(configs),
        st.none() | st.sampled_from(IDS),
        st.integers(0, 4),
        st.integers(0, 3).map(bool),
    )
    return st.lists(asked, min_size=8, max_size=25)


Step = Callable[[Past, Command, list[Change], Past], None]


def holds_for_every_sequence(
    law: Step, configs: list[ModelConfig] = CONFIGS, examples: int = 1
) -> Counter[str]:
    """Check a law after each accepted command: its past, itself, its changes, and the past after it.

    Proves that commands of every kind were accepted, with and without changes, and some refused; answers
    how many, and for which problems.
    """
    met: Counter[str] = Counter()

    @settings(max_examples=examples * settings.default.max_examples)
    @given(sequences_of(configs))
    def every_sequence(asked: list[Asked]) -> None:
        before = Past()
        for one in asked:
            command = one.command(before)
            try:
                changes = before.decide(command)
            except LedgerError as refused:
                met["refused"] += 1
                met.update(problem.code for problem in getattr(refused, "problems", ()))
                continue
            met[type(command).__name__ if changes else "unchanged"] += 1
            after = before.followed_by(changes)
            law(before, command, changes, after)
            before = after

    every_sequence()
    assert all(met[each] >= 3 for each in [*(kind.__name__ for kind in KINDS), "unchanged", "refused"]), met
    return met


def test_the_state_from_the_newest_events_alone_is_the_fold_of_them_all() -> None:
    def law(_: Past, __: Command, ___: list[Change], after: Past) -> None:
        newest = after.seen()
        for model_id in IDS:
            assert newest.model(model_id) == after.models.get(model_id, Absent())
        assert newest.default() == after.default

    holds_for_every_sequence(law)


def test_the_projection_is_the_fold() -> None:
    def law(_: Past, __: Command, ___: list[Change], after: Past) -> None:
        rows: dict[str, Row] = {}
        for stream, events in after.streams.items():
            for event in events:
                config = (
                    None if isinstance(event, DefaultChanged) else msgspec.json.encode(event.config).decode()
                )
                rows[stream] = project(Change(stream, event), config)
        pointer = rows.pop(DEFAULT_STREAM, Row(None))
        assert pointer == Row(after.default.model_id)
        assert {row.model_id for row in rows.values()} == set(after.models)
        for row in rows.values():
            state = after.models[ModelId(row.model_id or "")]
            assert row.deleted == isinstance(state, Deleted)
            assert msgspec.json.decode(row.config or "", type=ModelConfig) == state.config

    holds_for_every_sequence(law)


def test_there_is_one_default_or_none_and_it_is_always_live() -> None:
    def law(_: Past, __: Command, ___: list[Change], after: Past) -> None:
        if after.default.model_id is not None:
            assert isinstance(after.models[after.default.model_id], Live)

    holds_for_every_sequence(law)


def test_no_two_live_models_have_one_name_and_none_falls_back_to_itself_by_any_way() -> None:
    met: Counter[str] = Counter()

    def law(_: Past, __: Command, ___: list[Change], after: Past) -> None:
        live = {model_id: each.config for model_id, each in after.models.items() if isinstance(each, Live)}
        names = [*live, *(alias for config in live.values() for alias in config.aliases or ())]
        assert len(names) == len({*names})
        for model_id, config in live.items():
            reached = reached_from(model_id, live)
            assert model_id not in reached
            met["two steps"] += bool(reached - {*(config.fallbacks or ())})
            met["gone"] += bool(reached - live.keys())
        met["aliases"] += len(names) > len(live)

    met += holds_for_every_sequence(law, LINKED, examples=3)
    things = ["aliases", "two steps", "gone", "name_taken", "unknown_model", "fallback_loop"]
    assert all(met[thing] >= 3 for thing in things), met


def reached_from(model_id: ModelId, live: dict[ModelId, ModelConfig]) -> set[ModelId]:
    reached: set[ModelId] = set()
    ahead = [model_id]
    while ahead:
        config = live.get(ahead.pop())
        new = {*((config and config.fallbacks) or ())} - reached
        reached |= new
        ahead += new
    return reached


def test_versions_only_ever_count_on() -> None:
    def law(before: Past, _: Command, changes: list[Change], after: Past) -> None:
        for stream, events in before.streams.items():
            assert after.streams[stream][: len(events)] == events
        for model_id, state in after.models.items():
            assert state.version == len(after.streams[model_stream(model_id)])
        counted = sum(map(len, after.streams.values())) - sum(map(len, before.streams.values()))
        assert counted == len(changes)

    holds_for_every_sequence(law)


def test_an_append_writes_a_stream_once_and_only_streams_that_were_looked_at() -> None:
    def law(before: Past, command: Command, changes: list[Change], after: Past) -> None:
        written = [change.stream for change in changes]
        assert len(set(written)) == len(written)
        subject = DEFAULT_STREAM if isinstance(command, SetDefault) else model_stream(command.model_id)
        assert not written or written[-1] == subject, "the receipt's position is the subject's"
        assert set(written) <= {subject, DEFAULT_STREAM}
        assert [model_of(stream) for stream in written[:-1]] in ([], [None])
        assert (before.seen().any_live, after.seen().any_live) != (False, False) or not changes

    holds_for_every_sequence(law)


def test_a_command_that_is_repeated_changes_nothing_or_is_refused() -> None:
    def law(_: Past, command: Command, __: list[Change], after: Past) -> None:
        match command:
            case UpdateModel() | RollBackModel() | SetDefault():
                assert after.decide(command) == []
            case CreateModel() | RestoreModel():
                assert refusal(after, command) is ModelExists
            case DeleteModel():
                assert refusal(after, command) is ModelNotFound

    holds_for_every_sequence(law)


def refusal(past: Past, command: Command) -> type[LedgerError] | None:
    try:
        past.decide(command)
    except LedgerError as refused:
        return type(refused)
    return None


def test_a_rollback_and_a_restore_bring_back_what_their_version_held() -> None:
    def law(before: Past, command: Command, changes: list[Change], after: Past) -> None:
        match command:
            case RollBackModel(to_version=version) | RestoreModel(from_version=version):
                target = before.streams[model_stream(command.model_id)][version - 1]
                state = after.models[command.model_id]
                assert not isinstance(target, DefaultChanged)
                assert isinstance(state, Live)
                assert state.config == target.config
                met[bool(changes), version == state.version - 1] += 1

    met: Counter[tuple[bool, bool]] = Counter()
    holds_for_every_sequence(law)
    assert met[True, False] >= 3, "versions before the last one came back"


@given(valid_configs, valid_configs, st.sampled_from(["keep", "target"]))
def test_a_rollback_keeps_all_of_the_target_but_the_credential(
    current: ModelConfig, target: ModelConfig, credential: CredentialChoice
) -> None:
    past = Past([Change(model_stream(IDS[0]), codec.EVENTS["model.created"](target))])
    past.record(Change(model_stream(IDS[0]), codec.EVENTS["model.updated"](current)))
    result = replace(target, credential=current.credential) if credential == "keep" else target
    changes = past.decide(RollBackModel(IDS[0], 1, result))
    assert (changes == []) == (result == current)
    assert replace(result, credential=None) == replace(target, credential=None)


# The codec


def exactly(event: object) -> str:
    """An event with its numbers as they were written: `1`, `1.0` and `-0.0` are three of them."""
    return repr(event)


def test_what_is_written_is_read_back_bit_by_bit_and_written_again_byte_by_byte() -> None:
    met: Counter[str] = Counter()

    # Enough that each is met: what is drawn depends on the modules that are loaded beside this one.
    @settings(max_examples=25 * settings.default.max_examples)
    @given(any_events)
    def law(event: codec.Event) -> None:
        stored = codec.encode(event)
        read = codec.decode(stored)
        assert read == event
        assert exactly(read) == exactly(event)
        assert codec.encode(read) == stored
        assert codec.decode(Stored(stored.type, stored.schema_version, stored.body)) == event
        met[stored.type] += 1
        met["-0.0"] += "-0.0" in stored.body
        met["1e22"] += "1e22" in stored.body
        met["beyond 64 bits"] += str(10**30) in stored.body

    law()
    assert set(met) == {*codec.EVENTS, "-0.0", "1e22", "beyond 64 bits"}
    assert all(met.values()), met


@given(any_configs)
def test_a_body_is_json_that_others_read_alike(config: ModelConfig) -> None:
    body = codec.encode(codec.EVENTS["model.created"](config)).body
    assert exactly(json.loads(body)["config"]) == exactly(config.fields())


# Differences

Pair = tuple[ModelConfig, ModelConfig]


@given(config_pairs)
def test_a_difference_as_json_patch_leads_from_the_one_to_the_other(pair: Pair) -> None:
    old, new = pair
    changes = difference(old.fields(), new.fields())
    document = msgspec.to_builtins(as_json_patch(changes))
    assert jsonpatch.apply_patch(old.fields(), document) == new.fields()
    assert (changes == []) == (old == new)


@given(config_pairs)
def test_a_difference_back_is_the_difference_turned_round(pair: Pair) -> None:
    old, new = pair
    there = {change.field: (change.old, change.new) for change in difference(old.fields(), new.fields())}
    back = {change.field: (change.new, change.old) for change in difference(new.fields(), old.fields())}
    assert there == back


@given(config_pairs)
def test_a_difference_names_what_was_and_what_is(pair: Pair) -> None:
    old, new = pair
    for change in difference(old.fields(), new.fields()):
        assert (change.old is UNSET) == (change.op == "added")
        assert (change.new is UNSET) == (change.op == "removed")
        assert old.fields().get(change.field, UNSET) == change.old
        assert new.fields().get(change.field, UNSET) == change.new


# Merging


Three = tuple[ModelConfig, ModelConfig, ModelConfig]
triples = st.tuples(config_pairs, config_pairs).map(lambda pairs: (pairs[0][0], pairs[0][1], pairs[1][1]))
"""A configuration, the same with some fields changed, and another one."""
some_changes = st.tuples(config_pairs, st.lists(st.sampled_from(sorted(FIELDS)))).map(
    lambda drawn: (*drawn[0], replace(drawn[0][0], **{name: getattr(drawn[0][1], name) for name in drawn[1]}))
)
"""A configuration, the same with some fields changed, and with only a part of those changes."""


@given(config_pairs)
def test_undoing_the_newest_change_is_rolling_back_to_the_version_before(pair: Pair) -> None:
    before, after = (config.fields() for config in pair)
    assert merge(after, after, before) == (before, [])


@given(triples | some_changes)
def test_an_undo_is_itself_undone(three: Three) -> None:
    before, after, current = (config.fields() for config in three)
    undone, conflicts = merge(after, current, before)
    if not conflicts:
        assert merge(undone, undone, current) == (current, [])


def test_an_undo_touches_the_fields_of_its_change_alone() -> None:
    met: Counter[str] = Counter()

    @given(triples | some_changes)
    def law(three: Three) -> None:
        before, after, current = (config.fields() for config in three)
        result, conflicts = merge(after, current, before)
        changed = {change.field for change in difference(after, before)}
        told = {conflict.field for conflict in conflicts}
        assert told <= changed
        for name in {*before, *after, *current}:
            was, left, now = (fields.get(name, UNSET) for fields in (before, after, current))
            clashes = name in changed and now not in (left, was)
            assert (name in told) is clashes
            taken_back = name in changed and not clashes
            assert result.get(name, UNSET) == (was if taken_back else now)
            met["conflict" if clashes else "taken back" if taken_back else "kept"] += 1

    law()
    assert min(met[kind] for kind in ("conflict", "taken back", "kept")) >= 3, met


@given(triples | some_changes)
def test_merging_does_not_depend_on_who_is_called_mine(three: Three) -> None:
    base, theirs, mine = (config.fields() for config in three)
    one, conflicts = merge(base, theirs, mine)
    other, others = merge(base, mine, theirs)
    assert {each.field: (each.theirs, each.mine) for each in conflicts} == {
        each.field: (each.mine, each.theirs) for each in others
    }
    if not conflicts:
        assert one == other


# Configurations


@given(valid_fields)
def test_a_valid_request_is_accepted_and_kept_as_it_was_sent(sent: dict[str, Any]) -> None:
    config, problems = check(sent, ORIGINS)
    assert problems == []
    assert config is not None
    kept = config.fields()
    assert {name: repr(kept[name]) for name in sent} == {name: repr(value) for name, value in sent.items()}
    assert check(kept, ORIGINS) == (config, [])


def test_whatever_object_is_sent_is_accepted_or_told_what_is_wrong_with_it() -> None:
    met: Counter[bool] = Counter()

    @given(
        st.one_of(json_objects, st.builds(dict, valid_fields), st.builds(spoilt, valid_fields, json_objects))
    )
    def law(raw: dict[str, Any]) -> None:
        config, problems = check(raw, ORIGINS)
        assert (config is None) == bool(problems)
        assert all(problem.pointer.startswith("/") and problem.detail for problem in problems)
        told = {problem.pointer for problem in problems}
        for field in raw.keys() - FIELDS.keys():
            assert "/" + field[:200].replace("~", "~0").replace("/", "~1") in told
        met[bool(problems)] += 1

    law()
    assert min(met[True], met[False]) >= 3, met


def spoilt(valid: dict[str, Any], junk: dict[str, Any]) -> dict[str, Any]:
    """A valid request with one or two junk fields over it."""
    return {**valid, **dict(list(junk.items())[:2])}


@given(any_configs)
def test_the_rules_judge_every_configuration_that_was_ever_recorded(config: ModelConfig) -> None:
    checked, problems = check(config.fields(), ORIGINS)
    assert (checked == config) == (problems == [])
    with suppress(ValueError):
        config.endpoint()


# Addresses


@settings(max_examples=3 * settings.default.max_examples)
@given(st.text() | urlish)
def test_whatever_text_is_sent_as_an_address_is_taken_apart_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert parse_endpoint(text).url == text


def test_an_address_leads_where_its_origin_says_for_the_sender_too() -> None:
    met: Counter[bool] = Counter()

    @settings(max_examples=3 * settings.default.max_examples)
    @given(near_urls | urlish)
    def law(text: str) -> None:
        try:
            endpoint = parse_endpoint(text)
        except ValueError:
            met[False] += 1
            return
        met[True] += 1
        sent, bound = httpx2.URL(text), httpx2.URL(endpoint.origin)
        assert sent.scheme == bound.scheme
        assert sent.port == bound.port
        assert sent.userinfo == b""
        assert canonical(sent) == canonical(bound)
        assert sent.path.rstrip("/") == endpoint.path
        assert parse_endpoint(endpoint.origin).origin == endpoint.origin

    law()
    assert min(met[True], met[False]) >= 3, met


def canonical(url: httpx2.URL) -> str:
    """The host that the sender connects to; one dot at the end means the same name."""
    host = url.raw_host.decode().removesuffix(".")
    return parse_endpoint(f"http://[{host}]").origin if ":" in host else host


@given(st.text())
def test_a_text_without_problems_is_one_line_of_unicode(text: str) -> None:
    if text_problem(text, 1_000) is None:
        assert text.encode().decode() == text
        assert len(text.splitlines()) <= 1 or {"\u2028", "\u2029"} & set(text)
