"""A model's past, and the ways back: history, difference, blame, rollback, restore."""

import asyncio
from datetime import datetime
from typing import Any

import asyncpg
import httpx2
import jsonpatch
import pytest
from service import Api, Databases, Service, path

from application.ledger import Ledger
from application.ports import Context
from domain.configuration import ModelConfig
from domain.model import CreateModel
from domain.values import SYSTEM, ModelId, Origin
from infrastructure.database import Database
from infrastructure.event_store import PostgresEventStore

ENTRY = {
    "position",
    "model_id",
    "version",
    "type",
    "actor",
    "source",
    "at",
    "reason",
    "request_id",
    "changes",
    "config",
    "hash",
}


async def with_past(api: Api, *tokens: int) -> str:
    """A model that had each of these limits, in versions 1, 2..."""
    first, *others = tokens
    model_id = await api.create(max_tokens=first)
    for number in others:
        assert (await api.update(model_id, max_tokens=number)).status_code == 200
    return model_id


async def restore(api: Api, model_id: str, **body: Any) -> httpx2.Response:
    return await api.http.post(path(model_id, "restore"), json=body)


async def pages(api: Api, url: str, **query: Any) -> list[list[dict[str, Any]]]:
    """All pages, each found by the link on the one before; the cursor says the same."""
    answer = await api.http.get(url, params=query)
    found = []
    while True:
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found.append(page["data"])
        link = answer.headers.get("link")
        if link is None:
            assert page["next_cursor"] is None
            return found
        target, relation = link.split("; ")
        assert relation == 'rel="next"'
        assert f"cursor={page['next_cursor']}" in target
        answer = await api.http.get(target.strip("<>"))


# History.


async def test_the_history_tells_every_version_newest_first(api: Api) -> None:
    model_id = await api.create()
    await api.update(model_id, max_tokens=1)
    await api.patch(model_id, description="d")
    await api.delete(model_id)
    await restore(api, model_id)
    await api.roll_back(model_id, 1)
    entries = await api.history(model_id)
    assert [entry["type"] for entry in entries] == [
        "model.rolled_back",
        "model.restored",
        "model.deleted",
        "model.updated",
        "model.updated",
        "model.created",
    ]
    assert [entry["version"] for entry in entries] == [6, 5, 4, 3, 2, 1]
    positions = [entry["position"] for entry in entries]
    assert positions == sorted(positions, reverse=True)
    assert {entry["model_id"] for entry in entries} == {model_id}


async def test_an_entry_tells_who_when_how_why_and_what(api: Api) -> None:
    model_id = await api.create(max_tokens=1, description="old")
    headers = {"X-Request-ID": "my-request.1", "X-Change-Reason": "o1 runs out of time"}
    receipt = (await api.update(model_id, headers=headers, max_tokens=2, max_retries=0)).json()
    updated, created = await api.history(model_id)
    assert updated.keys() == created.keys() == ENTRY
    assert updated["actor"] == {"id": "token:administrator", "name": "administrator", "kind": "token"}
    assert (updated["source"], updated["request_id"]) == ("api", "my-request.1")
    assert (updated["reason"], created["reason"]) == ("o1 runs out of time", None)
    assert (updated["position"], updated["hash"]) == (receipt["position"], receipt["hash"])
    assert datetime.fromisoformat(created["at"]) < datetime.fromisoformat(updated["at"])
    assert updated["changes"] == [
        {"field": "max_tokens", "op": "changed", "old": 1, "new": 2},
        {"field": "description", "op": "changed", "old": "old", "new": ""},
        {"field": "max_retries", "op": "added", "new": 0},
    ]
    assert (updated["config"]["max_tokens"], created["config"]["max_tokens"]) == (2, 1)
    assert {change["op"] for change in created["changes"]} == {"added"}
    assert {change["field"] for change in created["changes"]} == created["config"].keys()


