"""The browser application's files: what is served, how it is labelled, and that nothing else is."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from raw import exchange
from service import Service

from web.pages import NOT_BUILT, page_routes

VIEWS: Final = (
    "/",
    "/chat",
    "/chat/c-1",
    "/models",
    "/models/gpt-4/history",
    "/audit",
    "/settings",
    "/sign-in",
)
INDEX: Final = b"<!doctype html><script type=module src=/assets/app-1a2b3c4d.js></script>"
SCRIPT: Final = b"export const answer = 42;\n" * 40
LABELS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; object-src 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A small build, as the bundler leaves it, with a secret beside it."""
    (tmp_path / "secret.txt").write_text("secret")
    directory = tmp_path / "static"
    (directory / "assets" / "deeper").mkdir(parents=True)
    (directory / "index.html").write_bytes(INDEX)
    (directory / "private.html").write_text("secret")
    assets = directory / "assets"
    (assets / "app-1a2b3c4d.js").write_bytes(SCRIPT)
    (assets / "app-1a2b3c4d.js.gz").write_bytes(gzip.compress(SCRIPT))
    (assets / "app-5e6f7a8b.css").write_bytes(b"body{}")
    (assets / "mark-9c0d1e2f.svg").write_bytes(b"<svg/>")
    (assets / "deeper" / "file.js").write_bytes(b"secret")
    return directory


@pytest.fixture
async def client(build: Path) -> AsyncIterator[AsyncTestClient[Litestar]]:
    async with AsyncTestClient(Litestar(page_routes(build))) as client:
        yield client


# The build.


async def test_every_view_is_the_same_page_and_is_never_stored(client: AsyncTestClient[Litestar]) -> None:
    for view in VIEWS:
        answer = await client.get(view)
        assert (answer.status_code, answer.content) == (200, INDEX), view
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"


async def test_pages_and_assets_carry_the_policy_byte_for_byte(client: AsyncTestClient[Litestar]) -> None:
    for address in ("/", "/models/x", "/assets/app-1a2b3c4d.js", "/assets/mark-9c0d1e2f.svg"):
        headers = (await client.get(address)).headers
        assert {name: headers.get(name) for name in LABELS} == LABELS, address


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("app-1a2b3c4d.js", "text/javascript; charset=utf-8"),
        ("app-5e6f7a8b.css", "text/css; charset=utf-8"),
        ("mark-9c0d1e2f.svg", "image/svg+xml"),
    ],
)
async def test_an_asset_has_its_type_and_is_kept_for_ever(
    client: AsyncTestClient[Litestar], name: str, media_type: str
) -> None:
    answer = await client.get(f"/assets/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("br, GZIP;q=0.5, deflate", "gzip"),
        ("identity", None),
        ("", None),
        ("gzip;q=0, br", None),
        ("gzip; q=0.000", None),
    ],
)
async def test_what_is_compressed_already_is_sent_so_to_who_takes_it(
    client: AsyncTestClient[Litestar], accepted: str, coding: str | None
) -> None:
    answer = await client.get("/assets/app-1a2b3c4d.js", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.content == SCRIPT  # the client unpacks it
    assert (int(answer.headers["content-length"]) < len(SCRIPT)) is (coding is not None)


@pytest.mark.parametrize(
    "target",
    [
        "/assets/missing.js",
        "/assets/",
        "/assets/../private.html",
        "/assets/%2e%2e/private.html",
        "/assets/..%2fprivate.html",
        "/assets/..%5cprivate.html",
        "/assets/%2e%2e%2f%2e%2e%2fsecret.txt",
        "/assets/deeper/file.js",
        "/assets/deeper",
        "/assets/.",
        "/assets/app-1a2b3c4d.js.gz",
        "/assets/app-1a2b3c4d.js%00",
        "/assets//etc/passwd",
        "/private.html",
        "/index.html",
    ],
)
async def test_nothing_but_the_builds_own_assets_can_be_read(
    client: AsyncTestClient[Litestar], target: str
) -> None:
    answer = await client.get(target)
    assert answer.status_code == 404
    assert b"secret" not in answer.content


async def test_behind_tls_browsers_are_told_to_stay_there(
    build: Path, client: AsyncTestClient[Litestar]
) -> None:
    async with AsyncTestClient(Litestar(page_routes(build, is_secure=True))) as secure:
        for address in ("/", "/assets/app-1a2b3c4d.js"):
            told = (await secure.get(address)).headers["strict-transport-security"]
            assert told == "max-age=31536000"
            assert "strict-transport-security" not in (await client.get(address)).headers


async def test_without_a_build_the_page_says_how_to_make_one(tmp_path: Path) -> None:
    async with AsyncTestClient(Litestar(page_routes(tmp_path))) as client:
        answer = await client.get("/")
        assert (answer.status_code, answer.content) == (200, NOT_BUILT)
        assert {name: answer.headers.get(name) for name in LABELS} == LABELS
        assert b"<script" not in answer.content
        assert b"style" not in answer.content
        assert b"make setup" in answer.content
        assert (await client.get("/assets/app.js")).status_code == 404


# The service.


async def test_the_service_shows_its_page_to_everyone(shared_service: Service) -> None:
    page = exchange(shared_service, "GET", "/", token="").body
    assert page == NOT_BUILT or b'src="/assets/' in page
    for view in VIEWS:
        answer = exchange(shared_service, "GET", view, token="")
        assert (answer.status, answer.body) == (200, page)
        assert {name: answer.headers.get(name) for name in LABELS} == LABELS


async def test_a_head_request_tells_what_a_get_would_send(shared_service: Service) -> None:
    whole = exchange(shared_service, "GET", "/models", token="")
    head = exchange(shared_service, "HEAD", "/models", token="")
    varying = {"date", "x-request-id"}
    assert (head.status, head.body) == (200, b"")
    assert {name: value for name, value in head.headers.items() if name not in varying} == {
        name: value for name, value in whole.headers.items() if name not in varying
    }
    missing = exchange(shared_service, "HEAD", "/assets/missing.js", token="")
    assert (missing.status, missing.body) == (404, b"")


async def test_pages_take_no_other_method(shared_service: Service) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert exchange(shared_service, method, "/models", token="").status == 405


async def test_an_address_that_is_no_view_is_not_found(shared_service: Service) -> None:
    for target in ("/nowhere", "/..%2f..%2fetc/passwd", "/assets/..%2f..%2fmain.py", "/audit/deeper"):
        assert exchange(shared_service, "GET", target, token="").status == 404
