"""The rules between models, as sentences: whose a name is, and who stands in for whom."""

from collections.abc import Sequence

import pytest
from factories import OpenAIConfigFactory, on
from msgspec import UNSET
from msgspec.structs import replace
from scenario import Outcome, given

from domain.catalog import Change
from domain.configuration import ModelConfig
from domain.errors import InvalidInput
from domain.model import (
    CreateModel,
    DeleteModel,
    ModelCommand,
    ModelCreated,
    ModelDeleted,
    ModelUpdated,
    RestoreModel,
    RollBackModel,
    UpdateModel,
)
from domain.values import ModelId

A, B, C, D = (ModelId(name) for name in "abcd")
PLAIN = OpenAIConfigFactory.build(aliases=UNSET, fallbacks=UNSET)


def config(*aliases: str, to: Sequence[ModelId] = (), **changes: object) -> ModelConfig:
    """A configuration with these aliases, that falls back to these models."""
    return replace(PLAIN, aliases=aliases, fallbacks=tuple(to), **changes)


def lives(model_id: ModelId, *aliases: str, to: Sequence[ModelId] = (), **changes: object) -> Change:
    return on(model_id, ModelCreated(config(*aliases, to=to, **changes)))


def goes(model_id: ModelId, *aliases: str, to: Sequence[ModelId] = ()) -> Change:
    return on(model_id, ModelDeleted(config(*aliases, to=to)))


def details(outcome: Outcome) -> list[str]:
    return [problem.detail for problem in outcome.then_refused(InvalidInput).problems]


def ways_to_save(wanted: ModelConfig) -> list[object]:
    """Every way in which `a` can come to that configuration: its past, and the command."""
    old, had = lives(A), on(A, ModelCreated(wanted))
    released = on(A, ModelUpdated(config()))
    gone = on(A, ModelDeleted(wanted))
    return [
        pytest.param([], CreateModel(A, wanted), id="create"),
        pytest.param([old, goes(A)], CreateModel(A, wanted), id="create again"),
        pytest.param([old], UpdateModel(A, wanted), id="update"),
        pytest.param([had, released], RollBackModel(A, 1, wanted), id="roll back"),
        pytest.param([had, gone], RestoreModel(A, 2, wanted), id="restore"),
    ]


# Aliases


@pytest.mark.parametrize(("past", "command"), ways_to_save(config("x", "team/y:8b")))
def test_a_name_that_nobody_has_is_free(past: list[Change], command: ModelCommand) -> None:
    outcome = given(lives(B, "z", "X"), *past).when(command)
    assert outcome.then_accepted()


@pytest.mark.parametrize(("past", "command"), ways_to_save(config("free", "b", "x")))
def test_the_id_and_the_aliases_of_another_live_model_are_taken(
    past: list[Change], command: ModelCommand
) -> None:
    outcome = given(lives(B), lives(C, "x"), *past).when(command)
    outcome.then_invalid("/aliases/1 name_taken", "/aliases/2 name_taken")
    assert details(outcome) == ["'b' is the id of another model", "'x' is an alias of model 'c'"]


@pytest.mark.parametrize(("past", "command"), ways_to_save(config("a")))
def test_a_models_own_id_is_no_alias_of_it(past: list[Change], command: ModelCommand) -> None:
    given(*past).when(command).then_invalid("/aliases/0 name_taken")


@pytest.mark.parametrize(("past", "command"), ways_to_save(config("b", "x")))
def test_names_of_deleted_models_are_free(past: list[Change], command: ModelCommand) -> None:
    assert given(lives(B, "x"), goes(B, "x"), *past).when(command).then_accepted()


@pytest.mark.parametrize(("past", "command"), ways_to_save(config("x")))
def test_names_of_disabled_models_are_taken(past: list[Change], command: ModelCommand) -> None:
    given(lives(B, "x", enabled=False), *past).when(command).then_invalid("/aliases/0 name_taken")


@pytest.mark.parametrize(
    ("past", "command"),
    [
        ([], CreateModel(A, PLAIN)),
        ([lives(A), goes(A)], CreateModel(A, PLAIN)),
        ([lives(A), goes(A)], RestoreModel(A, 2, PLAIN)),
    ],
)
def test_a_model_does_not_come_to_life_under_anothers_alias(
    past: list[Change], command: ModelCommand
) -> None:
    outcome = given(*past, lives(B, "a")).when(command)
    outcome.then_invalid("/model_id name_taken")
    assert details(outcome) == ["'a' is an alias of model 'b'"]


def test_a_name_can_be_handed_on_once_it_was_given_up() -> None:
    given_up = on(B, ModelUpdated(config()))
    assert given(lives(A), lives(B, "x"), given_up).when(UpdateModel(A, config("x"))).then_accepted()


def test_a_model_keeps_its_names_when_it_changes_or_orders_them_anew() -> None:
    for wanted in (config("x", "y", name="new"), config("y", "x"), config("y")):
        assert given(lives(A, "x", "y"), lives(B)).when(UpdateModel(A, wanted)).then_accepted()


