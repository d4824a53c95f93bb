"""The browser application's files: read once at start, public, and served under a strict policy.

They are looked up by name among those that were read, so that no request can reach anything else.
"""

import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from litestar import Request, Response, route
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from domain.access import Permission

STATIC: Final = Path(__file__).parent / "static"
"""Where the build of `src/web/ui` lies, if there is one."""
VIEWS: Final = (
    "/",
    "/chat",
    "/chat/{place:path}",
    "/models",
    "/models/{place:path}",
    "/audit",
    "/settings",
    "/sign-in",
)
"""Every address of the application; the page itself finds out what to show there."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; object-src 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""On every page and asset."""
TLS_ONLY: Final = {"Strict-Transport-Security": "max-age=31536000"}
"""Where browsers come over TLS: they never try without it again."""
KEEP: Final = "public, max-age=31536000, immutable"
"""For files whose name holds a digest of their content."""
COMPRESSED: Final = {"br": ".br", "gzip": ".gz"}
"""Content codings that the build may have made, the best first."""
TYPES: Final = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}
"""Where the system's table may be missing, or know another one."""

NOT_BUILT: Final = b"""<!doctype html>
<html lang="en">
<title>Model Ledger</title>
<h1>The page is not built</h1>
<p>The service runs, but the files of its page are missing.
Stop it, run <code>make setup</code>, and start it again.</p>
<p>The API is not affected: <a href="/schema/openapi.json">its contract</a>.</p>
</html>
"""


class File(Struct, frozen=True):
    """One file of the build, by content coding; "" is the plain one."""

    media_type: str
    contents: Mapping[str, bytes]

    def answer(self, accepted: str, headers: Mapping[str, str]) -> Response[bytes]:
        """The file in the best coding that the client takes."""
        taken = _codings(accepted)
        coding = next((name for name in COMPRESSED if name in taken and name in self.contents), "")
        told = dict(headers)
        if len(self.contents) > 1:
            told["Vary"] = "Accept-Encoding"
        if coding:
            told["Content-Encoding"] = coding
        return Response(self.contents[coding], media_type=self.media_type, headers=told)


def page_routes(directory: Path = STATIC, *, is_secure: bool = False) -> list[HTTPRouteHandler]:
    """The routes of the application's pages and assets, with the build that lies there now.

    `is_secure` says that browsers come over TLS.
    """
    headers = {**HEADERS, **(TLS_ONLY if is_secure else {})}
    index = _read(directory / "index.html") or File(TYPES[".html"], {"": NOT_BUILT})
    assets = _assets(directory / "assets")

    @route([*VIEWS], http_method=["GET", "HEAD"], permission=Permission.PUBLIC, include_in_schema=False)
    async def page(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The application, whatever its view."""
        return index.answer(
            request.headers.get("accept-encoding", ""), {**headers, "Cache-Control": "no-store"}
        )

    @route(
        "/assets/{name:str}",
        http_method=["GET", "HEAD"],
        permission=Permission.PUBLIC,
        include_in_schema=False,
    )
    async def asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        """A script, a style, a font or a picture."""
        found = assets.get(name)
        if found is None:
            raise NotFoundException(detail="there is no such asset")
        return found.answer(request.headers.get("accept-encoding", ""), {**headers, "Cache-Control": KEEP})

    return [page, asset]


def _assets(directory: Path) -> dict[str, File]:
    """The plain files of a directory, each with the codings that lie beside it."""
    if not directory.is_dir():
        return {}
    plain = (path for path in directory.iterdir() if path.suffix not in COMPRESSED.values())
    return {path.name: file for path in plain if (file := _read(path))}


def _read(path: Path) -> File | None:
    if not path.is_file():
        return None
    contents = {"": path.read_bytes()}
    for coding, suffix in COMPRESSED.items():
        beside = path.with_name(path.name + suffix)
        if beside.is_file():
            contents[coding] = beside.read_bytes()
    media_type = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return File(media_type, contents)


def _codings(accepted: str) -> set[str]:
    """The content codings that a client names and does not refuse (RFC 9110 section 12.5.3)."""
    codings = set()
    for part in accepted.lower().split(","):
        name, _, weight = part.replace(" ", "").partition(";q=")
        if not weight or weight.strip("0."):  # a weight of zero refuses
            codings.add(name)
    return codings
