"""Aliases and fallbacks over REST: how they change, what is refused, and who wins a race."""

import asyncio
import json
from typing import Any

import httpx2
import jsonpatch
import pytest
from service import Api, path

JSON_PATCH = {"Content-Type": "application/json-patch+json"}


def told(answer: httpx2.Response) -> dict[str, str]:
    """The broken rules, each told as `/pointer code`, with what is said of it."""
    assert answer.status_code == 400, answer.text
    return {
        f"{problem['pointer']} {problem['code']}": problem["detail"] for problem in answer.json()["errors"]
    }


async def json_patch(api: Api, model_id: str, *operations: dict[str, Any]) -> httpx2.Response:
    return await api.http.patch(path(model_id), json=operations, headers=JSON_PATCH)


async def restore(api: Api, model_id: str, **body: Any) -> httpx2.Response:
    return await api.http.post(path(model_id, "restore"), json=body)


async def with_past(api: Api, **lists: list[str]) -> str:
    """A model that had these lists in version 1, and has none in version 2."""
    model_id = await api.create(**lists)
    assert (await api.update(model_id)).status_code == 200
    return model_id


async def deleted(api: Api, model_id: str) -> str:
    assert (await api.delete(model_id)).status_code == 200
    return model_id


async def ways_to_save(api: Api, **lists: list[str]) -> dict[str, httpx2.Response]:
    """What becomes of a configuration with these lists, on every way to save it."""
    gone = await deleted(api, await with_past(api))
    return {
        "create": await api.http.post(path(api.new_id()), json=api.config(**lists)),
        "create again": await api.http.post(path(gone), json=api.config(**lists)),
        "update": await api.update(await api.create(), **lists),
        "merge patch": await api.patch(await api.create(), **lists),
        "json patch": await json_patch(
            api,
            await api.create(),
            *({"op": "add", "path": f"/{name}", "value": lists[name]} for name in lists),
        ),
    }


# Lists among the other fields


async def test_lists_are_kept_as_they_were_sent_and_left_out_where_they_were_not(api: Api) -> None:
    other, plain = await api.create(), await api.create()
    sent = {"aliases": [f"{other}/b", f"{other}:a"], "fallbacks": [plain, other]}
    model_id = await api.create(**sent)
    model = (await api.read(model_id)).json()
    assert {name: model[name] for name in sent} == sent
    assert not sent.keys() & (await api.read(plain)).json().keys()
    listed = (await api.http.get("/api/config/models")).json()
    assert listed[model_id]["aliases"] == sent["aliases"]


async def test_a_list_is_patched_as_a_whole_or_item_by_item(api: Api) -> None:
    model_id = await api.create()
    first, second, third = (f"{model_id}/{name}" for name in "abc")
    assert (await api.patch(model_id, aliases=[first, second])).status_code == 200
    answer = await json_patch(
        api,
        model_id,
        {"op": "test", "path": "/aliases/1", "value": second},
        {"op": "remove", "path": "/aliases/0"},
        {"op": "add", "path": "/aliases/-", "value": third},
    )
    assert answer.status_code == 200
    assert (await api.read(model_id)).json()["aliases"] == [second, third]
    assert (await api.patch(model_id, aliases=None)).status_code == 200
    assert "aliases" not in (await api.read(model_id)).json()


async def test_the_same_lists_again_change_nothing_and_another_order_does(api: Api) -> None:
    model_id = await api.create(aliases=(sent := [api.new_id(), api.new_id()]))
    assert (await api.update(model_id, aliases=sent)).json()["status"] == "unchanged"
    assert (await api.update(model_id, aliases=sent[::-1])).json()["status"] == "updated"


async def test_what_became_of_a_list_is_told_wherever_changes_are(api: Api) -> None:
    old, new = [api.new_id()], [api.new_id(), api.new_id()]
    model_id = await api.create(aliases=old, description="first")
    await api.update(model_id, aliases=new, description="first")
    changed = {"field": "aliases", "op": "changed", "old": old, "new": new}
    newest, oldest = await api.history(model_id)
    assert newest["changes"] == [changed]
    assert {"field": "aliases", "op": "added", "new": old} in oldest["changes"]
    assert (newest["config"]["aliases"], oldest["config"]["aliases"]) == (new, old)

    diff = (await api.http.get(path(model_id, "diff"), params={"from": 1, "to": 2})).json()
    assert diff["changes"] == [changed]
    assert diff["patch"] == [{"op": "replace", "path": "/aliases", "value": new}]
    assert jsonpatch.apply_patch(oldest["config"], diff["patch"]) == newest["config"]

    blame = (await api.http.get(path(model_id, "blame"))).json()
    assert (blame["aliases"]["version"], blame["description"]["version"]) == (2, 1)

    lines = await api.http.get("/api/config/events", params={"model": model_id, "format": "jsonl"})
    assert json.loads(lines.text.splitlines()[0])["changes"] == [changed]

    events = {"after": newest["position"] - 1}
    async with api.http.stream("GET", "/api/config/events/stream", params=events) as stream:
        data = [line async for line in first_data(stream)]
    assert data[0]["changes"] == [changed]


