"""Changes told as patches: what they make of a configuration, and what is refused."""

from contextlib import suppress
from typing import Any

import pytest
from factories import ORIGINS, AzureConfigFactory, on
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace
from scenario import Past
from strategies import flat_objects, json_objects, json_values

from application.patch import PatchModel, json_patch, merge_patch
from domain.changes import Fields
from domain.errors import InvalidInput, ModelNotFound, PatchRefused
from domain.model import ModelCreated, ModelDeleted, UpdateModel
from domain.values import ModelId, model_stream

GPT = ModelId("gpt-4")
CONFIG = replace(
    AzureConfigFactory.build(),
    name="name",
    max_retries=3,
    base_timeout=5,
    max_timeout=120,
    deployment=UNSET,
    aliases=("x", "y"),
)
FIELDS = CONFIG.fields()
LIVE = Past([on(GPT, ModelCreated(CONFIG))]).seen()

# Merge patches


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # RFC 7396, appendix A: those of its vectors that are about flat objects.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": None}, {}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": ["b", "c"]}, {"a": ["d"]}, {"a": ["d"]}),
    ],
)
def test_a_merge_patch_does_what_the_rfc_says(target: Fields, patch: Fields, result: Fields) -> None:
    assert merge_patch(patch)(target) == result


@pytest.mark.parametrize("document", [None, 1, "a", [], ["c"], True])
def test_a_merge_patch_is_an_object(document: object) -> None:
    with pytest.raises(InvalidInput):
        merge_patch(document)


def test_null_takes_the_credential_away_instead_of_putting_the_environments_in_its_place() -> None:
    assert merge_patch({"credential": None})(FIELDS)["credential"] is None


def test_a_refused_patch_does_not_repeat_the_configuration() -> None:
    for operation in (
        {"op": "test", "path": "/max_tokens", "value": -1},
        {"op": "remove", "path": "/absent"},
    ):
        with pytest.raises(PatchRefused) as refused:
            json_patch([operation])(FIELDS)
        assert "{" not in str(refused.value)
        assert str(FIELDS["max_tokens"]) not in str(refused.value)


def test_null_removes_a_field_so_that_its_default_holds_again() -> None:
    patch = PatchModel(GPT, merge_patch({"max_retries": None, "enabled": None, "base_timeout": None}))
    patched = patch.command(LIVE, ORIGINS).config
    assert (patched.max_retries, patched.enabled, patched.base_timeout) == (UNSET, True, 120)


def test_a_required_field_cannot_be_removed() -> None:
    with pytest.raises(InvalidInput) as refused:
        PatchModel(GPT, merge_patch({"name": None})).command(LIVE, ORIGINS)
    assert [problem.code for problem in refused.value.problems] == ["required"]


def merged(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """MergePatch of RFC 7396 section 2, for flat objects."""
    target = dict(target)
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = value
    return target


@given(flat_objects, flat_objects)
def test_a_merge_patch_follows_the_rfcs_algorithm_and_leaves_its_target_alone(
    target: dict[str, Any], patch: dict[str, Any]
) -> None:
    before = dict(target)
    result = merge_patch(patch)(target)
    assert result == merged(target, patch)
    assert target == before
    assert merge_patch(patch)(result) == result, "once is as good as twice"


# JSON Patches


def test_a_json_patch_is_applied_in_order() -> None:
    operations = [
        {"op": "test", "path": "/name", "value": "name"},
        {"op": "copy", "from": "/name", "path": "/deployment"},
        {"op": "replace", "path": "/name", "value": "new"},
        {"op": "remove", "path": "/max_retries"},
        {"op": "add", "path": "/description", "value": "added"},
    ]
    patched = PatchModel(GPT, json_patch(operations)).command(LIVE, ORIGINS)
    expected = replace(CONFIG, name="new", deployment="name", max_retries=UNSET, description="added")
    assert patched == UpdateModel(GPT, expected)


@pytest.mark.parametrize(
    "document",
    [
        None,
        1,
        "",
        "abc",
        {},
        {"op": "remove", "path": "/name"},
        [1],
        [None],
        ["remove"],
        [[]],
        [{}],
        [{"op": "remove"}],
        [{"path": "/name"}],
        [{"op": "increment", "path": "/max_tokens"}],
        [{"op": ["add"], "path": "/name", "value": 1}],
        [{"op": "add", "path": 3, "value": 1}],
        [{"op": "add", "path": None, "value": 1}],
        [{"op": "add", "path": "name", "value": 1}],
        [{"op": "add", "path": "/a~2b", "value": 1}],
    ],
)
def test_what_is_no_list_of_operations_is_refused(document: object) -> None:
    with pytest.raises(InvalidInput):
        json_patch(document)


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/name", "value": "other"},
        {"op": "test", "path": "", "value": 3},
        {"op": "remove", "path": "/deployment"},
        {"op": "remove", "path": ""},
        {"op": "replace", "path": "/deployment", "value": "x"},
        {"op": "replace", "path": "", "value": []},
        {"op": "add", "path": "", "value": None},
        {"op": "add", "path": "/name"},
        {"op": "add", "path": "/name/0", "value": "x"},
        {"op": "add", "path": "/max_tokens/x", "value": 1},
        {"op": "copy", "path": "/a"},
        {"op": "copy", "from": "/deployment", "path": "/name"},
        {"op": "move", "from": "/name", "path": "/name/a"},
        {"op": "move", "from": 3, "path": "/name"},
    ],
)
def test_an_operation_that_does_not_apply_refuses_the_whole_patch(operation: dict[str, object]) -> None:
    apply = json_patch([{"op": "add", "path": "/description", "value": "first"}, operation])
    with pytest.raises(PatchRefused):
        apply(FIELDS)