async def test_a_removed_field_is_told_with_its_old_value_alone(api: Api) -> None:
    model_id = await api.create(max_retries=3)
    await api.patch(model_id, max_retries=None)
    assert (await api.history(model_id))[0]["changes"] == [
        {"field": "max_retries", "op": "removed", "old": 3}
    ]


async def test_a_deletion_changes_no_field_and_keeps_the_last_configuration(api: Api) -> None:
    model_id = await with_past(api, 1, 2)
    await api.delete(model_id)
    deleted = (await api.history(model_id))[0]
    assert (deleted["type"], deleted["changes"], deleted["config"]["max_tokens"]) == ("model.deleted", [], 2)


async def test_what_is_created_anew_owes_nothing_to_what_had_its_id(api: Api) -> None:
    model_id = await with_past(api, 1)
    await api.delete(model_id)
    await api.create(model_id, max_tokens=1)
    created = (await api.history(model_id))[0]
    assert (created["version"], {change["op"] for change in created["changes"]}) == (3, {"added"})


async def test_the_pages_of_a_history_hold_every_entry_once(api: Api) -> None:
    model_id = await with_past(api, *range(1, 8))
    found = await pages(api, path(model_id, "history"), limit=3)
    assert [[entry["version"] for entry in page] for page in found] == [[7, 6, 5], [4, 3, 2], [1]]
    assert len(await pages(api, path(model_id, "history"), limit=7)) == 1
    assert [entry for page in found for entry in page] == await api.history(model_id)


async def test_the_pages_stay_as_they_are_while_others_write(api: Api) -> None:
    model_id = await with_past(api, *range(1, 6))
    first = (await api.http.get(path(model_id, "history"), params={"limit": 2})).json()
    await api.update(model_id, max_tokens=99)
    query = {"limit": 2, "cursor": first["next_cursor"]}
    second = (await api.http.get(path(model_id, "history"), params=query)).json()
    assert [entry["version"] for entry in (*first["data"], *second["data"])] == [5, 4, 3, 2]


async def test_a_cursor_beyond_the_end_finds_an_empty_page(api: Api) -> None:
    model_id = await with_past(api, 1)
    for cursor in ("0", "1"):
        answer = await api.http.get(path(model_id, "history"), params={"cursor": cursor})
        assert answer.json() == {"data": [], "next_cursor": None}
    answer = await api.http.get(path(model_id, "history"), params={"cursor": "9" * 18})
    assert [entry["version"] for entry in answer.json()["data"]] == [1]


# Difference and blame.


async def test_the_difference_of_two_versions_is_told_as_changes_and_as_a_json_patch(api: Api) -> None:
    model_id = await api.create(description="a/b~c", max_retries=1)
    await api.patch(model_id, max_tokens=1, max_retries=None, reasoning=True)
    await api.patch(model_id, description=None)
    await api.delete(model_id)
    for old, new in ((1, 3), (3, 1), (1, 4), (2, 3)):
        answer = await api.http.get(path(model_id, "diff"), params={"from": old, "to": new})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["model_id"], told["from_version"], told["to_version"]) == (model_id, old, new)
        configs = {entry["version"]: entry["config"] for entry in await api.history(model_id)}
        assert jsonpatch.apply_patch(configs[old], told["patch"]) == configs[new]
        assert [f"/{change['field']}" for change in told["changes"]] == [
            operation["path"] for operation in told["patch"]
        ]


async def test_the_json_patch_of_a_difference_can_be_sent_back(api: Api) -> None:
    model_id = await api.create(max_retries=1)
    await api.patch(model_id, max_tokens=1, max_retries=None, reasoning=True)
    told = (await api.http.get(path(model_id, "diff"), params={"from": 2, "to": 1})).json()
    headers = {"Content-Type": "application/json-patch+json"}
    answer = await api.http.patch(path(model_id), json=told["patch"], headers=headers)
    assert answer.json()["version"] == 3
    newest, _, first = await api.history(model_id)
    assert newest["config"] == first["config"]