async def first_data(stream: httpx2.Response) -> Any:
    async for line in stream.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
            return


async def test_a_rollback_brings_a_list_back_and_its_preview_says_so(api: Api) -> None:
    model_id = await with_past(api, aliases=(names := [api.new_id()]))
    preview = (await api.roll_back(model_id, 1, dry_run=True)).json()
    assert preview["changes"] == [{"field": "aliases", "op": "added", "new": names}]
    assert preview["problems"] == []
    assert (await api.roll_back(model_id, 1)).json()["status"] == "rolled_back"
    assert (await api.read(model_id)).json()["aliases"] == names
    assert (await api.read(model_id, version=2)).json().get("aliases") is None


async def test_a_stale_change_is_told_what_a_list_is_now(api: Api) -> None:
    model_id = await api.create()
    await api.patch(model_id, aliases=(names := [api.new_id()]))
    stale = await api.update(model_id, headers={"If-Match": '"1"'}, max_tokens=1)
    assert stale.status_code == 412
    assert stale.json()["changed_fields"] == ["aliases"]
    assert stale.json()["current"]["aliases"] == names


# Names


async def test_a_name_of_another_model_is_refused_on_every_way_to_save(api: Api) -> None:
    alias = f"{api.new_id()}/x"
    owner = await api.create(aliases=[alias])
    wrong = {
        "/aliases/1 name_taken": f"'{owner}' is the id of another model",
        "/aliases/2 name_taken": f"'{alias}' is an alias of model '{owner}'",
    }
    for way, answer in (await ways_to_save(api, aliases=[api.new_id(), owner, alias])).items():
        assert told(answer) == wrong, way


async def test_the_ways_back_do_not_take_a_name_that_another_model_has_by_now(api: Api) -> None:
    alias = api.new_id()
    model_id = await with_past(api, aliases=[alias])
    owner = await api.create(aliases=[alias])
    wrong = {"/aliases/0 name_taken": f"'{alias}' is an alias of model '{owner}'"}
    preview = (await api.roll_back(model_id, 1, dry_run=True)).json()
    assert [problem["detail"] for problem in preview["problems"]] == [*wrong.values()]
    assert told(await api.roll_back(model_id, 1)) == wrong
    await deleted(api, model_id)
    assert told(await restore(api, model_id, to_version=1)) == wrong
    await deleted(api, owner)
    assert (await restore(api, model_id, to_version=1)).status_code == 200
    assert told(await restore(api, owner)) == {
        "/aliases/0 name_taken": f"'{alias}' is an alias of model '{model_id}'"
    }


async def test_an_id_that_is_an_alias_by_now_is_neither_created_nor_restored(api: Api) -> None:
    gone, never = await deleted(api, await api.create()), api.new_id()
    owner = await api.create(aliases=[gone, never])
    for answer, name in (
        (await restore(api, gone), gone),
        (await api.http.post(path(gone), json=api.config()), gone),
        (await api.http.post(path(never), json=api.config()), never),
    ):
        assert told(answer) == {"/model_id name_taken": f"'{name}' is an alias of model '{owner}'"}
    await api.patch(owner, aliases=[never])
    assert (await restore(api, gone)).status_code == 200


async def test_of_many_who_claim_a_name_at_once_one_gets_it_and_the_others_are_told_who(api: Api) -> None:
    alias = api.new_id()
    live = [await api.create() for _ in range(6)]
    new = [api.new_id() for _ in range(6)]
    claims = [
        *(api.patch(model_id, aliases=[alias]) for model_id in live),
        *(api.http.post(path(model_id), json=api.config(aliases=[alias])) for model_id in new),
        api.http.post(path(alias), json=api.config()),
    ]
    answers = dict(zip([*live, *new, alias], await asyncio.gather(*claims), strict=True))
    (winner,) = [model_id for model_id, answer in answers.items() if answer.status_code in {200, 201}]
    owners = {f"'{alias}' is an alias of model '{winner}'", f"'{alias}' is the id of another model"}
    for model_id, answer in answers.items():
        if model_id != winner:
            assert owners.issuperset(told(answer).values())
    models = (await api.http.get("/api/config/models")).json()
    assert [each for each, model in models.items() if each == alias or alias in model.get("aliases", [])] == [
        winner
    ]


async def test_a_name_changes_hands_many_times_and_never_has_two_owners(api: Api) -> None:
    alias = api.new_id()
    models = [await api.create() for _ in range(4)]
    outcomes: list[int] = []

    async def grab_and_let_go(model_id: str) -> None:
        for _ in range(5):
            claimed = await api.patch(model_id, aliases=[alias])
            outcomes.append(claimed.status_code)
            if claimed.status_code == 200:
                assert (await api.patch(model_id, aliases=[])).status_code == 200
            else:
                assert [*told(claimed)] == ["/aliases/0 name_taken"]

    await asyncio.gather(*map(grab_and_let_go, models))
    assert outcomes.count(200) >= len(models)
    owned: set[str] = set()
    for entry in reversed(await entries_of(api, models)):
        if alias in entry["config"].get("aliases", []):
            owned.add(entry["model_id"])
        else:
            owned.discard(entry["model_id"])
        assert len(owned) <= 1


