"""The rules of a model, as sentences."""

from factories import ORIGINS, AzureConfigFactory, OpenAIConfigFactory, default_is, on
from msgspec.structs import replace
from scenario import given, told

from domain.errors import InvalidInput, ModelExists, ModelNotFound
from domain.model import (
    CreateModel,
    DeleteModel,
    ModelCreated,
    ModelDeleted,
    ModelRestored,
    ModelRolledBack,
    ModelUpdated,
    RestoreModel,
    RollBackModel,
    UpdateModel,
)
from domain.values import ModelId

GPT = ModelId("gpt-4")
OTHER = ModelId("other")

FIRST = AzureConfigFactory.build(name="first")
SECOND = OpenAIConfigFactory.build(name="second")
BROKEN = replace(FIRST, name="", max_tokens=0, azure_endpoint="ftp://north.openai.azure.com")
"""Breaks three of today's rules, as a configuration of an older release may."""
BROKEN_RULES = ("/azure_endpoint invalid_url", "/max_tokens invalid_value", "/name invalid_value")

OTHER_LIVES = on(OTHER, ModelCreated(FIRST))
CREATED = on(GPT, ModelCreated(FIRST))
CREATED_BROKEN = on(GPT, ModelCreated(BROKEN))
UPDATED = on(GPT, ModelUpdated(SECOND))
DELETED = on(GPT, ModelDeleted(FIRST))
RESTORED = on(GPT, ModelRestored(2, FIRST))


# Create


def test_a_model_is_created_under_a_free_id() -> None:
    given(OTHER_LIVES).when(CreateModel(GPT, FIRST)).then(CREATED).at_version(1)


def test_a_live_model_is_not_created_again() -> None:
    refusal = given(CREATED, UPDATED).when(CreateModel(GPT, FIRST)).then_refused(ModelExists)
    assert (refusal.model_id, refusal.version) == (GPT, 2)


def test_a_restored_model_is_not_created_again() -> None:
    given(CREATED, DELETED, RESTORED).when(CreateModel(GPT, SECOND)).then_refused(ModelExists)


def test_creating_after_a_deletion_goes_on_in_the_stream() -> None:
    created_anew = on(GPT, ModelCreated(SECOND))
    given(OTHER_LIVES, CREATED, DELETED).when(CreateModel(GPT, SECOND)).then(created_anew).at_version(3)


def test_a_model_is_not_created_with_a_configuration_that_breaks_rules_and_all_are_told() -> None:
    given().when(CreateModel(GPT, BROKEN)).then_invalid(*BROKEN_RULES)


def test_that_a_model_exists_is_told_before_what_is_wrong_with_its_configuration() -> None:
    given(CREATED).when(CreateModel(GPT, BROKEN)).then_refused(ModelExists)


# Update


def test_a_live_model_is_updated() -> None:
    given(CREATED).when(UpdateModel(GPT, SECOND)).then(UPDATED).at_version(2)


def test_an_update_that_changes_nothing_records_nothing() -> None:
    given(CREATED).when(UpdateModel(GPT, FIRST)).then_nothing()


def test_an_update_back_to_an_older_configuration_is_a_change() -> None:
    given(CREATED, UPDATED).when(UpdateModel(GPT, FIRST)).then(on(GPT, ModelUpdated(FIRST)))


def test_a_model_that_never_was_is_not_updated() -> None:
    refusal = given(OTHER_LIVES).when(UpdateModel(GPT, FIRST)).then_refused(ModelNotFound)
    assert (refusal.model_id, refusal.deleted_at_version) == (GPT, None)


def test_a_deleted_model_is_not_updated_and_the_refusal_tells_when_it_went() -> None:
    refusal = given(CREATED, UPDATED, DELETED).when(UpdateModel(GPT, FIRST)).then_refused(ModelNotFound)
    assert refusal.deleted_at_version == 3


def test_an_update_that_breaks_rules_is_refused_with_all_problems() -> None:
    given(CREATED).when(UpdateModel(GPT, BROKEN)).then_invalid(*BROKEN_RULES)


def test_a_key_is_not_sent_where_the_operator_did_not_allow_it() -> None:
    keyed = replace(SECOND, credential="environment")
    given(CREATED).when(UpdateModel(GPT, keyed)).then(on(GPT, ModelUpdated(keyed)))
    given(CREATED).when(UpdateModel(GPT, keyed), frozenset()).then_invalid("/base_url credential_not_bound")


# Delete


def test_a_model_is_deleted_and_its_last_configuration_is_kept() -> None:
    deleted = on(GPT, ModelDeleted(SECOND))
    given(CREATED, UPDATED).when(DeleteModel(GPT)).then(deleted).at_version(3)


