"""Every view in both themes and on two sizes of screen, as axe sees it."""

import json
from typing import Any, Final

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect
from visitor import Visit, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCREENS: Final[dict[str, dict[str, Any]]] = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True},
}


async def seeded(visitor: Visitor) -> str:
    """A model with a history."""
    async with visitor.service.api() as api:
        model_id = await api.create(description="For the tests of accessibility")
        for max_tokens in (1000, 2000):
            assert (await api.patch(model_id, max_tokens=max_tokens)).status_code == 200
    return model_id


async def violations(visitor: Visitor, what: str) -> list[str]:
    found = await Axe().run(visitor.page)
    return [
        f"{what}: {violation['id']}: {json.dumps(node['target'])} {node['failureSummary']}"
        for violation in found.response["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
async def test_no_view_has_a_violation(visit: Visit, theme: str, screen: str) -> None:
    visitor = await visit(color_scheme=theme, reduced_motion="reduce", **SCREENS[screen])
    page = visitor.page
    model_id = await seeded(visitor)
    found = []

    await visitor.open(f"/chat?model={model_id}")
    found += await violations(visitor, "a new chat")
    await visitor.ask("Say **something** with `code`")
    found += await violations(visitor, "a conversation")
    await page.locator(".picker-button").click()
    await expect(page.get_by_role("listbox")).to_be_visible()
    found += await violations(visitor, "the list of models")
    await page.keyboard.press("Escape")

    views = {
        "/models": "heading",
        "/models/~new": "textbox",
        "/models/~deleted": "heading",
        f"/models/{model_id}": "table",
        f"/models/{model_id}/history": "list",
        f"/models/{model_id}/versions/2": "table",
        f"/models/{model_id}/compare?from=1&to=3": "table",
        "/audit": "list",
        "/settings": "radio",
    }
    for address, shows in views.items():
        await visitor.open(address)
        await expect(visitor.main().get_by_role(shows).first).to_be_visible()  # type: ignore[arg-type]
        found += await violations(visitor, address)
        overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{address} is wider than the screen"

    await visitor.open(f"/models/{model_id}/history")
    await page.get_by_role("button", name="Roll back to this v1").click()
    await expect(visitor.dialog().get_by_role("row", name="Max tokens")).to_be_visible()
    found += await violations(visitor, "the rollback's preview")
    await visitor.open(f"/models/{model_id}/edit")
    await page.get_by_label("Max tokens").fill("x")
    await page.get_by_role("button", name="Review changes").click()
    await expect(page.get_by_text("Not yet: some fields need another look")).to_be_visible()
    found += await violations(visitor, "a form with an error")
    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("combobox", name="Go to or do")).to_be_visible()
    found += await violations(visitor, "the palette")
    assert found == []


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_sign_in_has_no_violation(visit: Visit, theme: str) -> None:
    visitor = await visit(signed_in=False, color_scheme=theme)
    await visitor.page.goto("/")
    await expect(visitor.page.get_by_label("Access token")).to_be_focused()
    assert await violations(visitor, "sign-in") == []
