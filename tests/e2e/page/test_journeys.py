"""What people come to the page for, from the first click to the ledger."""

import re
from threading import Event
from typing import Any

import pytest
from playwright.async_api import expect
from service import Service
from upstream import Reply, Status, Stream, wait_until
from visitor import Visit, Visitor

KEPT = """async text => {
    const opened = indexedDB.open("model-ledger", 1);
    const database = await new Promise(done => { opened.onsuccess = () => done(opened.result); });
    for (;;) {
        const read = database.transaction("conversations").objectStore("conversations").getAll();
        const chats = await new Promise(done => { read.onsuccess = () => done(read.result); });
        if (JSON.stringify(chats).includes(text)) return database.close();
        await new Promise(done => setTimeout(done, 20));
    }
}"""
"""Ends when the browser's own database holds a text."""

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def create(service: Service, **changes: Any) -> str:
    async with service.api() as api:
        return await api.create(**changes)


async def patch(service: Service, model_id: str, **changes: Any) -> None:
    async with service.api() as api:
        assert (await api.patch(model_id, **changes)).status_code == 200


async def read(service: Service, model_id: str) -> dict[str, Any]:
    async with service.api() as api:
        answer: dict[str, Any] = (await api.read(model_id)).json()
        return answer


async def test_a_token_signs_in_and_signing_out_ends_the_session(visit: Visit) -> None:
    visitor = await visit(signed_in=False)
    page = visitor.page

    await page.goto("/models")
    await page.get_by_label("Access token").fill(visitor.service.token)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("tab", name="Models")).to_have_attribute("aria-selected", "true")
    assert page.url.endswith("/models"), "it stays where it was asked for"

    await page.get_by_role("link", name="Settings").click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Access token")).to_be_visible()
    answer = await visitor.context.request.get("/api/session")
    assert answer.status == 401


async def test_a_wrong_token_is_refused_in_words(visit: Visit) -> None:
    visitor = await visit(signed_in=False)
    visitor.expected = ("status of 401",)
    await visitor.page.goto("/")
    await visitor.page.get_by_label("Access token").fill("mlk_" + "x" * 40)
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.page.get_by_role("alert")).not_to_be_empty()
    await expect(visitor.page.get_by_label("Access token")).to_be_focused()


async def test_a_model_is_added_and_answers_in_the_chat(visitor: Visitor) -> None:
    page, upstream = visitor.page, visitor.service.upstream
    assert upstream is not None
    model_id = "page-added"
    upstream.script(Reply("**Good** morning"), deployment=model_id)

    await visitor.open("/models")
    await visitor.main().get_by_role("link", name="Add model").click()
    await expect(page.get_by_label("Max tokens")).to_have_value("4096")
    await expect(page.get_by_label("API version")).to_have_value("2025-01-01-preview")
    await page.get_by_label("Model ID").fill(model_id)
    await page.get_by_label("Name", exact=True).fill("Added in a browser")
    await page.get_by_label("Azure endpoint").fill(upstream.origin)
    await page.get_by_role("button", name="Review and add").click()
    await visitor.dialog().get_by_label("Why?").fill("somebody asked")
    await visitor.dialog().get_by_role("button", name=f"Add {model_id}").click()
    await visitor.told("is added")

    await visitor.main().get_by_role("link", name="Chat").click()
    await visitor.ask("Hello")
    answer = visitor.answers().last
    await expect(answer.locator("strong")).to_have_text("Good")
    await expect(answer.get_by_role("link", name=f"{model_id} v1")).to_have_attribute(
        "href", f"/models/{model_id}/versions/1"
    )
    async with visitor.service.api() as api:
        [entry] = await api.history(model_id)
    assert (entry["source"], entry["reason"]) == ("ui", "somebody asked")


async def test_wrong_values_are_told_beside_their_fields_and_nothing_is_sent(visitor: Visitor) -> None:
    page = visitor.page
    model_id = await create(visitor.service)
    await visitor.open(f"/models/{model_id}/edit")
    await expect(page.get_by_label("Model ID")).not_to_be_editable()
    await page.get_by_label("Max tokens").fill("0")
    await page.get_by_role("button", name="Review changes").click()
    await expect(page.get_by_label("Max tokens")).to_be_focused()
    await expect(page.get_by_label("Max tokens")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_text("At least 1")).to_be_visible()
    assert (await read(visitor.service, model_id))["version"] == 1


async def test_what_only_the_server_knows_is_told_beside_its_field_as_well(visitor: Visitor) -> None:
    page = visitor.page
    visitor.expected = ("status of 400",)
    model_id = await create(visitor.service)
    await visitor.open(f"/models/{model_id}/edit")
    await page.get_by_label("Azure endpoint").fill("https://elsewhere.example")
    await page.get_by_role("button", name="Review changes").click()
    await visitor.dialog().get_by_role("button", name="Save, 1 field").click()
    await expect(page.get_by_text("the environment's key is not sent to")).to_be_visible()
    await expect(page.get_by_label("Azure endpoint")).to_be_focused()