async def test_a_version_does_not_differ_from_itself(api: Api) -> None:
    model_id = await with_past(api, 1)
    told = (await api.http.get(path(model_id, "diff"), params={"from": 1, "to": 1})).json()
    assert (told["changes"], told["patch"]) == ([], [])


async def test_blame_names_for_each_field_the_change_that_made_it_so(api: Api) -> None:
    model_id = await api.create(max_tokens=1, max_retries=1)
    await api.patch(model_id, {"X-Change-Reason": "cheaper"}, max_tokens=2)
    await api.patch(model_id, max_retries=None)
    blame = (await api.http.get(path(model_id, "blame"))).json()
    newest, cheaper, created = await api.history(model_id)
    assert blame.keys() == newest["config"].keys()
    told = {"version": 2, "actor": cheaper["actor"], "at": cheaper["at"], "reason": "cheaper"}
    assert blame["max_tokens"] == told
    assert {field["version"] for name, field in blame.items() if name != "max_tokens"} == {1}
    assert blame["name"]["at"] == created["at"]


async def test_blame_begins_anew_with_a_new_creation_and_outlives_a_deletion(api: Api) -> None:
    model_id = await with_past(api, 1, 2)
    await api.delete(model_id)
    blame = (await api.http.get(path(model_id, "blame"))).json()
    assert (blame["max_tokens"]["version"], blame["name"]["version"]) == (2, 1)
    await api.create(model_id, max_tokens=2)
    blame = (await api.http.get(path(model_id, "blame"))).json()
    assert {field["version"] for field in blame.values()} == {4}


async def test_a_rollback_is_to_blame_for_what_it_brought_back(api: Api) -> None:
    model_id = await with_past(api, 1, 2)
    await api.roll_back(model_id, 1)
    blame = (await api.http.get(path(model_id, "blame"))).json()
    assert (blame["max_tokens"]["version"], blame["name"]["version"]) == (3, 1)


# Rollback.


async def test_a_rollback_brings_an_old_configuration_back_as_a_new_version(api: Api) -> None:
    model_id = await with_past(api, 1, 2, 3)
    answer = await api.roll_back(model_id, 1, reason="too dear")
    assert answer.status_code == 200
    receipt = answer.json()
    assert (receipt["status"], receipt["model_id"], receipt["version"]) == ("rolled_back", model_id, 4)
    entries = await api.history(model_id)
    assert entries[0]["config"] == entries[3]["config"] == {**entries[1]["config"], "max_tokens": 1}
    assert (entries[0]["reason"], entries[0]["to_version"]) == ("too dear", 1)
    assert [entry["config"]["max_tokens"] for entry in entries] == [1, 3, 2, 1]


async def test_a_preview_tells_what_a_rollback_would_do_and_records_nothing(api: Api) -> None:
    model_id = await api.create(max_tokens=1, max_retries=1, credential=None)
    await api.update(model_id, max_tokens=2, reasoning=False)
    before = await api.position()
    answer = await api.roll_back(model_id, 1, dry_run=True)
    assert answer.status_code == 200
    assert answer.json() == {
        "model_id": model_id,
        "from_version": 2,
        "to_version": 1,
        "changes": [
            {"field": "max_tokens", "op": "changed", "old": 2, "new": 1},
            {"field": "max_retries", "op": "added", "new": 1},
            {"field": "reasoning", "op": "removed", "old": False},
        ],
        "stays": [{"field": "credential", "op": "changed", "old": "environment", "new": None}],
        "problems": [],
    }
    assert await api.position() == before
    assert (await api.read(model_id)).json()["version"] == 2


async def test_a_rollback_does_what_its_preview_told(api: Api) -> None:
    model_id = await api.create(max_tokens=1, description="d", max_retries=1)
    await api.update(model_id, max_tokens=2)
    told = (await api.roll_back(model_id, 1, dry_run=True)).json()["changes"]
    await api.roll_back(model_id, 1)
    assert (await api.history(model_id))[0]["changes"] == told


