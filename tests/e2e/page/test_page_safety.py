"""Text from elsewhere stays text; the page fetches nothing from elsewhere, and stays small."""

import gzip
import re
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import expect
from upstream import Reply
from visitor import Visitor

import web

STATIC: Final = Path(web.__file__).parent / "static"
HOSTILE: Final = (
    "<script>document.title='taken'</script> <img src=https://evil.example/a.png onerror=alert(1)> "
    "[click](javascript:alert(1)) [data](data:text/html,<b>x</b>) ![pixel](https://evil.example/pixel.png) "
    "<iframe src=https://evil.example></iframe> <svg onload=alert(1)> \u202egnp.exe"
)


@pytest.mark.asyncio(loop_scope="session")
async def test_hostile_text_does_nothing_wherever_it_stands(visitor: Visitor) -> None:
    upstream = visitor.service.upstream
    assert upstream is not None
    text = HOSTILE.replace("\u202e", "")
    async with visitor.service.api() as api:
        model_id = await api.create(name=text[:200], description=text)
        await api.patch(model_id, headers={"X-Change-Reason": text}, max_tokens=77)
    upstream.script(Reply(HOSTILE), deployment=model_id)
    places = ["/models", f"/models/{model_id}", f"/models/{model_id}/history", "/audit"]
    for address in [*places, f"/models/{model_id}/edit", f"/models/{model_id}/versions/2"]:
        await visitor.open(address)
        await expect(visitor.main()).to_contain_text("Edit model" if address.endswith("edit") else model_id)

    await visitor.open(f"/chat?model={model_id}")
    await visitor.ask(HOSTILE)
    answer = visitor.answers().last
    await expect(answer).to_contain_text("<script>document.title='taken'</script>")
    await expect(answer).to_contain_text("\\u202egnp.exe")
    for link in await answer.locator(".prose a").all():
        assert (await link.get_attribute("href") or "").startswith("https://evil.example")
        assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
    await expect(answer.locator("img, iframe, script, svg:not(.icon)")).to_have_count(0)
    assert await visitor.page.title() != "taken"


@pytest.mark.asyncio(loop_scope="session")
async def test_a_first_visit_needs_few_requests(visitor: Visitor) -> None:
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.resource_type))
    await visitor.open("/chat")
    assert len([kind for kind in asked if kind not in {"fetch", "xhr"}]) <= 8, asked


def test_the_first_load_stays_within_its_budget() -> None:
    page = (STATIC / "index.html").read_text()
    assets = {name: (STATIC / name.lstrip("/")).read_bytes() for name in re.findall(r"/assets/[\w.-]+", page)}
    scripts = sum(len(gzip.compress(body)) for name, body in assets.items() if name.endswith(".js"))
    styles = sum(len(gzip.compress(body)) for name, body in assets.items() if name.endswith(".css"))
    assert 0 < scripts <= 60_000
    assert 0 < styles <= 15_000
    assert len(page) <= 8_000


def test_the_page_holds_nothing_that_its_policy_forbids() -> None:
    page = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page) == []
    forbidden = re.compile(r"\beval\(|new Function|insertAdjacentHTML|document\.write")
    for script in (STATIC / "assets").glob("*.js"):
        assert forbidden.findall(script.read_text()) == []


def test_every_file_lies_there_compressed_as_well() -> None:
    files = [file for file in STATIC.rglob("*") if file.is_file() and file.suffix not in {".gz", ".br"}]
    assert len(files) > 5
    for file in files:
        assert gzip.decompress(file.with_name(file.name + ".gz").read_bytes()) == file.read_bytes()
