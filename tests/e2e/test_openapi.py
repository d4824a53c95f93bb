"""The published contract: complete, consistent, and what the service really answers and takes."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from litestar.handlers import HTTPRouteHandler
from raw import exchange
from records import call
from service import Api, Databases, path
from waiting import eventually, serves

from domain.configuration import CONSTRAINTS, FIELDS
from domain.values import ModelId
from infrastructure.database import Database
from infrastructure.usage import PostgresUsage
from web.composition.app import create_app
from web.composition.worker import Worker

Document = dict[str, Any]

MODEL: Final = "/api/config/models/{model_id}"
METHODS: Final = {"get", "put", "post", "delete", "patch", "options", "head", "trace"}
TYPES: Final = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}


@pytest.fixture
async def document(api: Api) -> Document:
    answer = await api.http.get("/schema/openapi.json")
    assert answer.status_code == 200
    found: Document = answer.json()
    return found


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for route, item in document["paths"].items():
        for method, operation in item.items():
            yield method, route, operation


def changes(method: str, route: str) -> bool:
    """Whether it records events."""
    return method != "get" and route.startswith("/api/config/") and not route.endswith("/test")


def mismatches(document: Document, schema: Document, value: Any, at: str = "") -> Iterator[str]:
    """Where a value is not what the schema tells; fields that it does not tell are mismatches, too."""
    if "$ref" in schema:
        yield from mismatches(document, referred(document, schema["$ref"]), value, at)
        return
    if "anyOf" in schema:
        found = [[*mismatches(document, one, value, at)] for one in schema["anyOf"]]
        yield from min(found, key=len)
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{at}: {value!r} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        yield from (f"{at}/{name}: missing" for name in schema.get("required", []) if name not in value)
        for name, inner in value.items():
            told = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if told:
                yield from mismatches(document, told, inner, f"{at}/{name}")
            else:
                yield f"{at}/{name}: not told"
    if isinstance(value, list) and "items" in schema:
        for number, inner in enumerate(value):
            yield from mismatches(document, schema["items"], inner, f"{at}/{number}")


def referred(document: Document, reference: str) -> Document:
    found: Document = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    if "allOf" in found:
        parts = [referred(document, one["$ref"]) for one in found["allOf"]]
        return {
            "type": "object",
            "properties": {name: told for part in parts for name, told in part["properties"].items()},
            "required": [name for part in parts for name in part["required"]],
        }
    return found


# The document.


async def test_the_document_is_openapi_3_1_and_consistent(document: Document) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"].keys() >= {"title", "version"}
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len({*ids}) == len(ids) > 15
    for method, route, operation in operations(document):
        assert method in METHODS
        assert operation["responses"], route
        assert operation["description"], f"{method} {route} says nothing"
        in_path = [told["name"] for told in operation.get("parameters", []) if told["in"] == "path"]
        assert {f"{{{name}}}" for name in in_path} == {part for part in route.split("/") if "{" in part}
        names = [(told["in"], told["name"]) for told in operation.get("parameters", [])]
        assert len({*names}) == len(names)
    references = [*every_reference(document)]
    assert references
    for reference in references:
        assert referred(document, reference), reference
    for schema in document["components"]["schemas"].values():
        assert {*schema.get("required", [])} <= schema.get("properties", {}).keys()


def every_reference(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for inner in value.values():
                yield from every_reference(inner)
        case list():
            for inner in value:
                yield from every_reference(inner)


async def test_the_document_lists_every_route(document: Document) -> None:
    app = create_app(Worker(Database("postgresql://unused"), {}, 3, require_if_match=False))
    routes = {
        (method.lower(), route.path_format)
        for route in app.routes
        for handler in route.route_handlers
        if isinstance(handler, HTTPRouteHandler)
        for method in handler.http_methods
        if method != "OPTIONS" and not route.path.startswith("/schema")
        if handler.include_in_schema is not False  # the pages
    }
    assert ("patch", MODEL) in routes
    assert {(method, route) for method, route, _ in operations(document)} == routes


async def test_json_and_yaml_are_the_same_document(api: Api, document: Document) -> None:
    assert (await api.http.get("/schema")).json() == document
    text = (await api.http.get("/schema/openapi.yaml")).text
    assert "openapi: 3.1" in text
    assert all(f"{route}:" in text for route in document["paths"])


async def test_all_but_the_probes_and_the_sign_in_ask_who_one_is(document: Document) -> None:
    schemes = document["components"]["securitySchemes"]
    assert schemes["token"] == {"type": "http", "scheme": "bearer"}
    assert (schemes["session"]["in"], schemes["session"]["name"]) == ("cookie", "model_ledger_session")
    assert document["security"] == [{"token": []}, {"session": []}]
    is_open = {(method, route) for method, route, told in operations(document) if told.get("security") == []}
    assert is_open == {("get", "/livez"), ("get", "/readyz"), ("post", "/api/session")}


async def test_every_problem_below_api_is_told(document: Document) -> None:
    for method, route, operation in operations(document):
        if route.startswith("/api/"):
            for status in ("4XX", "5XX"):
                [media_type] = operation["responses"][status]["content"]
                assert media_type == "application/problem+json"
            assert ("412" in operation["responses"]) is changes(method, route)
        for response in operation["responses"].values():
            assert "status_code" not in str(response), "the framework's own shape of errors"


# What the routes take.


async def test_every_body_is_told(document: Document) -> None:
    told = {
        f"{method} {route}": {
            kind: body["schema"]["$ref"].rpartition("/")[2] for kind, body in content.items()
        }
        for method, route, operation in operations(document)
        if route.startswith("/api/") and (content := operation.get("requestBody", {}).get("content"))
    }
    configuration = {"application/json": "ModelConfig"}
    assert told == {
        f"post {MODEL}": configuration,
        f"put {MODEL}": configuration,
        f"patch {MODEL}": {
            "application/merge-patch+json": "MergePatch",
            "application/json-patch+json": "JsonPatch",
        },
        f"post {MODEL}/rollback": {"application/json": "Rollback"},
        f"post {MODEL}/undo": {"application/json": "Undo"},
        f"post {MODEL}/restore": {"application/json": "Restoration"},
        "put /api/config/default": {"application/json": "DefaultChoice"},
        f"post {MODEL}/test": configuration,
        "post /api/session": {"application/json": "SignIn"},
    }
    required = {
        f"{method} {route}": operation["requestBody"]["required"]
        for method, route, operation in operations(document)
        if f"{method} {route}" in told
    }
    assert {name for name, needed in required.items() if not needed} == {
        f"post {MODEL}/restore",
        f"post {MODEL}/test",
    }


async def test_a_configuration_is_told_with_all_its_limits(document: Document) -> None:
    told = document["components"]["schemas"]["ModelConfig"]
    assert told["properties"].keys() == FIELDS.keys() == CONSTRAINTS.keys()
    assert told["additionalProperties"] is False
    assert {*told["required"]} == {name for name, field in FIELDS.items() if field.required}
    defaults = {name: schema["default"] for name, schema in told["properties"].items() if "default" in schema}
    assert (defaults["provider"], defaults["base_timeout"], defaults["enabled"]) == ("azure", 120, True)
    assert told["properties"]["max_tokens"].items() >= {
        ("type", "integer"),
        ("minimum", 1),
        ("maximum", 10_000_000),
    }


async def test_the_limits_that_are_told_are_the_ones_that_hold(api: Api, document: Document) -> None:
    model_id = await api.create(max_timeout=86_400)
    limits = 0
    for name, told in document["components"]["schemas"]["ModelConfig"]["properties"].items():
        for schema in told.get("anyOf", [told]):
            for value, fits in edges(schema):
                limits += 1
                answer = await api.patch(model_id, **{name: value})
                pointers = {error["pointer"] for error in answer.json().get("errors", [])}
                assert (f"/{name}" in pointers) is not fits, f"{name}: {value!r:.50}"
    assert limits > 20


def edges(schema: Document) -> Iterator[tuple[Any, bool]]:
    """Values at the limits, and whether they are within."""
    step = 1 if schema.get("type") == "integer" else 0.5
    if "minimum" in schema:
        yield from ((schema["minimum"], True), (schema["minimum"] - step, False))
    if "exclusiveMinimum" in schema:
        yield from ((schema["exclusiveMinimum"] + step, True), (schema["exclusiveMinimum"], False))
    if "maximum" in schema and "exclusiveMinimum" not in schema:
        yield (schema["maximum"], True)
    if "maximum" in schema:
        yield (schema["maximum"] + step, False)
    if "maxLength" in schema:
        yield ("x" * (schema["maxLength"] + 1), False)
    if schema.get("minLength"):
        yield ("x" * schema["minLength"], True)
        yield ("", False)


async def test_what_a_change_may_carry_is_told(document: Document) -> None:
    carried = {"reason", "X-Change-Reason", "If-Match", "If-None-Match", "Idempotency-Key"}
    for method, route, operation in operations(document):
        if route.startswith("/api/"):
            told = {parameter["name"] for parameter in operation.get("parameters", [])}
            assert (told >= carried) is changes(method, route), f"{method} {route}"


async def test_the_parameters_of_a_difference_are_required(document: Document) -> None:
    told = {
        parameter["name"]: (parameter["required"], parameter["schema"]["type"])
        for parameter in document["paths"][f"{MODEL}/diff"]["get"]["parameters"]
    }
    assert told == {"model_id": (True, "string"), "from": (True, "integer"), "to": (True, "integer")}


async def test_the_gateways_requests_are_told_with_what_it_asks_for(document: Document) -> None:
    told = {
        route.removeprefix("/v1/"): (
            referred(document, operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]),
            operation["responses"],
        )
        for method, route, operation in operations(document)
        if route.startswith("/v1/") and method == "post"
    }
    required = {route: set(request["required"]) for route, (request, _) in told.items()}
    assert required == {
        "chat/completions": {"model", "messages"},
        "embeddings": {"model", "input"},
        "responses": {"model"},
    }
    for route, (request, responses) in told.items():
        assert "additionalProperties" not in request, "unknown fields pass"
        kinds = {"application/json"} if route == "embeddings" else {"application/json", "text/event-stream"}
        assert responses["200"]["content"].keys() == kinds
        assert "x-model-ledger-version" in responses["200"]["headers"]


# What the routes answer.


async def test_every_answer_is_as_it_is_told(api: Api, document: Document, databases: Databases) -> None:
    model_id, other = await api.create(description="d", max_retries=1), await api.create()
    async with Database(databases.app_url(api.service.database)).pool(1) as pool:
        failed = call(model_id=ModelId(model_id), version=2, status=502, first_byte=None, tokens=None)
        await PostgresUsage(pool).write(1, [call(model_id=ModelId(model_id)), failed])
    await api.patch(model_id, max_tokens=1, max_retries=None)
    default, json = "/api/config/default", {"Content-Type": "application/json"}
    stale = {**json, "If-Match": '"1"'}
    asked: list[tuple[str, str, str, Any, dict[str, str]]] = [
        ("get", "/api/config/models", "", None, {}),
        ("get", MODEL, "", None, {}),
        ("get", MODEL, "?version=1", None, {}),
        ("get", f"{MODEL}/history", "?limit=1", None, {}),
        ("get", f"{MODEL}/diff", "?from=1&to=2", None, {}),
        ("get", f"{MODEL}/blame", "", None, {}),
        ("get", f"{MODEL}/usage", "", None, {}),
        ("get", f"{MODEL}/usage", "?by=hour", None, {}),
        ("get", f"{MODEL}/usage", "?by=week", None, {}),
        ("post", f"{MODEL}/rollback", "?dry_run=true", {"to_version": 1}, {}),
        ("put", MODEL, "", api.config(), stale),
        ("put", MODEL, "", {"max_tokens": 0, "x": 1}, {}),
        ("post", MODEL, "", api.config(), {}),
        ("put", MODEL, "", api.config(), {}),
        ("post", f"{MODEL}/rollback", "", {"to_version": 1}, {}),
        ("post", f"{MODEL}/undo", "?dry_run=true", {"version": 2}, {}),
        ("post", f"{MODEL}/undo", "", {"version": 2}, {}),
        ("post", f"{MODEL}/undo", "", {"version": 1}, {}),
        ("get", default, "", None, {}),
        ("put", default, "", {"model_id": model_id}, {}),
        ("put", default, "", {"model_id": None}, {}),
        ("get", default, "", None, {}),
        ("put", default, "", {"model_id": "first"}, stale),
        ("put", default, "", {"model_id": "first"}, {}),
        ("delete", MODEL, "", None, {}),
        ("get", MODEL, "", None, {}),
        ("post", f"{MODEL}/restore", "", {}, {}),
        ("get", "/api/config/events", "?limit=10", None, {}),
        ("get", "/readyz", "", None, {}),
        ("get", "/api/session", "", None, {}),
        ("get", "/api/config/workers", "", None, {}),
        ("post", f"{MODEL}/test", "", None, {}),
        ("get", "/api/config/events", "?limit=0", None, {}),
    ]
    statuses = set()
    for method, route, query, body, headers in asked:
        target = route.replace("{model_id}", model_id) + query
        answer = await api.http.request(method, target, json=body, headers=headers)
        statuses.add(answer.status_code)
        responses = document["paths"][route][method]["responses"]
        told = responses.get(str(answer.status_code)) or responses[f"{answer.status_code // 100}XX"]
        schema = told["content"][answer.headers["content-type"]]["schema"]
        assert [*mismatches(document, schema, answer.json())] == [], f"{method} {target}"
    assert statuses == {200, 400, 404, 412}
    created = await api.http.post(path(api.new_id()), json=api.config())
    schema = document["paths"][MODEL]["post"]["responses"]["201"]["content"]["application/json"]["schema"]
    assert [*mismatches(document, schema, created.json())] == []
    assert other != model_id


async def test_the_gateways_answers_are_as_they_are_told(api: Api, document: Document) -> None:
    model_id = await api.create()
    await eventually(lambda: serves(api, model_id, 1))
    for route in ("chat/completions", "embeddings", "responses"):
        responses = document["paths"][f"/v1/{route}"]["post"]["responses"]
        body = {"model": model_id, "messages": [{"role": "user", "content": "x"}], "input": "x"}
        answer = await api.http.post(f"/v1/{route}", json=body)
        assert answer.status_code == 200
        told = {name for name in responses["200"]["headers"] if name.startswith("x-model-ledger-")}
        sent = {name for name in answer.headers if name.startswith("x-model-ledger-")}
        assert sent == told - {"x-model-ledger-asked", "x-model-ledger-adjusted"}
        refused = await api.http.post(f"/v1/{route}", json={})
        schema = responses["4XX"]["content"][refused.headers["content-type"]]["schema"]
        assert [*mismatches(document, schema, refused.json())] == []


async def test_the_export_and_the_stream_are_told_with_their_media_types(document: Document) -> None:
    events = document["paths"]["/api/config/events"]["get"]["responses"]["200"]["content"]
    assert events.keys() == {"application/json", "application/jsonl", "text/csv"}
    stream = document["paths"]["/api/config/events/stream"]["get"]["responses"]["200"]["content"]
    assert stream.keys() == {"text/event-stream"}


async def test_an_unknown_schema_page_is_no_page(api: Api) -> None:
    assert exchange(api.service, "GET", "/schema/nothing.json").status == 404


def test_the_check_of_answers_finds_what_is_wrong() -> None:
    document = {
        "components": {"schemas": {"A": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
    }
    schema = {"type": "array", "items": {"$ref": "#/components/schemas/A"}}
    assert [*mismatches(document, schema, [{"n": 1}, {}])] == []
    for wrong in ({}, [1], [{"n": True}], [{"n": "1"}], [{"m": 1}]):
        assert [*mismatches(document, schema, wrong)]
    either = {"anyOf": [{"type": "null"}, {"enum": ["a"]}]}
    assert [*mismatches(document, either, "a")] == [*mismatches(document, either, None)] == []
    assert [*mismatches(document, either, "b")]