async def test_the_credential_of_today_stays_unless_the_old_one_is_asked_for(api: Api) -> None:
    model_id = await api.create(max_tokens=1, credential=None)
    await api.update(model_id, max_tokens=2)
    await api.roll_back(model_id, 1)
    kept = (await api.read(model_id)).json()
    assert (kept["max_tokens"], kept["credential"]) == (1, "environment")
    preview = (await api.roll_back(model_id, 1, credential="target", dry_run=True)).json()
    assert preview["stays"] == []
    assert [change["field"] for change in preview["changes"]] == ["credential"]
    await api.roll_back(model_id, 1, credential="target")
    assert (await api.read(model_id)).json()["credential"] is None


async def test_a_rollback_to_what_is_there_already_records_nothing(api: Api) -> None:
    model_id = await with_past(api, 1, 2, 1)
    before = await api.position()
    for version in (1, 3):
        receipt = (await api.roll_back(model_id, version)).json()
        assert (receipt["status"], receipt["version"]) == ("unchanged", 3)
        preview = (await api.roll_back(model_id, version, dry_run=True)).json()
        assert (preview["changes"], preview["problems"]) == ([], [])
    assert await api.position() == before


async def test_a_rollback_can_itself_be_rolled_back(api: Api) -> None:
    model_id = await with_past(api, 1, 2)
    await api.roll_back(model_id, 1)
    receipt = (await api.roll_back(model_id, 2)).json()
    assert (receipt["status"], receipt["version"]) == ("rolled_back", 4)
    assert (await api.read(model_id)).json()["max_tokens"] == 2


@pytest.mark.parametrize("version", [0, -1, 9, 2**31, 2**63 - 1, 10**30])
async def test_a_version_that_does_not_exist_cannot_come_back(api: Api, version: int) -> None:
    model_id = await with_past(api, 1, 2)
    before = await api.position()
    await api.delete(model_id)
    refused = [await restore(api, model_id, to_version=version)]
    await restore(api, model_id)
    refused += [
        await api.roll_back(model_id, version),
        await api.roll_back(model_id, version, dry_run=True),
    ]
    for answer in refused:
        assert answer.status_code == 404, answer.text
        assert answer.json()["type"] == "urn:model-ledger:problem:version-not-found"
    assert await api.position() == before + 2


async def test_a_deleted_model_is_restored_not_rolled_back(api: Api) -> None:
    model_id = await with_past(api, 1, 2)
    await api.delete(model_id)
    for dry_run in (False, True):
        assert (await api.roll_back(model_id, 1, dry_run=dry_run)).status_code == 404


async def test_a_rollback_to_a_version_from_before_a_deletion_works_after_the_restore(api: Api) -> None:
    model_id = await with_past(api, 1, 2)
    await api.delete(model_id)
    await restore(api, model_id)
    receipt = (await api.roll_back(model_id, 1)).json()
    assert (receipt["status"], receipt["version"]) == ("rolled_back", 5)


