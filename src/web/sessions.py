"""Signing in and out with a browser."""

from datetime import datetime
from typing import Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException
from msgspec import Struct

from application.ports import Caller
from application.sessions import Session, Sessions
from domain.access import PERMISSIONS, Permission, Role
from domain.errors import InvalidInput, Problem
from domain.values import Actor
from web.bodies import read_struct
from web.browsers import Site
from web.identity import CHALLENGE

NO_STORE = {"Cache-Control": "no-store"}


class SignIn(Struct, frozen=True, forbid_unknown_fields=True):
    """What proves who signs in: an access token, or the code of a sign-in link; one of them."""

    token: str | None = None
    code: str | None = None

    def __repr__(self) -> str:
        """Without the secrets."""
        return "SignIn()"


class SessionView(Struct, frozen=True):
    """Who one is, and what one may do."""

    actor: Actor
    role: Role
    permissions: list[Permission]
    expires_at: datetime | None
    """When the session ends unless it is used before; null for a program with a token."""


class SessionController(Controller):
    """The browser's own session."""

    path = "/api/session"
    tags = ("session",)

    @post("/", status_code=204, permission=Permission.PUBLIC)
    async def sign_in(
        self,
        request: Request[Any, Any, Any],
        sessions: NamedDependency[Sessions],
        site: NamedDependency[Site],
    ) -> Response[None]:
        """Sign in with a token or with the code of a sign-in link; the answer sets the session's cookie."""
        site.refuse_foreign(request)
        proof = await read_struct(request, SignIn)
        before = site.secret(request)
        match proof:
            case SignIn(token=str(token), code=None):
                opened = await sessions.open(token, before)
                refusal = "this token is unknown or revoked"
            case SignIn(token=None, code=str(code)):
                opened = await sessions.redeem(code, before)
                refusal = "this link is void: it was used, or is older than a day"
            case _:
                raise InvalidInput([Problem("", "ambiguous", "a token or a code, exactly one of them")])
        if opened is None:
            raise NotAuthorizedException(detail=refusal, headers=CHALLENGE)
        return Response(None, status_code=204, headers=NO_STORE, cookies=[site.cookie(opened.secret)])

    @get("/", permission=Permission.USE_SESSION)
    async def read_session(self, request: Request[Caller, Session | None, Any]) -> Response[SessionView]:
        """Who one is, and what one may do."""
        caller, session = request.user, request.auth
        view = SessionView(
            caller.actor,
            caller.role,
            sorted(PERMISSIONS[caller.role]),
            session.expires_at if session else None,
        )
        return Response(view, headers=NO_STORE)

    @delete("/", status_code=204, permission=Permission.USE_SESSION)
    async def sign_out(
        self,
        request: Request[Any, Any, Any],
        sessions: NamedDependency[Sessions],
        site: NamedDependency[Site],
    ) -> Response[None]:
        """End the session, everywhere."""
        secret = site.secret(request)
        if request.auth is not None and secret is not None:
            await sessions.close(secret)
        return Response(None, status_code=204, headers=NO_STORE, cookies=[site.cookie("")])
