"""The models' routes: the present, the past, conditions, patches, and the default pointer."""

import asyncio
from typing import Any

import httpx2
import pytest
from service import Api, Databases, Service, path, running
from upstream import ScriptedUpstream

from domain.configuration import FIELDS

DEFAULT = "/api/config/default"
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
RECEIPT = {"status", "model_id", "version", "position", "hash"}
PLACE = {"version", "position", "is_default", "updated_at", "updated_by"}


def problem(answer: httpx2.Response, status: int, name: str) -> dict[str, Any]:
    """The answer's problem, which must be that one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["type"]) == (status, f"urn:model-ledger:problem:{name}")
    return body


async def put_default(api: Api, model_id: str | None, **headers: str) -> httpx2.Response:
    return await api.http.put(DEFAULT, json={"model_id": model_id}, headers=headers)


# Create.


async def test_a_created_model_is_answered_with_201_and_its_receipt(api: Api) -> None:
    model_id = api.new_id()
    answer = await api.http.post(path(model_id), json=api.config())
    assert answer.status_code == 201
    receipt = answer.json()
    assert receipt.keys() == RECEIPT
    assert (receipt["status"], receipt["model_id"], receipt["version"]) == ("created", model_id, 1)
    assert answer.headers["etag"] == '"1"'
    [entry] = await api.history(model_id)
    assert (entry["position"], entry["hash"]) == (receipt["position"], receipt["hash"])
    assert len(receipt["hash"]) == 64


async def test_what_exists_is_not_created_again_but_refused_with_400(api: Api) -> None:
    model_id = await api.create()
    before = await api.position()
    told = problem(await api.http.post(path(model_id), json=api.config(name="Other")), 400, "model-exists")
    assert model_id in told["detail"]
    assert await api.position() == before
    assert (await api.read(model_id)).json()["name"] == "A model"


@pytest.mark.parametrize("kind", ["a", "0", "A.b_c:d-e", "gpt-4o:2024-11-20", "a..b", "x" * 128])
async def test_an_id_holds_letters_digits_and_some_signs(api: Api, kind: str) -> None:
    model_id = kind if len(kind) == 128 else f"{kind}{api.new_id()}"
    assert await api.create(model_id) == model_id
    escaped = f"/api/config/models/{model_id.replace(':', '%3A').replace('.', '%2E')}"
    assert (await api.http.get(escaped)).json() == (await api.read(model_id)).json()
    assert model_id in (await api.http.get("/api/config/models")).json()
    assert (await api.delete(model_id)).json()["model_id"] == model_id


async def test_a_name_with_a_slash_goes_into_the_deployment(api: Api) -> None:
    upstream = api.service.upstream
    assert upstream is not None
    config = {
        "name": "A label",
        "max_tokens": 1,
        "supports_streaming": True,
        "supports_temperature": True,
        "provider": "openai",
        "base_url": f"{upstream.origin}/v1",
        "deployment": "meta-llama/Llama-3.3-70B-Instruct",
    }
    model_id = api.new_id()
    assert (await api.http.post(path(model_id), json=config)).status_code == 201
    model = (await api.read(model_id)).json()
    assert {field: model[field] for field in config} == config


async def test_of_twenty_that_create_the_same_model_at_once_one_succeeds(api: Api) -> None:
    model_id = api.new_id()
    creations = (api.http.post(path(model_id), json=api.config(max_tokens=n + 1)) for n in range(20))
    statuses = sorted([answer.status_code for answer in await asyncio.gather(*creations)])
    assert statuses == [201] + [400] * 19
    assert len(await api.history(model_id)) == 1


async def test_creating_only_what_is_not_there_can_be_asked_for_with_if_none_match(api: Api) -> None:
    model_id, only_new = api.new_id(), {"If-None-Match": "*"}
    assert (await api.http.post(path(model_id), json=api.config(), headers=only_new)).status_code == 201
    told = problem(
        await api.http.post(path(model_id), json=api.config(), headers=only_new), 412, "precondition-failed"
    )
    assert told["detail"] == f"model '{model_id}' exists already, at version 1"
    assert (told["current_version"], told["current"]["name"]) == (1, "A model")
    assert told["changed_fields"] is None


# Read.


async def test_a_model_is_its_configuration_and_the_event_that_it_comes_from(api: Api) -> None:
    sent = api.config(description="Production chat, EU", base_timeout=90.5, deployment="team.chat")
    model_id = await api.create(**sent)
    answer = await api.read(model_id)
    assert answer.headers["etag"] == '"1"'
    model = answer.json()
    [entry] = await api.history(model_id)
    assert {field: model[field] for field in sent} == sent
    assert model.keys() == PLACE | entry["config"].keys()
    assert (model["version"], model["position"]) == (1, entry["position"])
    assert model["is_default"] is False
    assert (model["updated_at"], model["updated_by"]) == (entry["at"], entry["actor"])


async def test_what_is_left_out_takes_its_default_or_stays_absent(api: Api) -> None:
    model = (await api.read(await api.create())).json()
    told = {"provider", "description", "base_timeout", "max_timeout", "token_factor", "credential", "enabled"}
    assert {field: model[field] for field in told} == {field: FIELDS[field].default for field in told}
    assert not {"reasoning", "max_retries", "base_url", "deployment"} & model.keys()


async def test_what_was_sent_is_kept_as_it_was_sent(api: Api) -> None:
    upstream = api.service.upstream
    assert upstream is not None
    sent = {
        "name": "  Ünïcode 🙂 e\u0301 ",
        "azure_endpoint": upstream.origin + "//",
        "base_timeout": 1,
        "max_timeout": 1.5,
        "token_factor": 1e-7,
    }
    model = (await api.read(await api.create(**sent))).json()
    assert {field: model[field] for field in sent} == sent
    assert isinstance(model["base_timeout"], int)


async def test_the_list_is_an_object_of_the_live_models_by_id(api: Api) -> None:
    kept, gone = await api.create(), await api.create()
    await api.delete(gone)
    models = (await api.http.get("/api/config/models")).json()
    assert models[kept] == (await api.read(kept)).json()
    assert gone not in models
    assert models["first"]["is_default"] is True


async def test_an_unknown_model_is_answered_with_404(api: Api) -> None:
    unknown = api.new_id()
    told = problem(await api.read(unknown), 404, "model-not-found")
    assert unknown in told["detail"]
    for refused in (
        await api.update(unknown),
        await api.patch(unknown, name="x"),
        await api.delete(unknown),
        await api.roll_back(unknown, 1),
        await api.read(unknown, version=1),
        await api.http.get(path(unknown, "history")),
        await api.http.get(path(unknown, "diff"), params={"from": 1, "to": 1}),
        await api.http.get(path(unknown, "blame")),
        await api.http.post(path(unknown, "restore")),
    ):
        problem(refused, 404, "model-not-found")


async def test_a_disabled_model_stays_in_the_management_routes_and_says_that_it_is(api: Api) -> None:
    model_id = await api.create(enabled=False)
    assert (await api.read(model_id)).json()["enabled"] is False
    assert (await api.http.get("/api/config/models")).json()[model_id]["enabled"] is False


# Update.


async def test_an_update_replaces_the_whole_configuration(api: Api) -> None:
    model_id = await api.create(description="old", max_retries=7, base_timeout=60)
    answer = await api.update(model_id, max_tokens=8192)
    assert answer.status_code == 200
    receipt = answer.json()
    assert receipt.keys() == RECEIPT
    assert (receipt["status"], receipt["version"], answer.headers["etag"]) == ("updated", 2, '"2"')
    model = (await api.read(model_id)).json()
    assert (model["max_tokens"], model["description"], model["base_timeout"]) == (8192, "", 120)
    assert "max_retries" not in model


async def test_an_update_that_changes_nothing_records_nothing(api: Api) -> None:
    model_id = await api.create()
    created = (await api.read(model_id)).json()
    before = await api.position()
    answer = await api.update(model_id)
    assert answer.status_code == 200
    receipt = answer.json()
    assert (receipt["status"], receipt["version"], receipt["position"]) == (
        "unchanged",
        1,
        created["position"],
    )
    assert answer.headers["etag"] == '"1"'
    assert await api.position() == before


async def test_a_model_that_was_read_can_be_sent_back_without_what_the_ledger_sets(api: Api) -> None:
    model_id = await api.create(description="d", max_retries=0)
    model = (await api.read(model_id)).json()
    config = {field: value for field, value in model.items() if field not in PLACE}
    assert (await api.http.put(path(model_id), json=config)).json()["status"] == "unchanged"
    told = problem(await api.http.put(path(model_id), json=model), 400, "invalid-input")
    assert {error["code"] for error in told["errors"]} == {"read_only"}
    assert {error["pointer"] for error in told["errors"]} == {f"/{field}" for field in PLACE}


async def test_twenty_updates_at_once_are_all_recorded_one_after_another(api: Api) -> None:
    model_id = await api.create()
    answers = await asyncio.gather(*(api.update(model_id, max_tokens=n + 1) for n in range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert sorted(answer.json()["version"] for answer in answers) == [*range(2, 22)]


# Delete.


async def test_a_deleted_model_is_gone_and_its_versions_go_on(api: Api) -> None:
    model_id = await api.create()
    answer = await api.delete(model_id)
    assert answer.status_code == 200
    receipt = answer.json()
    assert receipt.keys() == RECEIPT
    assert (receipt["status"], receipt["version"]) == ("deleted", 2)
    told = problem(await api.read(model_id), 404, "model-not-found")
    assert "deleted in version 2" in told["detail"]
    for refused in (await api.delete(model_id), await api.update(model_id), await api.patch(model_id)):
        problem(refused, 404, "model-not-found")
    again = await api.http.post(path(model_id), json=api.config(name="Anew"))
    assert (again.status_code, again.json()["version"]) == (201, 3)


async def test_the_default_model_cannot_be_deleted(api: Api) -> None:
    before = await api.position()
    told = problem(await api.delete("first"), 400, "default-protected")
    assert "new_default" in told["detail"]
    problem(await api.delete("first", new_default="first"), 400, "default-protected")
    problem(await api.delete("first", new_default=api.new_id()), 404, "model-not-found")
    disabled = await api.create(enabled=False)
    told = problem(await api.delete("first", new_default=disabled), 400, "invalid-input")
    assert told["errors"][0]["pointer"] == "/new_default"
    assert await api.position() == before + 1  # the disabled one
    assert (await api.http.get(DEFAULT)).json()["model_id"] == "first"


async def test_a_successor_becomes_the_default_in_the_append_that_deletes(api: Api) -> None:
    old, new = await api.create(), await api.create()
    await put_default(api, old)
    try:
        receipt = (await api.delete(old, new_default=new)).json()
        assert receipt["status"] == "deleted"
        assert (await api.http.get(DEFAULT)).json()["model_id"] == new
        assert (await api.read(new)).json()["is_default"] is True
        page = await api.http.get("/api/config/events", params={"limit": 2})
        deleted, handed_on = page.json()["data"]
        assert (deleted["type"], handed_on["type"]) == ("model.deleted", "default.changed")
        assert deleted["position"] == receipt["position"] == handed_on["position"] + 1
        assert (deleted["at"], deleted["request_id"]) == (handed_on["at"], handed_on["request_id"])
    finally:
        await put_default(api, "first")


# The past.


async def test_the_past_is_read_by_position_by_instant_and_by_version(api: Api) -> None:
    model_id = await api.create(max_tokens=1)
    await api.update(model_id, max_tokens=2)
    await api.delete(model_id)
    deleted, updated, created = await api.history(model_id)
    for place, tokens in ((created, 1), (updated, 2)):
        for query in ({"at": place["position"]}, {"as_of": place["at"]}, {"version": place["version"]}):
            answer = await api.read(model_id, **query)
            assert answer.status_code == 200, answer.text
            model = answer.json()
            assert (model["max_tokens"], model["version"]) == (tokens, place["version"])
            assert (model["position"], model["updated_at"]) == (place["position"], place["at"])
            assert answer.headers["etag"] == f'"{place["version"]}"'
        for query in ({"at": place["position"]}, {"as_of": place["at"]}):
            models = (await api.http.get("/api/config/models", params=query)).json()
            assert models[model_id]["max_tokens"] == tokens
    for query in ({"at": deleted["position"]}, {"as_of": deleted["at"]}):
        problem(await api.read(model_id, **query), 404, "model-not-found")
        assert model_id not in (await api.http.get("/api/config/models", params=query)).json()
    # What the deletion left behind is still to be read as a version.
    assert (await api.read(model_id, version=3)).json()["max_tokens"] == 2


async def test_before_its_creation_there_was_no_model(api: Api) -> None:
    model_id = await api.create()
    [created] = await api.history(model_id)
    for query in (
        {"at": created["position"] - 1},
        {"at": 0},
        {"as_of": "2020-01-01T00:00:00Z"},
        {"as_of": "0001-01-01T00:00:00Z"},
    ):
        problem(await api.read(model_id, **query), 404, "model-not-found")
        assert model_id not in (await api.http.get("/api/config/models", params=query)).json()
    assert (await api.http.get("/api/config/models", params={"at": 0})).json() == {}


async def test_the_future_is_the_present(api: Api) -> None:
    model_id = await api.create()
    for query in ({"at": 2**63 - 1}, {"as_of": "9999-12-31T23:59:59Z"}):
        assert (await api.read(model_id, **query)).json() == (await api.read(model_id)).json()


async def test_an_instant_may_have_any_offset_even_with_a_plus_that_was_not_escaped(api: Api) -> None:
    model_id = await api.create()
    for instant in (
        "9999-01-01T00:00:00%2B02:00",
        "9999-01-01T00:00:00+02:00",
        "9999-01-01t00:00:00.5-11:30",
    ):
        assert (await api.http.get(f"{path(model_id)}?as_of={instant}")).status_code == 200


async def test_the_past_also_tells_which_model_was_the_default(api: Api) -> None:
    model_id = await api.create()
    before = await api.position()
    position = (await put_default(api, model_id)).json()["position"]
    await put_default(api, "first")
    assert (await api.read(model_id, at=before)).json()["is_default"] is False
    assert (await api.read(model_id, at=position)).json()["is_default"] is True
    models = (await api.http.get("/api/config/models", params={"at": position})).json()
    assert [name for name, model in models.items() if model["is_default"]] == [model_id]
    assert (await api.read(model_id)).json()["is_default"] is False


@pytest.mark.parametrize("version", [0, -1, 3, 2**31 - 1, 2**31, 10**30])
async def test_a_version_that_does_not_exist_is_answered_with_404(api: Api, version: int) -> None:
    model_id = await api.create()
    await api.update(model_id, max_tokens=1)
    for refused in (
        await api.read(model_id, version=version),
        await api.http.get(path(model_id, "diff"), params={"from": 1, "to": version}),
        await api.http.get(path(model_id, "diff"), params={"from": version, "to": 1}),
    ):
        problem(refused, 404, "version-not-found")


# Conditions.


@pytest.mark.parametrize("tags", ['"2"', 'W/"2"', '"1", "2"', "*", '"other", W/"2"'])
async def test_a_version_that_the_client_has_is_not_sent_again(api: Api, tags: str) -> None:
    model_id = await api.create()
    await api.update(model_id, max_tokens=1)
    answer = await api.http.get(path(model_id), headers={"If-None-Match": tags})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"2"')


@pytest.mark.parametrize("tags", ['"1"', '"3", "4"', '"abc"'])
async def test_another_version_than_the_client_has_is_sent(api: Api, tags: str) -> None:
    model_id = await api.create()
    await api.update(model_id, max_tokens=1)
    answer = await api.http.get(path(model_id), headers={"If-None-Match": tags})
    assert (answer.status_code, answer.json()["version"]) == (200, 2)


@pytest.mark.parametrize("tags", ['"1"', '"1", "9"', "*"])
async def test_a_change_goes_through_when_the_client_saw_what_is_there(api: Api, tags: str) -> None:
    model_id = await api.create()
    answer = await api.update(model_id, headers={"If-Match": tags}, max_tokens=1)
    assert (answer.status_code, answer.json()["version"]) == (200, 2)


async def test_a_stale_change_is_told_what_changed_under_it(api: Api) -> None:
    model_id = await api.create(max_tokens=1)
    await api.update(model_id, max_tokens=2, description="by someone", headers={"X-Change-Reason": "why not"})
    before = await api.position()
    answer = await api.update(model_id, headers={"If-Match": '"1"'}, max_tokens=3)
    told = problem(answer, 412, "precondition-failed")
    newest = (await api.history(model_id))[0]
    assert told["current_version"] == 2
    assert (told["changed_by"], told["changed_at"]) == (newest["actor"], newest["at"])
    assert told["change_reason"] == "why not"
    assert told["changed_fields"] == ["max_tokens", "description"]
    assert told["current"] == newest["config"]
    assert await api.position() == before


@pytest.mark.parametrize("tags", ['W/"2"', '"7"', '"abc"', '"999999999"'])
async def test_a_tag_that_was_never_this_models_matches_nothing(api: Api, tags: str) -> None:
    model_id = await api.create()
    await api.update(model_id, max_tokens=1)
    told = problem(await api.update(model_id, headers={"If-Match": tags}), 412, "precondition-failed")
    assert (told["current_version"], told["changed_fields"]) == (2, None)


async def test_every_change_of_a_model_can_be_conditional(api: Api) -> None:
    model_id = await api.create()
    await api.update(model_id, max_tokens=1)
    stale = {"If-Match": '"1"'}
    merge = {"Content-Type": "application/merge-patch+json"}
    for refused in (
        await api.http.put(path(model_id), json=api.config(), headers=stale),
        await api.http.patch(path(model_id), content="{}", headers={**stale, **merge}),
        await api.http.delete(path(model_id), headers=stale),
        await api.http.post(path(model_id, "rollback"), json={"to_version": 1}, headers=stale),
    ):
        assert problem(refused, 412, "precondition-failed")["current_version"] == 2
    await api.delete(model_id)
    refused = await api.http.post(path(model_id, "restore"), headers=stale)
    assert problem(refused, 412, "precondition-failed")["current_version"] == 3
    restored = await api.http.post(path(model_id, "restore"), headers={"If-Match": '"3"'})
    assert restored.json()["version"] == 4


async def test_of_twenty_changes_that_saw_the_same_version_exactly_one_wins(api: Api) -> None:
    model_id = await api.create()
    seen = {"If-Match": '"1"'}
    answers = await asyncio.gather(*(api.update(model_id, seen, max_tokens=n + 1) for n in range(20)))
    [won] = [answer for answer in answers if answer.status_code == 200]
    lost = [problem(answer, 412, "precondition-failed") for answer in answers if answer is not won]
    assert {told["current_version"] for told in lost} == {2}
    assert won.json()["version"] == (await api.read(model_id)).json()["version"] == 2
    assert len(await api.history(model_id)) == 2


async def test_an_installation_can_require_the_condition(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    setting = {"MODEL_LEDGER_REQUIRE_IF_MATCH": "true"}
    with running(databases, database, upstream, workers=1, **setting) as service:
        async with service.api() as api:
            model_id = await api.create()
            before = await api.position()
            for refused in (
                await api.update(model_id, max_tokens=1),
                await api.patch(model_id, max_tokens=1),
                await api.delete(model_id),
                await api.roll_back(model_id, 1),
                await put_default(api, model_id),
            ):
                problem(refused, 428, "precondition-required")
            assert await api.position() == before
            assert (await api.roll_back(model_id, 1, dry_run=True)).status_code == 200
            assert (await api.update(model_id, {"If-Match": '"1"'}, max_tokens=1)).status_code == 200
            assert (await api.patch(model_id, {"If-Match": "*"}, max_tokens=2)).status_code == 200


# Patches.


async def test_a_merge_patch_changes_some_fields_and_leaves_the_others(api: Api) -> None:
    model_id = await api.create(description="kept", max_retries=4)
    answer = await api.patch(model_id, max_tokens=1)
    assert (answer.status_code, answer.json()["status"], answer.json()["version"]) == (200, "updated", 2)
    model = (await api.read(model_id)).json()
    assert (model["max_tokens"], model["description"], model["max_retries"]) == (1, "kept", 4)


async def test_null_in_a_merge_patch_removes_a_field(api: Api) -> None:
    model_id = await api.create(description="gone", max_retries=4)
    await api.patch(model_id, description=None, max_retries=None)
    model = (await api.read(model_id)).json()
    assert model["description"] == ""
    assert "max_retries" not in model
    told = problem(await api.patch(model_id, name=None), 400, "invalid-input")
    assert [(error["pointer"], error["code"]) for error in told["errors"]] == [("/name", "required")]


async def test_a_patch_that_changes_nothing_records_nothing(api: Api) -> None:
    model_id = await api.create()
    before = await api.position()
    for answer in (
        await api.patch(model_id),
        await api.patch(model_id, name="A model"),
        await api.http.patch(path(model_id), json=[], headers=JSON_PATCH),
    ):
        assert (answer.status_code, answer.json()["status"]) == (200, "unchanged")
    assert await api.position() == before


async def test_a_patch_is_held_to_the_rules_of_the_whole(api: Api) -> None:
    model_id = await api.create()
    before = await api.position()
    told = problem(
        await api.patch(model_id, base_timeout=9_000, max_tokens=0, color="red"), 400, "invalid-input"
    )
    pointers = {error["pointer"] for error in told["errors"]}
    assert pointers == {"/base_timeout", "/max_tokens", "/color"}
    assert await api.position() == before


async def test_a_json_patch_applies_its_operations_in_order(api: Api) -> None:
    model_id = await api.create(description="old", max_tokens=1)
    operations = [
        {"op": "test", "path": "/max_tokens", "value": 1},
        {"op": "replace", "path": "/max_tokens", "value": 2},
        {"op": "copy", "from": "/name", "path": "/description"},
        {"op": "add", "path": "/max_retries", "value": 0},
        {"op": "remove", "path": "/enabled"},
    ]
    answer = await api.http.patch(path(model_id), json=operations, headers=JSON_PATCH)
    assert (answer.status_code, answer.json()["status"]) == (200, "updated")
    model = (await api.read(model_id)).json()
    assert (model["max_tokens"], model["description"]) == (2, "A model")
    assert (model["max_retries"], model["enabled"]) == (0, True)


@pytest.mark.parametrize(
    "failing",
    [
        {"op": "test", "path": "/max_tokens", "value": 99},
        {"op": "test", "path": "/max_retries", "value": 1},
        {"op": "remove", "path": "/max_retries"},
        {"op": "replace", "path": "/no/such/field", "value": 1},
        {"op": "replace", "path": "", "value": [1]},
        {"op": "remove", "path": ""},
        {"op": "add", "path": "/name/0", "value": "x"},
        {"op": "add", "path": "/name/first/of", "value": "x"},
        {"op": "move", "from": "/nowhere", "path": "/name"},
        {"op": "add", "path": "/name"},
        {"op": "copy", "from": 1, "path": "/name"},
    ],
)
async def test_a_json_patch_that_does_not_apply_changes_nothing(api: Api, failing: dict[str, Any]) -> None:
    model_id = await api.create()
    before = await api.position()
    operations = [{"op": "replace", "path": "/max_tokens", "value": 1}, failing]
    answer = await api.http.patch(path(model_id), json=operations, headers=JSON_PATCH)
    problem(answer, 409, "patch-refused")
    assert await api.position() == before


@pytest.mark.parametrize(
    "document",
    [
        {"op": "remove", "path": "/name"},
        [1],
        ["remove"],
        [{}],
        [{"op": "obliterate", "path": "/name"}],
        [{"op": "add", "path": "name", "value": "x"}],
        [{"op": "add", "path": 1, "value": "x"}],
        [{"op": ["add"], "path": "/name", "value": "x"}],
        [{"op": "add", "path": "/~9", "value": "x"}],
    ],
)
async def test_what_is_no_json_patch_is_refused(api: Api, document: Any) -> None:
    answer = await api.http.patch(path("first"), json=document, headers=JSON_PATCH)
    problem(answer, 400, "invalid-input")


async def test_other_media_types_are_told_which_patches_are_accepted(api: Api) -> None:
    for content_type in ("application/json", "text/plain", ""):
        headers = {"Content-Type": content_type}
        answer = await api.http.patch(path("first"), content=b"{}", headers=headers)
        problem(answer, 415, "unsupported-media-type")
        accepted = {text.strip() for text in answer.headers["accept-patch"].split(",")}
        assert accepted == {"application/merge-patch+json", "application/json-patch+json"}


async def test_patches_of_different_fields_at_once_lose_nothing(api: Api) -> None:
    model_id = await api.create()
    changes: dict[str, Any] = {
        "name": "New",
        "max_tokens": 7,
        "supports_streaming": False,
        "supports_temperature": False,
        "api_version": "v1",
        "description": "d",
        "max_retries": 1,
        "reasoning": True,
    }
    answers = await asyncio.gather(*(api.patch(model_id, **{field: changes[field]}) for field in changes))
    assert [answer.status_code for answer in answers] == [200] * len(changes)
    model = (await api.read(model_id)).json()
    assert {field: model[field] for field in changes} == changes


# The default pointer.


async def test_the_default_is_read_and_set(api: Api) -> None:
    model_id = await api.create()
    answer = await put_default(api, model_id)
    try:
        assert answer.status_code == 200
        receipt = answer.json()
        assert (receipt["status"], receipt["model_id"]) == ("updated", model_id)
        read = await api.http.get(DEFAULT)
        assert read.json() == {key: receipt[key] for key in ("model_id", "version", "position")}
        assert read.headers["etag"] == answer.headers["etag"] == f'"{receipt["version"]}"'
        again = (await put_default(api, model_id)).json()
        assert (again["status"], again["version"]) == ("unchanged", receipt["version"])
    finally:
        await put_default(api, "first")


async def test_only_a_live_enabled_model_can_be_the_default(api: Api) -> None:
    before = await api.position()
    problem(await put_default(api, api.new_id()), 404, "model-not-found")
    disabled = await api.create(enabled=False)
    told = problem(await put_default(api, disabled), 400, "invalid-input")
    assert told["errors"][0]["pointer"] == "/model_id"
    assert await api.position() == before + 1  # the disabled one


async def test_a_stale_change_of_the_default_is_told_which_one_it_is_now(api: Api) -> None:
    seen = (await api.http.get(DEFAULT)).headers["etag"]
    model_id = await api.create()
    await put_default(api, model_id)
    try:
        told = problem(await put_default(api, "first", **{"If-Match": seen}), 412, "precondition-failed")
        assert told["detail"].startswith("the default is at version")
        assert told["current"] == {"model_id": model_id}
        assert told["changed_fields"] == ["model_id"]
        assert f'"{told["current_version"]}"' == (await api.http.get(DEFAULT)).headers["etag"]
    finally:
        await put_default(api, "first")


async def test_without_a_default_the_last_model_can_go_and_the_next_one_becomes_it(
    fresh_service: Service,
) -> None:
    async with fresh_service.api() as api:
        assert (await api.http.get(DEFAULT)).json()["model_id"] == "first"
        assert (await put_default(api, None)).json()["model_id"] is None
        assert (await api.http.get(DEFAULT)).json()["model_id"] is None
        assert (await api.delete("first")).status_code == 200
        assert (await api.http.get("/api/config/models")).json() == {}
        receipt = (await api.http.post(path("next"), json=api.config())).json()
        assert (await api.http.get(DEFAULT)).json()["model_id"] == "next"
        # One append: the pointer's event stands right before the model's.
        page = await api.http.get("/api/config/events", params={"limit": 2})
        assert [entry["type"] for entry in page.json()["data"]] == ["model.created", "default.changed"]
        assert page.json()["data"][0]["position"] == receipt["position"]
        # A choice of none holds while other models live.
        await put_default(api, None)
        await api.create("third")
        assert (await api.http.get(DEFAULT)).json()["model_id"] is None
