"""Who asks, whether they may, and what is noted of a change: one authenticator, one authoriser."""

import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final
from urllib.parse import unquote, unquote_to_bytes

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers.base import BaseRouteHandler
from litestar.params import QueryParameter
from litestar.types import Message, Scope
from msgspec import Struct
from msgspec.structs import replace
from uuid_utils import uuid7

from application.ledger import Condition, Ledger, Prepare
from application.patch import PatchModel
from application.ports import Authenticator, Caller, Context, Idempotency, Receipt, Source
from application.sessions import Sessions
from application.views import Views
from domain.access import PERMISSIONS, Permission
from domain.catalog import Command
from domain.default import SetDefault
from domain.errors import InvalidInput, PreconditionFailed, PreconditionRequired, Problem
from domain.values import parse_reason
from web.bodies import pointer
from web.browsers import Site
from web.local_callers import is_local
from web.preconditions import read_condition, read_idempotency
from web.stale import explain

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
BEARER: Final = re.compile(r"bearer +([\x21-\x7e]+) *", re.IGNORECASE)
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="Model Ledger"'}
WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ESCAPED_SLASH: Final = Problem("/model_id", "invalid_id", "an id holds no slash; '/' belongs into deployment")

Serves = Callable[[int], Awaitable[None]]
"""Waits, for a bounded time, until this worker serves what stands at a position."""

Connection = ASGIConnection[Any, Any, Any, Any]


class Gate:
    """The guard of the whole application: it asks each route for its permission, and denies by default.

    A caller is known by a bearer token or, where none is sent, by the cookie of a session.
    """

    def __init__(
        self,
        tokens: Authenticator,
        sessions: Sessions,
        site: Site,
        open_to_local: Collection[Permission] = (),
    ) -> None:
        """What is open to programs of this machine needs no token from them."""
        self._tokens = tokens
        self._sessions = sessions
        self._site = site
        self._open_to_local = open_to_local

    async def __call__(self, connection: Connection, handler: BaseRouteHandler) -> None:
        """Let the caller through, and note who it is.

        Raises:
            NotAuthorizedException: no token and no session, or one that is unknown, revoked or over.
            PermissionDeniedException: the caller's role does not hold the route's permission, or a request
                with a cookie may come from another page than ours.
            InvalidInput: below /api, an escaped slash in the path, or query parameters that the route does
                not have or that stand twice.
        """
        permission = handler.opt.get("permission")
        if permission is Permission.PUBLIC or (permission in self._open_to_local and is_local(connection)):
            return
        caller = await self._authenticate(connection)
        if permission is None or permission not in PERMISSIONS.get(caller.role, frozenset()):
            raise PermissionDeniedException(detail=f"this needs the permission {permission or '(none set)'}")
        connection.scope["user"] = caller
        if connection.scope["path"].startswith("/api/"):
            _refuse_escaped_slash(connection)
            _refuse_unclear_query(connection, handler)

    async def still_knows(self, connection: Connection) -> bool:
        """Whether the caller of an answer that goes on is known still; asking keeps no session open.

        Raises:
            StoreUnavailable: that cannot be said now.
        """
        token, secret = _bearer(connection), self._site.secret(connection)
        if token is not None:
            return self._tokens.authenticate(token) is not None
        return bool(secret and await self._sessions.find(secret, used=False))

    async def _authenticate(self, connection: Connection) -> Caller:
        if not connection.headers.get("authorization"):
            return await self._of_session(connection)
        token = _bearer(connection)
        caller = self._tokens.authenticate(token) if token else None
        if caller is None:
            raise _unknown()
        connection.scope["auth"] = None
        return caller

    async def _of_session(self, connection: Connection) -> Caller:
        secret = self._site.secret(connection)
        session = await self._sessions.find(secret) if secret else None
        if session is None:
            raise _unknown()
        self._site.refuse_foreign(connection)
        connection.scope["auth"] = session
        return session.caller


def _bearer(connection: Connection) -> str | None:
    sent = BEARER.fullmatch(connection.headers.get("authorization", ""))
    return sent.group(1) if sent else None


def _unknown() -> NotAuthorizedException:
    return NotAuthorizedException(
        detail="sign in, or send a valid token: Authorization: Bearer <token>", headers=CHALLENGE
    )


