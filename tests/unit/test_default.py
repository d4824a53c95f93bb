"""The rules of the default pointer, as sentences."""

import pytest
from factories import AzureConfigFactory, default_is, on
from msgspec.structs import replace
from scenario import given

from domain.catalog import Change
from domain.default import SetDefault
from domain.errors import DefaultProtected, ModelNotFound
from domain.model import (
    CreateModel,
    DeleteModel,
    ModelCreated,
    ModelDeleted,
    ModelRestored,
    ModelUpdated,
    RestoreModel,
    UpdateModel,
)
from domain.values import ModelId

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")
CONFIG = AzureConfigFactory.build()
DISABLED = replace(CONFIG, enabled=False)

A_LIVES = (default_is(A), on(A, ModelCreated(CONFIG)))
B_LIVES = on(B, ModelCreated(CONFIG))
B_DISABLED = on(B, ModelCreated(DISABLED))
A_DELETED = on(A, ModelDeleted(CONFIG))
B_DELETED = on(B, ModelDeleted(CONFIG))
NONE = default_is(None)


# The first model


def test_the_first_model_becomes_the_default_in_the_same_append() -> None:
    given().when(CreateModel(A, CONFIG)).then(default_is(A), on(A, ModelCreated(CONFIG)))


def test_a_second_model_leaves_the_default_alone() -> None:
    given(*A_LIVES).when(CreateModel(B, CONFIG)).then(B_LIVES)


def test_a_choice_of_none_stays_while_others_live() -> None:
    given(*A_LIVES, NONE).when(CreateModel(B, CONFIG)).then(B_LIVES)


def test_after_the_last_model_went_the_next_one_becomes_the_default() -> None:
    given(*A_LIVES, NONE, A_DELETED).when(CreateModel(B, CONFIG)).then(default_is(B), B_LIVES)


def test_a_model_that_is_restored_as_the_only_one_becomes_the_default() -> None:
    restored = on(A, ModelRestored(2, CONFIG))
    given(*A_LIVES, NONE, A_DELETED).when(RestoreModel(A, 2, CONFIG)).then(default_is(A), restored)


def test_a_model_that_is_restored_beside_others_does_not_become_the_default() -> None:
    past = (*A_LIVES, B_LIVES, default_is(B), A_DELETED)
    given(*past).when(RestoreModel(A, 2, CONFIG)).then(on(A, ModelRestored(2, CONFIG)))


# Set the default


def test_a_live_model_is_made_the_default() -> None:
    given(*A_LIVES, B_LIVES).when(SetDefault(B)).then(default_is(B)).at_version(2)


def test_what_is_the_default_already_records_nothing() -> None:
    given(*A_LIVES).when(SetDefault(A)).then_nothing()


def test_none_is_made_the_default() -> None:
    given(*A_LIVES).when(SetDefault(None)).then(NONE).at_version(2)


def test_none_stays_none_without_an_event() -> None:
    given().when(SetDefault(None)).then_nothing()
    given(*A_LIVES, NONE).when(SetDefault(None)).then_nothing()


def test_a_model_that_never_was_does_not_become_the_default() -> None:
    given(*A_LIVES).when(SetDefault(B)).then_refused(ModelNotFound)


def test_a_deleted_model_does_not_become_the_default() -> None:
    refusal = given(*A_LIVES, B_LIVES, B_DELETED).when(SetDefault(B)).then_refused(ModelNotFound)
    assert refusal.deleted_at_version == 2


def test_a_disabled_model_does_not_become_the_default() -> None:
    given(*A_LIVES, B_DISABLED).when(SetDefault(B)).then_invalid("/model_id disabled")


def test_a_model_that_was_enabled_again_becomes_the_default() -> None:
    past = (*A_LIVES, B_DISABLED, on(B, ModelUpdated(CONFIG)))
    given(*past).when(SetDefault(B)).then(default_is(B))


# Delete the default


def test_the_default_model_is_not_deleted() -> None:
    refusal = given(*A_LIVES, B_LIVES).when(DeleteModel(A)).then_refused(DefaultProtected)
    assert refusal.model_id == A


def test_the_only_model_is_not_deleted_while_it_is_the_default() -> None:
    given(*A_LIVES).when(DeleteModel(A)).then_refused(DefaultProtected)


def test_the_last_model_goes_once_none_is_the_default() -> None:
    given(*A_LIVES, NONE).when(DeleteModel(A)).then(A_DELETED)


def test_with_a_successor_both_events_are_one_append_and_the_default_moves_first() -> None:
    given(*A_LIVES, B_LIVES).when(DeleteModel(A, new_default=B)).then(default_is(B), A_DELETED)


@pytest.mark.parametrize("past", [(), (B_LIVES, B_DELETED)], ids=["never was", "was deleted"])
def test_a_successor_that_is_not_live_is_refused(past: tuple[Change, ...]) -> None:
    refusal = given(*A_LIVES, *past).when(DeleteModel(A, new_default=B)).then_refused(ModelNotFound)
    assert refusal.model_id == B


def test_a_disabled_successor_is_refused_and_its_parameter_named() -> None:
    past = (*A_LIVES, B_DISABLED)
    given(*past).when(DeleteModel(A, new_default=B)).then_invalid("/new_default disabled")


def test_a_model_is_not_its_own_successor() -> None:
    given(*A_LIVES, B_LIVES).when(DeleteModel(A, new_default=A)).then_refused(DefaultProtected)


def test_a_successor_is_not_asked_for_when_another_model_is_deleted() -> None:
    given(*A_LIVES, B_LIVES).when(DeleteModel(B, new_default=C)).then(B_DELETED)


def test_that_a_model_is_not_there_is_told_before_its_successor_is_looked_at() -> None:
    refusal = given(*A_LIVES).when(DeleteModel(B, new_default=C)).then_refused(ModelNotFound)
    assert refusal.model_id == B


def test_the_former_default_is_deleted_like_any_other() -> None:
    given(*A_LIVES, B_LIVES, default_is(B)).when(DeleteModel(A)).then(A_DELETED)


# Beside it


def test_an_update_leaves_the_default_alone() -> None:
    changed = replace(CONFIG, name="changed")
    given(*A_LIVES).when(UpdateModel(A, changed)).then(on(A, ModelUpdated(changed)))


def test_a_refused_default_tells_what_can_be_done() -> None:
    refusal = given(*A_LIVES).when(DeleteModel(A)).then_refused(DefaultProtected)
    assert "?new_default=" in str(refusal)
    assert "PUT /api/config/default" in str(refusal)
