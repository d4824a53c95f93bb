"""Who may ask, and what is noted of every change."""

import re
from typing import Any

import pytest
from litestar import Litestar, get
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.testing import AsyncTestClient
from raw import exchange
from service import TOKEN, Api, Service, path

from application.ports import Caller
from domain.access import PERMISSIONS, Permission, Role
from domain.errors import LedgerError
from domain.values import SYSTEM
from infrastructure.database import Database
from web.browsers import Site
from web.composition.app import create_app
from web.composition.worker import Worker
from web.identity import Gate
from web.pages import VIEWS
from web.problems import answer_http, answer_refusal

OPEN = {"/livez", "/readyz"}
SIGN_IN = ("post", "/api/session")
PAGES = {*VIEWS, "/assets/{name:str}"}
UUID = re.compile(r"[0-9a-f]{32}")


# Tokens.


async def test_every_route_but_the_probes_and_the_schema_asks_for_a_token(api: Api) -> None:
    document = (await api.http.get("/schema/openapi.json")).json()
    routes = [(method, route) for route, item in document["paths"].items() for method in item]
    assert ("put", "/api/config/models/{model_id}") in routes
    before = await api.position()
    async with api.service.api(headers={"Authorization": ""}) as stranger:
        for method, route in routes:
            answer = await stranger.http.request(method, route.replace("{model_id}", "first"))
            is_open = route in OPEN or (method, route) == SIGN_IN
            assert (answer.status_code == 401) is not is_open, f"{method} {route}"
        for route in ("/schema", "/schema/openapi.json", "/schema/openapi.yaml"):
            assert (await stranger.http.get(route)).status_code == 200
    assert await api.position() == before


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN} {TOKEN}",
        f"Bearer {TOKEN},",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é🙂",
        "Bearer " + "x" * 10_000,
    ],
)
async def test_a_token_that_is_none_is_answered_with_401(shared_service: Service, sent: str | None) -> None:
    header = [] if sent is None else [b"Authorization: " + sent.encode()]
    answer = exchange(shared_service, "GET", "/api/config/models", header, token="")
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="Model Ledger"'
    told = answer.json()
    assert (told["status"], told["type"]) == (401, "urn:model-ledger:problem:unauthenticated")
    assert TOKEN.encode() not in answer.body


async def test_the_name_of_the_scheme_may_be_written_in_any_case(shared_service: Service) -> None:
    for scheme in ("bearer", "BEARER", "Bearer  "):
        header = f"Authorization: {scheme} {TOKEN} ".encode()
        assert exchange(shared_service, "GET", "/api/config/models", [header], token="").status == 200


async def test_the_token_comes_before_the_body_and_the_query(api: Api) -> None:
    async with api.service.api(headers={"Authorization": "Bearer wrong"}) as stranger:
        for answer in (
            await stranger.http.put(path("first"), content=b"no JSON"),
            await stranger.http.get(path("first"), params={"nonsense": 1}),
            await stranger.http.get(path("no such model")),
        ):
            assert answer.status_code == 401


# Permissions.


async def test_every_route_declares_its_permission() -> None:
    app = create_app(Worker(Database("postgresql://unused"), {}, 3, require_if_match=False))
    declared = {
        f"{method} {route.path}": handler.opt.get("permission")
        for route in app.routes
        for handler in route.route_handlers
        if isinstance(handler, HTTPRouteHandler)
        for method in handler.http_methods
        if method != "OPTIONS"  # Litestar's own, denied like every route that declares nothing
    }
    assert len(declared) > 15
    assert {name for name, permission in declared.items() if not isinstance(permission, Permission)} == set()
    is_open = {name for name, permission in declared.items() if permission is Permission.PUBLIC}
    pages = {f"{method} {place}" for method in ("GET", "HEAD") for place in PAGES}
    assert {name for name in is_open if not name.startswith("GET /schema")} - pages == {
        "GET /livez",
        "GET /readyz",
        "POST /api/session",
    }


class Anyone:
    """Knows one token."""

    def authenticate(self, token: str) -> Caller | None:
        return Caller(SYSTEM, Role.ADMINISTRATOR) if token == "known" else None


class Nobody:
    """Knows no session."""

    async def find(self, secret: str, *, used: bool = True) -> None: ...
    async def open(self, token: str, before: str | None) -> None: ...
    async def redeem(self, code: str, before: str | None) -> None: ...
    async def close(self, secret: str) -> None: ...


async def test_a_route_without_a_permission_is_denied_to_everyone() -> None:
    @get("/forgotten")
    async def forgotten() -> str:
        return "secret"

    @get("/mistyped", permission="models:raed")
    async def mistyped() -> str:
        return "secret"

    @get("/told", permission=Permission.READ_MODELS)
    async def told() -> str:
        return "told"

    handlers: Any = {LedgerError: answer_refusal, HTTPException: answer_http}
    app = Litestar(
        [forgotten, mistyped, told], guards=[Gate(Anyone(), Nobody(), Site())], exception_handlers=handlers
    )
    async with AsyncTestClient(app) as client:
        for route in ("/forgotten", "/mistyped"):
            answer = await client.get(route, headers={"Authorization": "Bearer known"})
            assert (answer.status_code, answer.json()["type"]) == (403, "urn:model-ledger:problem:forbidden")
            assert (await client.get(route)).status_code == 401
        assert (await client.get("/told", headers={"Authorization": "Bearer known"})).text == "told"