class Change(Struct, frozen=True):
    """A change as it was asked for: by whom, why, on what condition, under which key."""

    context: Context
    condition: Condition | None
    required: bool
    """Whether the installation asks for a condition on this change."""
    idempotency: Idempotency | None
    views: Views
    serves: Serves

    async def execute(self, ledger: Ledger, command: Command | PatchModel | Prepare) -> Receipt:
        """Have the ledger do it, and this worker serve it; see `Ledger.execute`.

        A stale condition is told with what changed.
        """
        if self.required and self.condition is None:
            raise PreconditionRequired
        try:
            receipt = await ledger.execute(
                command, self.context, condition=self.condition, idempotency=self.idempotency
            )
        except PreconditionFailed as error:
            raise await explain(self.views, error, of_default=isinstance(command, SetDefault)) from error
        await self.serves(receipt.position)
        return receipt

    def because(self, reason: str | None) -> "Change":
        """The same with the reason that stands in the body, which wins over the others."""
        checked = parse_reason(reason)
        return self if checked is None else replace(self, context=replace(self.context, reason=checked))


async def provide_change(
    request: Request[Caller, Any, Any], views: NamedDependency[Views], serves: NamedDependency[Serves]
) -> Change:
    """Read everything about a change but its content."""
    caller = request.user
    source: Source = "api" if request.auth is None else "ui"
    context = Context(caller.actor, source, request_id(request.scope), _reason(request))
    opt = request.route_handler.opt
    required = bool(request.app.state.require_if_match) and not opt.get("creates")
    key = read_idempotency(request, caller.actor, await request.body())
    return Change(context, read_condition(request), required, key, views, serves)


def _reason(request: Request[Any, Any, Any]) -> str | None:
    in_query = request.query_params.get("reason")
    if in_query:
        return parse_reason(in_query)
    return parse_reason(_text(request, "x-change-reason"), "/x-change-reason")


def request_id(scope: Scope) -> str:
    """The id of a request: the caller's own `X-Request-ID` if it is a plain word, else a new one."""
    state = scope.setdefault("state", {})
    known = state.get("request_id")
    if isinstance(known, str):
        return known
    sent = next((value for name, value in scope.get("headers", []) if name == b"x-request-id"), b"")
    text = sent.decode("latin-1")
    made = text if REQUEST_ID.fullmatch(text) else uuid7().hex
    state["request_id"] = made
    return made


async def name_request(message: Message, scope: Scope) -> None:
    """Put the request's id on every answer."""
    if message["type"] == "http.response.start":
        name = (b"x-request-id", request_id(scope).encode())
        message["headers"] = [*message.get("headers", []), name]


def has_escaped_slash(scope: Scope) -> bool:
    """Whether a slash of the path was sent as %2F: no id holds one, and it must not choose the route."""
    raw = scope.get("raw_path") or b""
    return raw.startswith(b"/api/") and b"%2f" in raw.lower()


def _refuse_escaped_slash(connection: Connection) -> None:
    if has_escaped_slash(connection.scope):
        raise InvalidInput([ESCAPED_SLASH])


def _refuse_unclear_query(connection: Connection, handler: BaseRouteHandler) -> None:
    # A mistyped `dry_run` must not become a change, nor one that is said to be both.
    known = {
        field.kwarg_definition.name or name
        for name, field in handler.parsed_fn_signature.parameters.items()
        if isinstance(field.kwarg_definition, QueryParameter)
    }
    if connection.scope.get("method") in WRITES:
        known.add("reason")
    sent = [name for name, _ in connection.query_params.multi_items()]
    unknown = (name for name in dict.fromkeys(sent) if name not in known)
    doubled = (name for name in known if sent.count(name) > 1)
    problems = [
        *(Problem(pointer(name), "invalid_text", "this is not UTF-8") for name in _undecodable(connection)),
        *(
            Problem(pointer(name), "unknown_parameter", "there is no such query parameter")
            for name in unknown
        ),
        *(
            Problem(pointer(name), "doubled_parameter", "this query parameter stands twice")
            for name in doubled
        ),
    ]
    if problems:
        raise InvalidInput(problems)


def _text(request: Request[Any, Any, Any], name: str) -> str | None:
    """A header's text: UTF-8, though HTTP reads it as Latin-1."""
    header = request.headers.get(name)
    try:
        return None if header is None else header.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise InvalidInput([Problem(f"/{name}", "invalid_text", "this header is not UTF-8")]) from None


def _undecodable(connection: Connection) -> list[str]:
    """The parameters whose text is no UTF-8; the framework would put other characters in its place."""
    names = []
    for pair in connection.scope["query_string"].replace(b"+", b" ").split(b"&"):
        name, _, value = pair.partition(b"=")
        try:
            (unquote_to_bytes(name) + b"=" + unquote_to_bytes(value)).decode()
        except UnicodeDecodeError:
            names.append(unquote(name.decode("ascii", "replace"), errors="replace"))
    return names
