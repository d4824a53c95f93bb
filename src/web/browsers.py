"""What a browser's request must show before its cookie counts: that our own page made it.

A bearer token is sent by programs that mean to; a cookie is sent by the browser, whoever asks it to. So a
request with a cookie is refused when it comes from another origin, and one that changes something needs a
header and a media type that no foreign page can send without being asked about it (CORS).
"""

from typing import Any, Final
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.exceptions import PermissionDeniedException
from msgspec import Struct

from application.sessions import LONGEST
from domain.values import Origin
from web.bodies import JSON, JSON_PATCH, MERGE_PATCH

MARK: Final = "x-model-ledger-request"
SAFE: Final = frozenset({"GET", "HEAD"})
OWN: Final = frozenset({"same-origin"})
OWN_OR_TYPED: Final = frozenset({"same-origin", "none"})
"""What `Sec-Fetch-Site` may say of a read; `none` is an address that the user typed or bookmarked."""
COOKIE: Final = "model_ledger_session"

Connection = ASGIConnection[Any, Any, Any, Any]


class Site(Struct, frozen=True):
    """Where browsers find the service."""

    origin: Origin | None = None
    """None where they reach it directly, under whatever name."""

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach it over TLS, as far as is known."""
        return self.origin is not None and self.origin.startswith("https:")

    @property
    def cookie_name(self) -> str:
        """Under TLS with a prefix that keeps other hosts and plain HTTP from setting it (RFC 6265bis)."""
        return f"__Host-{COOKIE}" if self.is_secure else COOKIE

    def cookie(self, secret: str) -> Cookie:
        """The session's cookie; without a secret, its end."""
        return Cookie(
            key=self.cookie_name,
            value=secret,
            max_age=int(LONGEST.total_seconds()) if secret else 0,
            path="/",
            secure=self.is_secure,
            httponly=True,
            samesite="strict",
        )

    def secret(self, connection: Connection) -> str | None:
        """What the request's cookie holds."""
        return connection.cookies.get(self.cookie_name)

    def refuse_foreign(self, connection: Connection) -> None:
        """Let only our own page pass.

        Raises:
            PermissionDeniedException: the request may come from elsewhere.
        """
        headers = connection.headers
        reads = connection.scope.get("method") in SAFE
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None and site not in (OWN_OR_TYPED if reads else OWN):
            raise PermissionDeniedException(detail="this request comes from another site")
        if origin is not None and not self._is_own(origin, headers.get("host", "")):
            told = "this request comes from another origin; MODEL_LEDGER_PUBLIC_URL tells the service its own"
            raise PermissionDeniedException(detail=told)
        if reads:
            return
        if site is None and origin is None:
            raise PermissionDeniedException(detail="this request does not say where it comes from")
        if headers.get(MARK) != "1":
            raise PermissionDeniedException(detail="a change with a cookie needs X-Model-Ledger-Request: 1")
        if _has_body(connection) and _media_type(connection) not in {JSON, MERGE_PATCH, JSON_PATCH}:
            raise PermissionDeniedException(detail="a change with a cookie has a body of JSON, and says so")

    def _is_own(self, origin: str, host: str) -> bool:
        if self.origin is not None:
            return origin == self.origin
        # Whoever comes by another name has no cookie of ours.
        parts = urlsplit(origin)
        return parts.scheme in {"http", "https"} and parts.netloc == host


def _has_body(connection: Connection) -> bool:
    return connection.headers.get("content-length", "0") != "0" or "transfer-encoding" in connection.headers


def _media_type(connection: Connection) -> str:
    return connection.headers.get("content-type", "").partition(";")[0].strip().lower()