def test_a_name_that_two_models_have_against_the_rules_hinders_no_other_change() -> None:
    past = given(lives(A, "x", "b"), lives(B, "x"))
    assert past.when(UpdateModel(A, config("x", "b", enabled=False))).then_accepted()
    assert past.when(UpdateModel(B, config("x", enabled=False))).then_accepted()
    past.when(UpdateModel(B, config("x", "a"))).then_invalid("/aliases/1 name_taken")


def test_everything_that_is_wrong_is_told_at_once() -> None:
    wanted = config("x", "..", to=[A, D, B], name="")
    given(lives(B, "x")).when(CreateModel(A, wanted)).then_invalid(
        "/aliases/0 name_taken",
        "/aliases/1 invalid_value",
        "/fallbacks/0 fallback_loop",
        "/fallbacks/1 unknown_model",
        "/name invalid_value",
    )


# Fallbacks that are there


@pytest.mark.parametrize(("past", "command"), ways_to_save(config(to=[B, C])))
def test_live_models_stand_in_also_disabled_ones(past: list[Change], command: ModelCommand) -> None:
    assert given(lives(B), lives(C, enabled=False), *past).when(command).then_accepted()


@pytest.mark.parametrize(("past", "command"), ways_to_save(config(to=[B, C, D])))
def test_a_model_that_is_not_live_stands_in_for_none_unless_the_past_brings_it_back(
    past: list[Change], command: ModelCommand
) -> None:
    outcome = given(lives(B), lives(C), goes(C), *past).when(command)
    if isinstance(command, RollBackModel | RestoreModel):
        assert outcome.then_accepted()
    else:
        outcome.then_invalid("/fallbacks/1 unknown_model", "/fallbacks/2 unknown_model")


def test_a_fallback_is_named_by_its_id() -> None:
    outcome = given(lives(B, "x")).when(CreateModel(A, config(to=[ModelId("x")])))
    outcome.then_invalid("/fallbacks/0 unknown_model")
    assert "not by an alias" in details(outcome)[0]


def test_a_model_that_others_fall_back_to_can_be_deleted_and_they_can_be_changed() -> None:
    assert given(lives(B), lives(A, to=[B])).when(DeleteModel(B)).then_accepted()
    dangling = given(lives(B), lives(A, to=[B]), goes(B), lives(C))
    assert dangling.when(UpdateModel(A, config(to=[B], name="new"))).then_accepted()
    assert dangling.when(UpdateModel(A, config(to=[C, B]))).then_accepted()


# Loops


@pytest.mark.parametrize(("past", "command"), ways_to_save(config(to=[A])))
def test_a_model_does_not_stand_in_for_itself(past: list[Change], command: ModelCommand) -> None:
    outcome = given(lives(D), *past).when(command)
    outcome.then_invalid("/fallbacks/0 fallback_loop")
    assert details(outcome) == ["a loop: a -> a"]


@pytest.mark.parametrize(("past", "command"), ways_to_save(config(to=[D, B])))
def test_a_loop_through_live_models_is_refused_and_told(past: list[Change], command: ModelCommand) -> None:
    around = [lives(D), lives(B, to=[D, C]), lives(C, to=[A], enabled=False)]
    outcome = given(*around, *past).when(command)
    outcome.then_invalid("/fallbacks/1 fallback_loop")
    assert details(outcome) == ["a loop: a -> b -> c -> a"]


@pytest.mark.parametrize(("past", "command"), ways_to_save(config(to=[B])))
def test_a_deleted_model_closes_no_loop_but_its_return_may(past: list[Change], command: ModelCommand) -> None:
    gone = [lives(B, to=[A]), goes(B, to=[A])]
    outcome = given(*gone, *past).when(command)
    if isinstance(command, RollBackModel | RestoreModel):
        accepted = outcome.then_accepted()
        refused = given(*gone, *past, *accepted).when(RestoreModel(B, 2, config(to=[A])))
        refused.then_invalid("/fallbacks/0 fallback_loop")
    else:
        outcome.then_invalid("/fallbacks/0 unknown_model")


def test_a_model_that_others_wait_for_does_not_close_their_loop_when_it_comes() -> None:
    waiting = [lives(A, to=[B]), lives(B), goes(B)]
    given(*waiting).when(CreateModel(B, config(to=[A]))).then_invalid("/fallbacks/0 fallback_loop")
    assert given(*waiting).when(CreateModel(B, config())).then_accepted()


def test_two_ways_to_the_same_model_are_no_loop() -> None:
    diamond = [lives(D), lives(B, to=[D]), lives(C, to=[D])]
    assert given(*diamond).when(CreateModel(A, config(to=[B, C, D]))).then_accepted()


def test_of_a_long_loop_the_beginning_and_the_end_are_told() -> None:
    ids = [ModelId(f"m{number}") for number in range(1_000)]
    chain = [lives(each, to=[following]) for each, following in zip(ids, [*ids[1:], A], strict=True)]
    outcome = given(*chain).when(CreateModel(A, config(to=[ids[0]])))
    assert details(outcome) == [
        "a loop: a -> m0 -> m1 -> m2 -> m3 -> m4 -> m5 -> m6 -> ... -> m999 -> a",
    ]