async def test_an_edit_shows_its_difference_and_can_be_rolled_back(visitor: Visitor) -> None:
    page = visitor.page
    model_id = await create(visitor.service, max_timeout=300)
    await visitor.open(f"/models/{model_id}/edit")
    await page.get_by_text("Advanced settings").click()
    await page.get_by_label("Max timeout").fill("600")
    await page.keyboard.press("Control+Enter")
    row = visitor.dialog().get_by_role("row", name="Max timeout")
    await expect(row).to_contain_text("300 s")
    await expect(row).to_contain_text("600 s")
    await page.keyboard.press("Control+Enter")
    await visitor.told("is saved as v2")

    await page.get_by_role("link", name="History").click()
    await expect(visitor.main()).to_contain_text("raised max timeout 300 s to 600 s")
    await page.get_by_role("button", name="Roll back to this v1").click()
    await visitor.dialog().get_by_label("Why?").fill("too long")
    await visitor.dialog().get_by_role("button", name="Roll back, 1 field").click()
    await visitor.told("is back at v1; this is v3")
    await expect(visitor.main()).to_contain_text("rolled back to v1")
    found = await read(visitor.service, model_id)
    assert (found["version"], found["max_timeout"]) == (3, 300)


async def test_an_answer_after_a_change_says_what_changed_between(visitor: Visitor) -> None:
    model_id = await create(visitor.service)
    await visitor.open(f"/chat?model={model_id}")
    await visitor.ask("one")
    await patch(visitor.service, model_id, max_tokens=1024)
    await expect(visitor.page.get_by_text("changed since the last answer, v1 → v2")).to_be_visible()
    await visitor.ask("two")
    await expect(visitor.page.locator(".version-change")).to_have_text("v1 → v2: max tokens")


async def test_two_people_edit_and_neither_change_is_lost(visit: Visit) -> None:
    ann, ben = await visit(), await visit()
    model_id = await create(ann.service, max_tokens=1000)
    for each in (ann, ben):
        await each.open(f"/models/{model_id}/edit")
        await expect(each.page.get_by_label("Max tokens")).to_have_value("1000")

    await ann.page.get_by_label("Max tokens").fill("2000")
    await ann.page.get_by_role("button", name="Review changes").click()
    await ann.dialog().get_by_role("button", name="Save, 1 field").click()
    await ann.told("is saved as v2")

    await expect(ben.page.locator(".banner")).to_contain_text("saved v2")
    ben.expected = ("status of 412",)
    await ben.page.get_by_label("Max tokens").fill("3000")
    await ben.page.get_by_label("Name", exact=True).fill("Ben's")
    await ben.page.get_by_role("button", name="Review changes").click()
    await ben.dialog().get_by_role("button", name="Save, 2 fields").click()
    await expect(ben.dialog()).to_contain_text("saved v2 while you were editing")
    await ben.dialog().get_by_role("radio", name="Theirs").check()
    await ben.dialog().get_by_role("button", name="Review the result").click()
    await ben.dialog().get_by_role("button", name="Save, 1 field").click()
    await ben.told("is saved as v3")
    found = await read(ann.service, model_id)
    assert (found["name"], found["max_tokens"]) == ("Ben's", 2000)


async def test_a_deleted_model_leaves_every_list_at_once_and_comes_back(visit: Visit) -> None:
    visitor, other = await visit(), await visit()
    model_id = await create(visitor.service)
    for each in (visitor, other):
        await each.open("/models")
        await expect(each.main().get_by_role("heading", name=model_id)).to_be_visible()

    await visitor.page.get_by_role("button", name=f"More about {model_id}").click()
    await visitor.page.get_by_role("menuitem", name="Delete").click()
    await expect(visitor.dialog().get_by_role("button", name="Cancel")).to_be_focused()
    await visitor.dialog().get_by_role("button", name=f"Delete {model_id}").click()
    await visitor.told("is deleted")
    await expect(other.main().get_by_role("heading", name=model_id)).to_have_count(0)

    await visitor.page.get_by_role("link", name="Deleted models").click()
    await visitor.page.get_by_role("button", name=f"Bring back {model_id}").click()
    await visitor.told("is back")
    await expect(other.main().get_by_role("heading", name=model_id)).to_be_visible()


async def test_the_default_is_not_deleted_without_a_successor(visitor: Visitor) -> None:
    await visitor.open("/models")
    await visitor.page.get_by_role("button", name="More about first").click()
    await expect(visitor.page.get_by_role("menuitem", name="Delete", exact=True)).to_have_count(0)
    await visitor.page.get_by_role("menuitem", name="Hand over and delete").click()
    await expect(visitor.dialog().get_by_role("button", name="Delete first")).to_be_disabled()


async def test_an_unsaved_form_asks_before_it_is_left(visitor: Visitor) -> None:
    model_id = await create(visitor.service)
    await visitor.open(f"/models/{model_id}/edit")
    await visitor.page.get_by_label("Name", exact=True).fill("Another name")
    await visitor.page.get_by_role("tab", name="Chats").click()
    await visitor.dialog().get_by_role("button", name="Stay").click()
    await expect(visitor.page.get_by_label("Name", exact=True)).to_have_value("Another name")
    await visitor.page.get_by_role("tab", name="Chats").click()
    await visitor.dialog().get_by_role("button", name="Discard").click()
    await expect(visitor.page).to_have_url(re.compile("/chat$"))