async def test_rollbacks_at_once_are_recorded_one_after_another(api: Api) -> None:
    model_id = await with_past(api, 1, 2, 3)
    answers = await asyncio.gather(*(api.roll_back(model_id, 1 + n % 2) for n in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    versions = [entry["version"] for entry in await api.history(model_id)]
    assert versions == [*range(versions[0], 0, -1)]
    assert versions[0] > 3


async def test_what_todays_rules_refuse_does_not_come_back(
    fresh_service: Service, databases: Databases, database: str
) -> None:
    # A release or an installation with other rules recorded it.
    old = Origin("https://retired.openai.azure.com")
    config = ModelConfig(
        name="n",
        max_tokens=1,
        supports_streaming=True,
        supports_temperature=True,
        api_version="v1",
        azure_endpoint=old,
    )
    async with Database(databases.app_url(database)).pool(1) as pool:
        ledger = Ledger(PostgresEventStore(pool), frozenset({old}))
        await ledger.execute(CreateModel(ModelId("aged"), config), Context(SYSTEM, "system", "r"))
    async with fresh_service.api() as api:
        assert (await api.update("aged")).status_code == 200
        before = await api.position()
        preview = (await api.roll_back("aged", 1, dry_run=True)).json()
        assert [(told["pointer"], told["code"]) for told in preview["problems"]] == [
            ("/azure_endpoint", "credential_not_bound")
        ]
        assert "azure_endpoint" in {change["field"] for change in preview["changes"]}
        refused = await api.roll_back("aged", 1)
        assert refused.status_code == 400
        assert refused.json()["errors"] == preview["problems"]
        assert (await api.http.get(path("aged", "diff"), params={"from": 1, "to": 2})).status_code == 200
        assert await api.position() == before
        await api.delete("aged")
        refused = await restore(api, "aged", to_version=1)
        assert refused.json()["errors"] == preview["problems"]
        assert (await restore(api, "aged")).json()["status"] == "restored"


async def test_what_a_newer_release_recorded_is_shown_without_its_content_and_stops_nothing_else(
    fresh_service: Service, owner: asyncpg.Connection
) -> None:
    async with fresh_service.api() as api:
        await api.create("newer")
        await append_of_the_future(owner)
        entries = await api.history("newer")
        assert [(entry["type"], entry["config"]) for entry in entries[:1]] == [("model.dreamt", None)]
        at = {"at": entries[0]["position"]}
        assert "first" in (await api.http.get("/api/config/models", params=at)).json()
        for refused in (
            await api.read("newer", **at),
            await api.update("newer", max_tokens=1),
            await api.http.get(path("newer", "diff"), params={"from": 1, "to": 2}),
        ):
            assert (refused.status_code, refused.json()["type"]) == (
                503,
                "urn:model-ledger:problem:model-frozen",
            )
        assert (await api.update("first", max_tokens=1)).status_code == 200


async def append_of_the_future(owner: asyncpg.Connection) -> None:
    """Version 2 of the model `newer`, as a release writes it that knows more types of events."""
    await owner.execute(
        """
        SELECT ledger_append(
            ARRAY[gen_random_uuid()], ARRAY['model/newer'], ARRAY[2], ARRAY['model.dreamt'],
            ARRAY[1::smallint], ARRAY['{"dream": 1}'], ARRAY['salt'::bytea], 'system', 'Model Ledger', NULL,
            '{"actor_kind":"system","correlation_id":"c","request_id":"r","source":"system"}',
            ARRAY['model/newer'], ARRAY[1], ARRAY['newer'], ARRAY['{"name": "n"}'], ARRAY[false],
            NULL, NULL, NULL, NULL, '{}')
        """
    )


# Restore.


async def test_a_restored_model_comes_back_as_it_was_deleted(api: Api) -> None:
    model_id = await with_past(api, 1, 2)
    await api.delete(model_id)
    answer = await api.http.post(path(model_id, "restore"))
    assert answer.status_code == 200
    receipt = answer.json()
    assert (receipt["status"], receipt["model_id"], receipt["version"]) == ("restored", model_id, 4)
    assert answer.headers["etag"] == '"4"'
    assert (await api.read(model_id)).json()["max_tokens"] == 2
    assert (await api.history(model_id))[0]["to_version"] == 3


async def test_a_deleted_model_can_come_back_with_any_of_its_versions(api: Api) -> None:
    model_id = await with_past(api, 1, 2)
    await api.delete(model_id)
    receipt = (await restore(api, model_id, to_version=1, reason="the first one was right")).json()
    assert (receipt["status"], receipt["version"]) == ("restored", 4)
    newest = (await api.history(model_id))[0]
    assert (newest["to_version"], newest["reason"]) == (1, "the first one was right")
    assert newest["config"]["max_tokens"] == 1


async def test_what_is_live_is_not_restored_but_refused_with_400(api: Api) -> None:
    model_id = await with_past(api, 1)
    before = await api.position()
    for body in ({}, {"to_version": 1}):
        answer = await restore(api, model_id, **body)
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:model-ledger:problem:model-exists")
    assert await api.position() == before


async def test_of_ten_that_restore_at_once_one_succeeds(api: Api) -> None:
    model_id = await with_past(api, 1)
    await api.delete(model_id)
    answers = await asyncio.gather(*(restore(api, model_id) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 9


# Undo.


async def undo(api: Api, model_id: str, version: int, **more: Any) -> httpx2.Response:
    query = {"dry_run": "true"} if more.pop("dry_run", False) else {}
    headers = more.pop("headers", {})
    body = {"version": version, **more}
    return await api.http.post(path(model_id, "undo"), json=body, params=query, headers=headers)


async def test_one_change_is_taken_back_and_what_came_after_it_stays(api: Api) -> None:
    model_id = await api.create(max_tokens=1)
    await api.patch(model_id, max_tokens=2)
    await api.patch(model_id, description="later")
    answer = await undo(api, model_id, 2)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"4"')
    assert (answer.json()["status"], answer.json()["version"]) == ("updated", 4)
    newest = (await api.history(model_id))[0]
    assert newest["changes"] == [{"field": "max_tokens", "op": "changed", "old": 2, "new": 1}]
    assert (newest["config"]["description"], newest["reason"]) == ("later", "undo of version 2")
    assert (await undo(api, model_id, 4, reason="it was right")).status_code == 200
    newest = (await api.history(model_id))[0]
    assert (newest["config"]["max_tokens"], newest["reason"]) == (2, "it was right")


async def test_what_was_changed_again_since_is_told_field_by_field(api: Api) -> None:
    model_id = await with_past(api, 1, 2, 3)
    before = await api.position()
    answer = await undo(api, model_id, 2)
    told = answer.json()
    assert (answer.status_code, told["type"]) == (409, "urn:model-ledger:problem:undo-conflict")
    assert told["conflicts"] == [{"field": "max_tokens", "base": 2, "theirs": 3, "mine": 1}]
    preview = await undo(api, model_id, 2, dry_run=True)
    assert preview.json() == {
        "model_id": model_id,
        "version": 2,
        "current_version": 3,
        "changes": [],
        "conflicts": told["conflicts"],
        "problems": [],
    }
    assert await api.position() == before


async def test_an_undo_keeps_the_conditions_and_the_keys_of_every_change(api: Api) -> None:
    model_id = await with_past(api, 1, 2)
    stale = await undo(api, model_id, 2, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["current_version"]) == (412, 2)
    once = {"If-Match": '"2"', "Idempotency-Key": f"undo-{model_id}"}
    answers = [await undo(api, model_id, 2, headers=once) for _ in range(2)]
    assert answers[0].status_code == 200
    assert answers[1].json() == answers[0].json()
    assert len(await api.history(model_id)) == 3


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({}, 400, "/version"),
        ({"version": "2"}, 400, "/version"),
        ({"version": 1}, 400, "/version"),
        ({"version": 2, "to_version": 1}, 400, "/to_version"),
        ({"version": 2, "reason": "a\nb"}, 400, "/reason"),
        ({"version": 99}, 404, None),
        ({"version": 10**30}, 404, None),
    ],
)
async def test_an_undo_that_makes_no_sense_is_refused(
    api: Api, body: Any, status: int, pointer: str | None
) -> None:
    model_id = await with_past(api, 1, 2)
    answer = await api.http.post(path(model_id, "undo"), json=body)
    assert answer.status_code == status, answer.text
    assert pointer in [error["pointer"] for error in answer.json().get("errors", [{"pointer": None}])]