async def entries_of(api: Api, models: list[str]) -> list[dict[str, Any]]:
    """What was recorded of these models, newest first."""
    entries = [entry for model_id in models for entry in await api.history(model_id)]
    return sorted(entries, key=lambda entry: -int(entry["position"]))


# Fallbacks


async def test_a_fallback_that_is_not_live_is_refused_where_it_is_newly_named(api: Api) -> None:
    live, gone, alias = await api.create(), await deleted(api, await api.create()), api.new_id()
    await api.create(aliases=[alias])
    for way, answer in (await ways_to_save(api, fallbacks=[live, gone, alias])).items():
        assert [*told(answer)] == ["/fallbacks/1 unknown_model", "/fallbacks/2 unknown_model"], way
        assert gone in answer.text, way


async def test_a_fallback_may_go_and_is_brought_back_by_what_named_it(api: Api) -> None:
    other = await api.create()
    model_id = await api.create(fallbacks=[other])
    await deleted(api, other)
    assert (await api.update(model_id, fallbacks=[other], max_tokens=1)).status_code == 200
    assert (await api.update(model_id)).status_code == 200
    assert (await api.roll_back(model_id, 1, dry_run=True)).json()["problems"] == []
    assert (await api.roll_back(model_id, 1)).status_code == 200
    await deleted(api, model_id)
    assert (await restore(api, model_id)).status_code == 200
    assert (await api.read(model_id)).json()["fallbacks"] == [other]


async def test_a_loop_is_refused_on_every_way_back_to_it(api: Api) -> None:
    first, third = await api.create(), await api.create()
    second = await api.create(fallbacks=[third])
    await api.patch(first, fallbacks=[second])
    loop = {"/fallbacks/0 fallback_loop": f"a loop: {third} -> {first} -> {second} -> {third}"}
    assert told(await api.update(third, fallbacks=[first])) == loop
    assert told(await api.patch(third, fallbacks=[first])) == loop
    assert told(await api.patch(third, fallbacks=[third])) == {
        "/fallbacks/0 fallback_loop": f"a loop: {third} -> {third}"
    }
    await api.patch(first, fallbacks=None)
    await api.patch(third, fallbacks=[first])
    await api.patch(third, fallbacks=None)
    await api.patch(first, fallbacks=[second])
    assert (await api.roll_back(third, 2, dry_run=True)).json()["problems"][0]["detail"] in loop.values()
    assert told(await api.roll_back(third, 2)) == loop
    await deleted(api, third)
    assert told(await restore(api, third, to_version=2)) == loop
    assert told(await api.http.post(path(third), json=api.config(fallbacks=[first]))) == loop


async def test_of_edges_that_make_a_ring_together_at_least_one_is_refused(api: Api) -> None:
    ring = [await api.create() for _ in range(5)]
    for _ in range(3):
        edges = zip(ring, [*ring[1:], ring[0]], strict=True)
        answers = await asyncio.gather(*(api.patch(model_id, fallbacks=[to]) for model_id, to in edges))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(refused) == 1
        assert [*told(refused[0])] == ["/fallbacks/0 fallback_loop"]
        assert all(model_id in refused[0].text for model_id in ring)
        for model_id in ring:
            assert (await api.patch(model_id, fallbacks=None)).status_code == 200


# What callers see


async def test_a_model_is_called_by_its_alias_and_soon_by_whoever_gets_it_next(api: Api) -> None:
    first, second, alias = await api.create(), await api.create(), f"{api.new_id()}/large:8b"
    for owner, other in ((first, second), (second, first)):
        await api.patch(other, aliases=[])
        await api.patch(owner, aliases=[alias])
        async with asyncio.timeout(10):
            while (await api.chat(alias)).headers.get("x-model-ledger-model") != owner:
                pass
            while not {alias, first, second} <= {*(listed := await callable_names(api))}:
                pass
        assert listed == sorted(listed)


async def callable_names(api: Api) -> list[str]:
    return [card["id"] for card in (await api.http.get("/v1/models")).json()["data"]]


@pytest.mark.parametrize(
    "lists", [{"aliases": [f"a{number}" for number in range(21)]}, {"fallbacks": ["a"] * 11}]
)
async def test_a_list_that_is_too_long_is_told_with_its_limit(api: Api, lists: dict[str, list[str]]) -> None:
    answer = await api.http.post(path(api.new_id()), json=api.config(**lists))
    (field,) = lists
    assert [*told(answer)] == [f"/{field} invalid_value"]