def test_a_patch_never_changes_what_it_is_applied_to() -> None:
    before = dict(FIELDS)
    assert json_patch([{"op": "remove", "path": "/name"}])(FIELDS) != before
    assert before == FIELDS


def test_a_patch_that_nests_too_deep_is_refused() -> None:
    deep: list[object] = []
    for _ in range(700):
        deep = [deep]
    operations = [
        {"op": "add", "path": "/name", "value": deep},
        {"op": "test", "path": "/name", "value": [deep]},
        {"op": "copy", "from": "/name", "path": "/description"},
    ]
    for patch in (operations, operations[:1] + operations[2:]):
        with pytest.raises((PatchRefused, InvalidInput)):
            json_patch(patch)(FIELDS)


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "copy", "from": "", "path": "/name"}] * 60,
        [{"op": "copy", "from": "/aliases", "path": "/aliases/-"}] * 60,
        [
            {"op": "move", "from": "/aliases", "path": "/a"},
            {"op": "add", "path": "/b", "value": [[]]},
            {"op": "move", "from": "/a", "path": "/b/0/0"},
            *[{"op": "copy", "from": "/b/0", "path": "/b/0/0/-"}] * 60,
        ],
        [{"op": "add", "path": "/a", "value": {}}, *[{"op": "copy", "from": "/a", "path": "/a/b"}] * 60],
        [{"op": "add", "path": "/a", "value": []}, *[{"op": "copy", "from": "/a", "path": "/a/-"}] * 60],
        [
            {"op": "replace", "path": "", "value": {"a": [[]]}},
            *[{"op": "copy", "from": "/a", "path": "/a/0"}] * 60,
        ],
    ],
)
def test_a_patch_that_copies_copies_is_refused_before_it_grows(operations: list[dict[str, object]]) -> None:
    with pytest.raises((PatchRefused, InvalidInput)):
        json_patch(operations)(FIELDS)


def test_items_of_a_list_are_patched_by_their_place() -> None:
    operations = [
        {"op": "test", "path": "/aliases", "value": ["x", "y"]},
        {"op": "remove", "path": "/aliases/0"},
        {"op": "add", "path": "/aliases/-", "value": "z"},
        {"op": "add", "path": "/aliases/0", "value": "a"},
        {"op": "copy", "from": "/aliases/1", "path": "/deployment"},
        {"op": "add", "path": "/fallbacks", "value": ["gpt-5", "o3"]},
        {"op": "move", "from": "/fallbacks/1", "path": "/fallbacks/0"},
    ]
    patch = PatchModel(GPT, json_patch(operations))
    for _ in range(2):  # once more, as after a lost race
        patched = patch.command(LIVE, ORIGINS).config
        assert (patched.aliases, patched.fallbacks) == (("a", "y", "z"), ("o3", "gpt-5"))
        assert patched.deployment == "y"


@pytest.mark.parametrize("path", ["/aliases/2", "/aliases/9", "/aliases/x", "/aliases/-1", "/aliases/0/0"])
def test_an_item_that_is_not_there_refuses_the_patch(path: str) -> None:
    with pytest.raises(PatchRefused):
        json_patch([{"op": "remove", "path": path}])(FIELDS)


@pytest.mark.parametrize("path", ["/aliases/-", "/aliases/0", "/fallbacks", "/name"])
def test_a_list_is_not_copied(path: str) -> None:
    with pytest.raises(PatchRefused, match="send a list as a value"):
        json_patch([{"op": "copy", "from": "/aliases", "path": path}])(FIELDS)


def test_a_patch_may_replace_the_whole_configuration_and_copy_within_it() -> None:
    whole = {**FIELDS, "name": "whole"}
    document = [
        {"op": "test", "path": "", "value": FIELDS},
        {"op": "replace", "path": "", "value": whole},
        {"op": "copy", "from": "/name", "path": "/deployment"},
    ]
    assert json_patch(document)(FIELDS) == {**whole, "deployment": "whole"}


pointers = st.sampled_from(
    [
        *("", "/", "/name", "/max_tokens", "/name/x", "/a", "/a/0", "/a/-", "/a~1b", "x", "/~"),
        *("/aliases", "/aliases/0", "/aliases/-"),
    ]
)
operations = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": pointers,
    },
    optional={"from": pointers, "value": json_values},
)


@given(st.lists(operations, max_size=4) | st.lists(json_values, max_size=2) | json_values)
def test_whatever_is_sent_as_a_json_patch_is_applied_or_refused(document: object) -> None:
    try:
        result = json_patch(document)(FIELDS)
    except (InvalidInput, PatchRefused):
        return
    assert isinstance(result, dict)


@given(json_objects)
def test_whatever_is_sent_as_a_merge_patch_makes_an_update_or_is_refused(document: dict[str, Any]) -> None:
    with suppress(InvalidInput):
        assert isinstance(PatchModel(GPT, merge_patch(document)).command(LIVE, ORIGINS), UpdateModel)


# What is patched


def test_only_a_live_model_is_patched() -> None:
    patch = PatchModel(GPT, merge_patch({"name": "x"}))
    assert patch.streams() == [model_stream(GPT)]
    deleted = Past([on(GPT, ModelCreated(CONFIG)), on(GPT, ModelDeleted(CONFIG))])
    for past in (Past(), deleted):
        with pytest.raises(ModelNotFound):
            patch.command(past.seen(), ORIGINS)