def test_every_role_is_in_the_table() -> None:
    assert PERMISSIONS.keys() == set(Role)


# What is noted.


async def test_every_event_names_who_asked_through_what_in_which_request_and_why(api: Api) -> None:
    model_id = api.new_id()
    note = {"X-Request-ID": f"req-{model_id}", "X-Change-Reason": "because"}
    default = "/api/config/default"
    answers = [
        await api.http.post(path(model_id), json=api.config(), headers=note),
        await api.update(model_id, note, max_tokens=1),
        await api.patch(model_id, note, max_tokens=2),
        await api.http.post(path(model_id, "rollback"), json={"to_version": 1}, headers=note),
        await api.http.put(default, json={"model_id": model_id}, headers=note),
        await api.http.delete(path(model_id), params={"new_default": "first"}, headers=note),
        await api.http.post(path(model_id, "restore"), headers=note),
    ]
    assert {answer.headers["x-request-id"] for answer in answers} == {note["X-Request-ID"]}
    page = (await api.http.get("/api/config/events", params={"limit": 8})).json()
    assert len({answer.json()["position"] for answer in answers}) == 7
    for entry in page["data"]:  # the deletion brought two
        assert entry["actor"] == {"id": "token:administrator", "name": "administrator", "kind": "token"}
        assert entry["source"] == "api"
        assert (entry["request_id"], entry["reason"]) == (note["X-Request-ID"], "because")


async def test_what_the_service_does_by_itself_is_noted_too(api: Api) -> None:
    created = (await api.history("first"))[-1]
    assert created["actor"] == {"id": "system", "name": "Model Ledger", "kind": "system"}
    assert (created["source"], bool(created["reason"])) == ("system", True)
    assert UUID.fullmatch(created["request_id"])


@pytest.mark.parametrize("sent", ["", "two words", "a/b", "<script>", "é", "x" * 101, "a;b"])
async def test_a_request_id_that_is_no_plain_word_is_replaced(api: Api, sent: str) -> None:
    answer = await api.http.get("/livez", headers={"X-Request-ID": sent.encode()})
    assert UUID.fullmatch(answer.headers["x-request-id"])


async def test_every_answer_has_a_request_id_and_problems_repeat_it(api: Api) -> None:
    word = {"X-Request-ID": "Plain.word_1-2"}
    for answer in (
        await api.http.get(path(api.new_id()), headers=word),
        await api.http.get("/nowhere", headers=word),
        await api.http.request("TRACE", path("first"), headers=word),
        await api.http.get(path("first"), headers={**word, "Authorization": "none"}),
        await api.http.get(path("first"), headers=word, params={"version": "x"}),
    ):
        assert answer.headers["x-request-id"] == answer.json()["request_id"] == word["X-Request-ID"]
    ids = [(await api.http.get("/livez")).headers["x-request-id"] for _ in range(3)]
    assert len({*ids}) == 3


async def test_a_reason_may_stand_in_the_query_the_header_or_the_body(api: Api) -> None:
    model_id = await api.create(max_tokens=1)

    async def noted(change: Any) -> str | None:
        answer = await change
        assert answer.status_code == 200, answer.text
        reason: str | None = (await api.history(model_id))[0]["reason"]
        return reason

    rollback = path(model_id, "rollback")
    query, header = {"reason": "in the query ✓"}, {"X-Change-Reason": "im Kopf: größer 🙂".encode()}
    config = api.config(max_tokens=2)
    assert await noted(api.http.put(path(model_id), json=config, params=query)) == "in the query ✓"
    body: dict[str, Any] = {"to_version": 1}
    assert await noted(api.http.post(rollback, json=body, headers=header)) == "im Kopf: größer 🙂"
    assert await noted(api.http.put(path(model_id), json=config, params=query, headers=header)) == (
        "in the query ✓"
    )
    body["reason"] = "in the body"
    assert await noted(api.http.post(rollback, json=body, params=query, headers=header)) == "in the body"
    blank = {"reason": "  "}
    assert await noted(api.http.put(path(model_id), json=config, params=blank)) is None


# Probes.


async def test_the_probes_answer_everyone_and_name_no_model(api: Api) -> None:
    async with api.service.api(headers={"Authorization": ""}) as stranger:
        alive = await stranger.http.get("/livez")
        assert (alive.status_code, alive.text) == (200, "ok")
        ready = await stranger.http.get("/readyz")
    assert ready.status_code == 200
    told = ready.json()
    assert told.keys() == {"status", "position", "follower", "degraded", "snapshot_age"}
    assert (told["status"], told["follower"], told["degraded"]) == ("ready", "listening", [])
    assert told["snapshot_age"] is None
    assert 0 < told["position"] <= await api.position()