async def test_filters_of_the_audit_log_survive_a_reload(visitor: Visitor) -> None:
    model_id = await create(visitor.service)
    await visitor.open("/audit")
    await visitor.page.get_by_label("What").select_option(label="created")
    await visitor.page.get_by_role("searchbox").fill(model_id)
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.page.locator(".entry")).to_have_count(1)
    await visitor.page.reload()
    await expect(visitor.page.locator(".entry")).to_have_count(1)
    await expect(visitor.page.locator(".entry")).to_contain_text(f"created {model_id}")


async def test_the_palette_goes_to_a_model_by_keyboard_alone(visitor: Visitor) -> None:
    model_id = await create(visitor.service)
    await visitor.open("/chat")
    await visitor.page.keyboard.press("Control+k")
    await expect(visitor.page.get_by_role("combobox", name="Go to or do")).to_be_focused()
    await visitor.page.keyboard.type(f"history {model_id}")
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.page).to_have_url(re.compile(f"/models/{model_id}/history$"))


async def test_a_stopped_answer_keeps_its_words_and_can_be_continued(visitor: Visitor) -> None:
    upstream = visitor.service.upstream
    assert upstream is not None
    model_id = await create(visitor.service)
    upstream.script(Stream(["first words "], hold=Event()), Reply("and the rest"), deployment=model_id)
    await visitor.open(f"/chat?model={model_id}")
    aborted = upstream.aborted
    await visitor.page.get_by_label("Message", exact=True).fill("Tell me")
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.answers().last).to_contain_text("first words")
    await visitor.page.keyboard.press("Escape")
    await expect(visitor.answers().last).to_contain_text("stopped")
    await wait_until(lambda: upstream.aborted == aborted + 1, within=2)

    await visitor.answers().last.get_by_role("button", name="Continue").click()
    await expect(visitor.answers().last).to_contain_text("and the rest")
    sent = [request.fields["messages"] for request in upstream.requests if request.deployment == model_id]
    assert [message["content"] for message in sent[-1]] == [  # type: ignore[attr-defined]
        "Tell me",
        "first words ",
        "Go on exactly where you stopped.",
    ]


async def test_a_reload_in_the_middle_of_an_answer_loses_no_word(visitor: Visitor) -> None:
    upstream = visitor.service.upstream
    assert upstream is not None
    model_id = await create(visitor.service)
    upstream.script(Stream(["kept words "], hold=Event()), Reply("whole"), deployment=model_id)
    await visitor.open(f"/chat?model={model_id}")
    await visitor.page.get_by_label("Message", exact=True).fill("Tell me")
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.answers().last).to_contain_text("kept words")
    await visitor.page.evaluate(KEPT, "kept words")
    await visitor.page.reload()
    await expect(visitor.answers().last).to_contain_text("interrupted")
    await expect(visitor.answers().last).to_contain_text("kept words")
    await visitor.answers().last.get_by_role("button", name="Regenerate").click()
    await expect(visitor.answers().last).to_contain_text("whole")


async def test_a_failed_call_says_why_and_can_be_tried_again(visitor: Visitor) -> None:
    upstream = visitor.service.upstream
    assert upstream is not None
    visitor.expected = ("status of 429",)
    model_id = await create(visitor.service, max_retries=0)
    upstream.script(Status(429), Reply("now it works"), deployment=model_id)
    await visitor.open(f"/chat?model={model_id}")
    await visitor.page.get_by_label("Message", exact=True).fill("Hello")
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.answers().last).to_contain_text("The provider asks to slow down")
    await visitor.answers().last.get_by_role("button", name="Try again").click()
    await expect(visitor.answers().last).to_contain_text("now it works")


async def test_one_change_is_undone_and_later_ones_stay(visitor: Visitor) -> None:
    model_id = await create(visitor.service, max_tokens=1000)
    await patch(visitor.service, model_id, max_tokens=2000)
    await patch(visitor.service, model_id, max_timeout=900)
    await visitor.open(f"/models/{model_id}/history")
    await visitor.page.get_by_role("button", name="Undo this change v2").click()
    await visitor.dialog().get_by_role("button", name="Undo, 1 field").click()
    await visitor.told("What v2 changed is undone; this is v4")
    found = await read(visitor.service, model_id)
    assert (found["max_tokens"], found["max_timeout"]) == (1000, 900)


async def test_the_connection_is_tried_with_values_that_are_not_saved(visitor: Visitor) -> None:
    model_id = await create(visitor.service)
    await visitor.open(f"/models/{model_id}/edit")
    await visitor.page.get_by_role("button", name="Test connection").click()
    await expect(visitor.page.get_by_text("It answers", exact=True)).to_be_visible()
    await expect(visitor.page.locator(".steps li").last).to_contain_text("answer")
    assert (await read(visitor.service, model_id))["version"] == 1