def test_a_model_that_breaks_todays_rules_can_be_deleted() -> None:
    given(CREATED_BROKEN).when(DeleteModel(GPT)).then(on(GPT, ModelDeleted(BROKEN)))


def test_a_model_that_never_was_is_not_deleted() -> None:
    given(OTHER_LIVES).when(DeleteModel(GPT)).then_refused(ModelNotFound)


def test_a_model_is_not_deleted_twice() -> None:
    given(CREATED, DELETED).when(DeleteModel(GPT)).then_refused(ModelNotFound)


# Roll back


def test_a_live_model_is_rolled_back_by_a_new_event() -> None:
    rolled_back = on(GPT, ModelRolledBack(1, FIRST))
    given(CREATED, UPDATED).when(RollBackModel(GPT, 1, FIRST)).then(rolled_back).at_version(3)


def test_a_rollback_is_itself_rolled_back() -> None:
    rolled_back = on(GPT, ModelRolledBack(1, FIRST))
    back_again = on(GPT, ModelRolledBack(2, SECOND))
    given(CREATED, UPDATED, rolled_back).when(RollBackModel(GPT, 2, SECOND)).then(back_again).at_version(4)


def test_a_rollback_to_the_same_content_records_nothing() -> None:
    updated_back = on(GPT, ModelUpdated(FIRST))
    given(CREATED, UPDATED, updated_back).when(RollBackModel(GPT, 1, FIRST)).then_nothing()


def test_a_rollback_to_a_configuration_that_breaks_todays_rules_is_refused_with_all_problems() -> None:
    given(CREATED_BROKEN, UPDATED).when(RollBackModel(GPT, 1, BROKEN)).then_invalid(*BROKEN_RULES)


def test_a_model_that_never_was_is_not_rolled_back() -> None:
    given(OTHER_LIVES).when(RollBackModel(GPT, 1, FIRST)).then_refused(ModelNotFound)


def test_a_deleted_model_is_restored_not_rolled_back() -> None:
    given(CREATED, DELETED).when(RollBackModel(GPT, 1, FIRST)).then_refused(ModelNotFound)


# Restore


def test_a_deleted_model_is_restored() -> None:
    given(OTHER_LIVES, CREATED, DELETED).when(RestoreModel(GPT, 2, FIRST)).then(RESTORED).at_version(3)


def test_a_deleted_model_is_restored_with_the_configuration_of_any_version() -> None:
    past = (OTHER_LIVES, CREATED, UPDATED, on(GPT, ModelDeleted(SECOND)))
    given(*past).when(RestoreModel(GPT, 1, FIRST)).then(on(GPT, ModelRestored(1, FIRST))).at_version(4)


def test_a_live_model_is_not_restored() -> None:
    refusal = given(CREATED).when(RestoreModel(GPT, 1, FIRST)).then_refused(ModelExists)
    assert refusal.version == 1


def test_where_nothing_was_before_nothing_is_restored() -> None:
    given(OTHER_LIVES).when(RestoreModel(GPT, 1, FIRST)).then_refused(ModelNotFound)


def test_a_restore_of_a_configuration_that_breaks_todays_rules_is_refused_with_all_problems() -> None:
    past = (CREATED_BROKEN, on(GPT, ModelDeleted(BROKEN)))
    given(*past).when(RestoreModel(GPT, 2, BROKEN)).then_invalid(*BROKEN_RULES)


def test_a_restored_model_is_updated_and_deleted_like_any_other() -> None:
    past = (OTHER_LIVES, CREATED, DELETED, RESTORED)
    given(*past).when(UpdateModel(GPT, SECOND)).then(UPDATED).at_version(4)
    given(*past).when(DeleteModel(GPT)).then(DELETED).at_version(4)


# The stream


def test_versions_never_restart() -> None:
    twice = (CREATED, DELETED, CREATED, DELETED)
    given(OTHER_LIVES, *twice).when(CreateModel(GPT, FIRST)).then(CREATED).at_version(5)
    given(OTHER_LIVES, *twice).when(RestoreModel(GPT, 2, FIRST)).then(RESTORED).at_version(5)


def test_an_event_of_one_model_never_touches_another() -> None:
    given(CREATED, DELETED).when(CreateModel(OTHER, FIRST)).then(default_is(OTHER), OTHER_LIVES)
    given(CREATED).when(UpdateModel(OTHER, SECOND)).then_refused(ModelNotFound)


def test_the_refusal_of_bad_values_names_every_field_in_its_message() -> None:
    refusal = given().when(CreateModel(GPT, BROKEN), ORIGINS).then_refused(InvalidInput)
    assert told(refusal.problems) == sorted(BROKEN_RULES)
    assert all(rule.partition(" ")[0] in str(refusal) for rule in BROKEN_RULES)
