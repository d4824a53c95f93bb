"""What the API cannot take: each time a problem that names the field, never a 500, never an event."""

import json
from typing import Any, Final
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw import RawAnswer, exchange
from service import Api, Service

from domain.configuration import FIELDS

MODEL: Final = "/api/config/models/first"
HISTORY: Final = f"{MODEL}/history"
DIFF: Final = f"{MODEL}/diff"
ROLLBACK: Final = f"{MODEL}/rollback"
RESTORE: Final = f"{MODEL}/restore"
EVENTS: Final = "/api/config/events"
DEFAULT: Final = "/api/config/default"

JSON: Final = b"Content-Type: application/json"
MERGE: Final = b"Content-Type: application/merge-patch+json"
PATCH: Final = b"Content-Type: application/json-patch+json"
WRITES: Final = [
    pytest.param("POST", "/api/config/models/new", JSON, id="create"),
    pytest.param("PUT", MODEL, JSON, id="update"),
    pytest.param("PATCH", MODEL, MERGE, id="merge patch"),
    pytest.param("PATCH", MODEL, PATCH, id="json patch"),
    pytest.param("POST", ROLLBACK, JSON, id="rollback"),
    pytest.param("POST", RESTORE, JSON, id="restore"),
    pytest.param("PUT", DEFAULT, JSON, id="default"),
]
"""Every route that reads a body."""


def refused(answer: RawAnswer, status: int = 400) -> dict[str, str]:
    """The code of each broken rule by its pointer, of an answer that must be a problem (RFC 9457)."""
    assert answer.status == status, answer.body[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told.keys() >= {"type", "title", "status", "detail", "request_id"}
    assert told["type"].startswith("urn:model-ledger:problem:")
    assert (told["status"], told["request_id"]) == (status, answer.headers["x-request-id"])
    assert told["title"]
    assert told["detail"]
    assert len(answer.body) < 100_000
    for error in told.get("errors", []):
        assert error.keys() == {"pointer", "code", "detail"}
        assert error["pointer"] == "" or error["pointer"].startswith("/")
    return {error["pointer"]: error["code"] for error in told.get("errors", [])}


def config_bytes(api: Api, **changes: Any) -> bytes:
    return json.dumps(api.config(**changes)).encode()


# Bodies.

BODIES: Final = {
    "blank": (b" ", "invalid_json"),
    "half of it": (b'{"name":', "invalid_json"),
    "two of them": (b"{}{}", "invalid_json"),
    "no JSON": (b"name=first", "invalid_json"),
    "a trailing comma": (b'{"name":"x",}', "invalid_json"),
    "single quotes": (b"{'name':'x'}", "invalid_json"),
    "NaN": (b'{"max_tokens":NaN}', "invalid_json"),
    "Infinity": (b'{"max_tokens":-Infinity}', "invalid_json"),
    "a number beyond all floats": (b'{"base_timeout":1e400}', "invalid_json"),
    "a number of 5,000 digits": (b'{"max_tokens":' + b"9" * 5_000 + b"}", "invalid_json"),
    "a lone surrogate": (b'{"name":"\\ud800"}', "invalid_json"),
    "a lone surrogate as a key": (b'{"\\udfff":"x"}', "invalid_json"),
    "bytes that are no UTF-8": (b'{"name":"\xff\xfe"}', "invalid_json"),
    "a surrogate in UTF-8": (b'{"name":"\xed\xa0\x80"}', "invalid_json"),
    "an overlong slash": (b'{"name":"\xc0\xaf"}', "invalid_json"),
    "UTF-16": ('{"name":"x"}'.encode("utf-16"), "invalid_json"),
    "a byte order mark": (b'\xef\xbb\xbf{"name":"x"}', "invalid_json"),
    "a bare control character": (b'{"name":"a\x01b"}', "invalid_json"),
    "100,000 lists in each other": (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
    "100,000 objects in each other": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
    "a value": (b"1", "invalid_"),
    "null": (b"null", "invalid_"),
    "a text": (b'"first"', "invalid_"),
}


@pytest.mark.parametrize("label", BODIES)
@pytest.mark.parametrize(("method", "target", "content_type"), WRITES)
async def test_a_body_that_is_no_document_is_refused(
    api: Api, method: str, target: str, content_type: bytes, label: str
) -> None:
    body, code = BODIES[label]
    before = await api.position()
    [(pointer, told)] = refused(exchange(api.service, method, target, [content_type], body)).items()
    assert pointer == ""
    assert told.startswith(code)
    assert await api.position() == before


@pytest.mark.parametrize("depth", [50, 300, 900, 1_100, 5_000])
@pytest.mark.parametrize(("method", "target", "content_type"), WRITES)
async def test_no_depth_of_nesting_breaks_anything(
    api: Api, method: str, target: str, content_type: bytes, depth: int
) -> None:
    before = await api.position()
    lists, objects = b"[" * depth + b"]" * depth, b'{"name":' * depth + b"1" + b"}" * depth
    operation = b'[{"op":"add","path":"/name","value":%s}]'
    for body in (lists, objects, operation % lists, operation % objects, b'{"name":%s}' % lists):
        answer = exchange(api.service, method, target, [content_type], body)
        refused(answer, 409 if answer.status == 409 and content_type == PATCH else 400)
    assert await api.position() == before


@pytest.mark.parametrize(("method", "target", "content_type"), WRITES)
async def test_a_key_that_stands_twice_is_refused_and_named(
    api: Api, method: str, target: str, content_type: bytes
) -> None:
    before = await api.position()
    for body, pointer in (
        (b'{"name":"a","max_tokens":1,"name":"b"}', "/name"),
        (b'{"to_version":1,"to_version":2}', "/to_version"),
        (b'{"a/b~c":1,"a/b~c":1}', "/a~1b~0c"),
        (b'{"\\u0061":1,"a":1}', "/a"),
        (b'[{"op":"remove","path":"/name","path":"/x"}]', "/path"),
        (b'{"inner":{"x":1,"x":1}}', "/x"),
    ):
        answer = exchange(api.service, method, target, [content_type], body)
        assert refused(answer) == {pointer: "doubled_key"}
    assert await api.position() == before


@pytest.mark.parametrize(("method", "target", "content_type"), WRITES)
async def test_another_media_type_is_refused_with_415(
    api: Api, method: str, target: str, content_type: bytes
) -> None:
    before = await api.position()
    for header in (
        [b"Content-Type: text/plain"],
        [b"Content-Type: application/x-www-form-urlencoded"],
        [b"Content-Type: multipart/form-data; boundary=x"],
        [b"Content-Type: application/jsonx"],
        [b"Content-Type: ,"],
        [],
    ):
        answer = exchange(api.service, method, target, header, b"{}")
        refused(answer, 415)
        assert "accept-patch" in answer.headers or "accept" in answer.headers
    assert await api.position() == before


@pytest.mark.parametrize(("method", "target", "content_type"), WRITES)
async def test_a_body_that_is_too_long_is_refused_with_413(
    api: Api, method: str, target: str, content_type: bytes
) -> None:
    before = await api.position()
    body = b'{"name":"' + b"x" * 11_000_000 + b'"}'
    refused(exchange(api.service, method, target, [content_type], body), 413)
    # Without a length it is counted while it arrives.
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (2_000_000, b" " * 2_000_000)
    headers = [content_type, b"Transfer-Encoding: chunked\r\n\r\n" + chunked]
    refused(exchange(api.service, method, target, headers), 413)
    assert await api.position() == before


async def test_only_a_restore_can_do_without_a_body(api: Api) -> None:
    before = await api.position()
    for write in WRITES:
        method, target, content_type = write.values
        answer = exchange(api.service, method, target, [content_type], b"")
        if target == RESTORE:
            assert answer.json()["type"] == "urn:model-ledger:problem:model-exists"
        else:
            assert refused(answer) == {"": "invalid_json"}
    assert await api.position() == before


async def test_a_media_type_may_have_parameters_and_any_case(api: Api) -> None:
    for name in (b"Application/JSON; charset=utf-8", b"application/json;charset=UTF-8"):
        body = config_bytes(api)
        target = f"/api/config/models/{api.new_id()}"
        assert exchange(api.service, "POST", target, [b"Content-Type: " + name], body).status == 201


# Fields.


async def test_all_broken_rules_of_a_configuration_are_told_at_once(api: Api) -> None:
    before = await api.position()
    broken = {
        "name": " ",
        "max_tokens": "many",
        "supports_streaming": 1,
        "provider": "openai",
        "azure_endpoint": "ftp://x",
        "base_timeout": 0,
        "max_timeout": 1e9,
        "token_factor": -1,
        "deployment": "../x",
        "max_retries": 11,
        "color": "red",
        "version": 7,
        "a/b~c": None,
    }
    expected = {
        "/name": "invalid_text",
        "/max_tokens": "invalid_value",
        "/supports_streaming": "invalid_value",
        "/supports_temperature": "required",
        "/base_url": "required",
        "/azure_endpoint": "not_for_provider",
        "/base_timeout": "invalid_value",
        "/max_timeout": "invalid_value",
        "/token_factor": "invalid_value",
        "/deployment": "invalid_value",
        "/max_retries": "invalid_value",
        "/color": "unknown_field",
        "/version": "read_only",
        "/a~1b~0c": "unknown_field",
    }
    body = json.dumps(broken).encode()
    for method, target in (("PUT", MODEL), ("POST", f"/api/config/models/{api.new_id()}")):
        assert refused(exchange(api.service, method, target, [JSON], body)) == expected
    assert await api.position() == before


@pytest.mark.parametrize("field", FIELDS)
async def test_each_field_refuses_values_of_another_type(api: Api, field: str) -> None:
    before = await api.position()
    wrong: list[Any] = [{}, {"a": 1}, [None], "\x00", "\U0010ffff" * 3_000, -1, 10**30, 1.5e308]
    if FIELDS[field].type is bool or field in {"reasoning", "enabled"}:
        wrong += [0, 1, "true"]
    if field != "credential":
        wrong.append(None)
    if field not in {"aliases", "fallbacks"}:
        wrong.append([])
    for value in wrong:
        body = config_bytes(api, **{field: value})
        for method, content_type in (("PUT", JSON), ("PATCH", MERGE)):
            if (value is None and method == "PATCH") or (field == "token_factor" and value == 10**30):
                continue
            sent = body if method == "PUT" else json.dumps({field: value}).encode()
            told = refused(exchange(api.service, method, MODEL, [content_type], sent))
            assert {f"/{field}", f"/{field}/0"} & told.keys(), value
    assert await api.position() == before


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        ("POST", ROLLBACK, {}, {"/to_version": "required"}),
        ("POST", ROLLBACK, [], {"": "invalid_type"}),
        (
            "POST",
            ROLLBACK,
            {"to_version": "1", "credential": "steal", "reason": 3, "when": "now"},
            {
                "/to_version": "invalid_value",
                "/credential": "invalid_value",
                "/reason": "invalid_value",
                "/when": "unknown_field",
            },
        ),
        ("POST", ROLLBACK, {"to_version": 1.5}, {"/to_version": "invalid_value"}),
        ("POST", ROLLBACK, {"to_version": True}, {"/to_version": "invalid_value"}),
        ("POST", ROLLBACK, {"to_version": None}, {"/to_version": "invalid_value"}),
        ("POST", ROLLBACK, {"to_version": 1, "reason": "a\x00b"}, {"/reason": "invalid_text"}),
        ("POST", ROLLBACK, {"to_version": 1, "reason": "x" * 1_001}, {"/reason": "invalid_text"}),
        (
            "POST",
            RESTORE,
            {"to_version": "x", "y": 1},
            {"/to_version": "invalid_value", "/y": "unknown_field"},
        ),
        ("PUT", DEFAULT, {}, {"/model_id": "required"}),
        ("PUT", DEFAULT, {"model_id": 7, "id": "x"}, {"/model_id": "invalid_value", "/id": "unknown_field"}),
        ("PUT", DEFAULT, {"model_id": "../x"}, {"/model_id": "invalid_id"}),
        ("PUT", DEFAULT, {"model_id": ""}, {"/model_id": "invalid_id"}),
    ],
)
async def test_the_small_bodies_are_told_all_that_is_wrong(
    api: Api, method: str, target: str, body: object, expected: dict[str, str]
) -> None:
    before = await api.position()
    assert refused(exchange(api.service, method, target, [JSON], json.dumps(body).encode())) == expected
    assert await api.position() == before


async def test_a_body_with_thousands_of_broken_rules_gets_an_answer_of_bounded_length(api: Api) -> None:
    unknown = json.dumps({f"unknown-{number}-{'x' * 30}": 1 for number in range(15_000)}).encode()
    routes = (("PUT", MODEL, JSON), ("PATCH", MODEL, MERGE), ("POST", ROLLBACK, JSON))
    for method, target, content_type in routes:
        answer = exchange(api.service, method, target, [content_type], unknown)
        assert len(refused(answer)) == 100
        assert " more" in answer.json()["detail"]


async def test_looking_for_doubled_keys_takes_no_quadratic_time(api: Api) -> None:
    keys = [f'"{number}":1' for number in range(90_000)]
    body = ("{" + ",".join([*keys, keys[-1]]) + "}").encode()
    assert refused(exchange(api.service, "PUT", MODEL, [JSON], body)) == {"/89999": "doubled_key"}


# Paths.


@pytest.mark.parametrize(
    "model_id",
    [
        "%00",
        "a%00b",
        "a%0d%0aSet-Cookie:x=1",
        "a%0a",
        "%20",
        "a%20b",
        "a%09b",
        "..",
        "%2e%2e",
        ".",
        "-a",
        "_a",
        "a%2Fb",
        "..%2F..%2Fetc%2Fpasswd",
        "a%2fb",
        "a%5Cb",
        "a%3Fb",
        "a%23b",
        "a%25b",
        "a%252Fb",
        "a+b",
        "a@b",
        "a*",
        "a'b",
        "a%22b",
        "a%3Cscript%3E",
        "%F0%9F%99%82",
        "caf%C3%A9",
        "a%E2%80%AEb",
        "%E2%81%A6a",
        "a%E2%80%8Bb",
        "%EF%BC%91",
        "%D9%A1",
        "%ff",
        "%ed%a0%80",
        "%zz",
        "%",
        "a" * 129,
        "a" * 10_000,
        "$%7Bjndi%7D",
    ],
)
async def test_an_id_that_is_none_is_refused_wherever_it_stands(api: Api, model_id: str) -> None:
    before = await api.position()
    target = f"/api/config/models/{model_id}"
    body = config_bytes(api)
    for method, route, sent in (
        ("GET", target, None),
        ("POST", target, body),
        ("PUT", target, body),
        ("DELETE", target, None),
        ("GET", f"{target}/history", None),
        ("GET", f"{target}/diff?from=1&to=1", None),
        ("GET", f"{target}/blame", None),
        ("POST", f"{target}/rollback", b'{"to_version":1}'),
        ("POST", f"{target}/restore", b"{}"),
    ):
        told = refused(exchange(api.service, method, route, [JSON] if sent else [], sent))
        assert told == {"/model_id": "invalid_id"}, f"{method} {route}"
    for name, route in (("new_default", target.replace(model_id, "first")), ("model", EVENTS)):
        method = "DELETE" if name == "new_default" else "GET"
        told = refused(exchange(api.service, method, f"{route}?{name}={model_id}"))
        assert told in ({f"/{name}": "invalid_id"}, {f"/{name}": "invalid_text"})
    assert await api.position() == before


async def test_an_escaped_slash_chooses_no_other_route(api: Api) -> None:
    model_id = await api.create(max_tokens=1)
    await api.update(model_id, max_tokens=2)
    before = await api.position()
    for method, more in (("GET", "history"), ("POST", "rollback"), ("POST", "restore")):
        target = f"/api/config/models/{model_id}%2F{more}"
        body = b'{"to_version":1}' if method == "POST" else None
        answer = exchange(api.service, method, target, [JSON] if body else [], body)
        assert refused(answer) == {"/model_id": "invalid_id"}
    assert await api.position() == before


@pytest.mark.parametrize(
    "target",
    [
        "/api/config/models/first/../events",
        "/api/config/models/../models",
        "/api/config/./models/first",
        "/api/config/models/first/nothing",
        "/api/config/nothing",
        "/api",
        "/nothing",
        "//nothing",
    ],
)
async def test_a_path_is_taken_as_it_is_written(api: Api, target: str) -> None:
    refused(exchange(api.service, "GET", target), 404)


async def test_a_method_that_a_route_does_not_have_is_answered_with_405(api: Api) -> None:
    for method, target in (
        ("PUT", "/api/config/models"),
        ("POST", EVENTS),
        ("DELETE", DEFAULT),
        ("TRACE", MODEL),
        ("GET", ROLLBACK),
    ):
        answer = exchange(api.service, method, target)
        refused(answer, 405)
        assert answer.headers["allow"]


# Queries.


@pytest.mark.parametrize(
    ("target", "pointer"),
    [
        (f"{MODEL}?version=x", "/version"),
        (f"{MODEL}?version=", "/version"),
        (f"{MODEL}?version=1.5", "/version"),
        (f"{MODEL}?version=%00", "/version"),
        (f"{MODEL}?version={'9' * 5_000}", "/version"),
        (f"{MODEL}?at=-1", "/at"),
        (f"{MODEL}?at={2**63}", "/at"),
        (f"{MODEL}?at=x", "/at"),
        (f"{MODEL}?at=1&as_of=2026-01-01T00:00:00Z", "/at"),
        (f"{MODEL}?version=1&at=1", "/version"),
        (f"{MODEL}?version=1&as_of=2026-01-01T00:00:00Z", "/version"),
        ("/api/config/models?at=-1", "/at"),
        ("/api/config/models?at=1&as_of=2026-01-01T00:00:00Z", "/at"),
        ("/api/config/models?as_of=yesterday", "/as_of"),
        (f"{HISTORY}?cursor=x", "/cursor"),
        (f"{HISTORY}?cursor=", "/cursor"),
        (f"{HISTORY}?cursor=-1", "/cursor"),
        (f"{HISTORY}?cursor={'9' * 19}", "/cursor"),
        (f"{HISTORY}?cursor=%D9%A1", "/cursor"),
        (f"{HISTORY}?limit=0", "/limit"),
        (f"{HISTORY}?limit=-1", "/limit"),
        (f"{HISTORY}?limit=501", "/limit"),
        (f"{HISTORY}?limit=x", "/limit"),
        (f"{HISTORY}?limit={'9' * 5_000}", "/limit"),
        (f"{DIFF}?from=1", "/to"),
        (f"{DIFF}?to=1", "/from"),
        (f"{DIFF}?from=x&to=1", "/from"),
        (f"{DIFF}?from=1&to=", "/to"),
        (f"{EVENTS}?limit=0", "/limit"),
        (f"{EVENTS}?limit=0&format=jsonl", "/limit"),
        (f"{EVENTS}?cursor=1e3", "/cursor"),
        (f"{EVENTS}?model=.", "/model"),
        (f"{EVENTS}?source=elsewhere", "/source"),
        (f"{EVENTS}?format=csv2", "/format"),
        (f"{EVENTS}?since=now", "/since"),
        (f"{EVENTS}?until=1700000000", "/until"),
        (f"{EVENTS}?text=%00", "/text"),
        (f"{EVENTS}?text={'x' * 501}", "/text"),
        (f"{EVENTS}?actor=a%00b", "/actor"),
        (f"{EVENTS}?type=%00", "/type"),
        (f"{EVENTS}/stream?after=-1", "/after"),
        (f"{EVENTS}/stream?after=x", "/after"),
        (f"{MODEL}?nonsense=1", "/nonsense"),
        (f"{MODEL}?Version=1", "/Version"),
        (f"{MODEL}?%00=1", "/\x00"),
        (f"{MODEL}?views=1", "/views"),
        (f"{MODEL}?model_id=x", "/model_id"),
        (f"{MODEL}?reason=x", "/reason"),
        (f"{MODEL}?at=1&at=2", "/at"),
        (f"{EVENTS}?limit=1&limit=1", "/limit"),
        (f"{EVENTS}?text=%ff%fe", "/text"),
        (f"{EVENTS}?text=%ED%A0%80", "/text"),
    ],
)
async def test_a_query_that_is_not_understood_is_refused_and_named(
    api: Api, target: str, pointer: str
) -> None:
    assert pointer in refused(exchange(api.service, "GET", target))


@pytest.mark.parametrize(
    "instant",
    [
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00Z",
        "2026-W05-6T12:00:00Z",
        "20260131T120000Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T24:00:01Z",
        "2026-01-31T12:00:60Z",
        "2026-01-31T12:00:00%00Z",
        "2026-01-31T12:00:00+2:00",
        "2026-01-31T12:00:00+25:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "%D9%A2026-01-31T12:00:00Z",
        "1" * 20_000,
        "",
    ],
)
async def test_an_instant_that_is_none_is_refused_wherever_it_stands(api: Api, instant: str) -> None:
    for asked in (f"{MODEL}?as_of", "/api/config/models?as_of", f"{EVENTS}?since", f"{EVENTS}?until"):
        answer = exchange(api.service, "GET", f"{asked}={instant}")
        assert refused(answer) == {f"/{asked.partition('?')[2]}": "invalid_instant"}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("dry_runn=true", "/dry_runn"),
        ("dry-run=true", "/dry-run"),
        ("DRY_RUN=true", "/DRY_RUN"),
        ("dry_run=perhaps", "/dry_run"),
        ("dry_run=", "/dry_run"),
        ("dry_run=true&dry_run=false", "/dry_run"),
        ("reason=a%00b", "/reason"),
        (f"reason={'x' * 1_001}", "/reason"),
        ("reason=a%0Ab", "/reason"),
    ],
)
async def test_a_mistyped_preview_becomes_no_change(api: Api, query: str, pointer: str) -> None:
    model_id = await api.create(max_tokens=1)
    await api.update(model_id, max_tokens=2)
    before = await api.position()
    target = f"/api/config/models/{model_id}/rollback?{query}"
    assert pointer in refused(exchange(api.service, "POST", target, [JSON], b'{"to_version":1}'))
    assert await api.position() == before


async def test_the_gateway_refuses_queries_in_its_own_shape(api: Api) -> None:
    answer = await api.http.get("/v1/models", params={"nonsense": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_parameter")


# Headers.


@pytest.mark.parametrize(
    ("header", "pointer"),
    [
        (b"If-Match: 1", "/if-match"),
        (b"If-Match: ", "/if-match"),
        (b'If-Match: "1', "/if-match"),
        (b'If-Match: "1" "2"', "/if-match"),
        (b'If-Match: "1",', "/if-match"),
        (b'If-Match: w/"1"', "/if-match"),
        (b"If-Match: **", "/if-match"),
        (b'If-Match: "\xc3\xa9"', "/if-match"),
        (b"If-None-Match: 1", "/if-none-match"),
        (b'If-None-Match: "1"', "/if-none-match"),
        (b"If-None-Match: \xff", "/if-none-match"),
        (b"Idempotency-Key: ", "/idempotency-key"),
        (b'Idempotency-Key: ""', "/idempotency-key"),
        (b'Idempotency-Key: "a', "/idempotency-key"),
        (b"Idempotency-Key: a b", "/idempotency-key"),
        (b"Idempotency-Key: \xc3\xa9", "/idempotency-key"),
        (b"Idempotency-Key: \xff", "/idempotency-key"),
        (b"Idempotency-Key: " + b"x" * 256, "/idempotency-key"),
        (b"X-Change-Reason: \xff\xfe", "/x-change-reason"),
        (b"X-Change-Reason: \xed\xa0\x80", "/x-change-reason"),
        (b"X-Change-Reason: " + b"x" * 1_001, "/x-change-reason"),
        (b"X-Change-Reason: a\xc2\x85b", "/x-change-reason"),
    ],
)
async def test_a_header_that_is_not_understood_is_refused_and_named(
    api: Api, header: bytes, pointer: str
) -> None:
    before = await api.position()
    body = config_bytes(api, name="Changed")
    for method, target, sent in (
        ("PUT", MODEL, body),
        ("POST", f"/api/config/models/{api.new_id()}", body),
        ("DELETE", MODEL, None),
        ("PUT", DEFAULT, b'{"model_id":null}'),
        ("POST", ROLLBACK, b'{"to_version":1}'),
    ):
        answer = exchange(api.service, method, target, [header, *([JSON] if sent else [])], sent)
        assert [*refused(answer)] == [pointer], f"{method} {target}"
    assert await api.position() == before


async def test_a_broken_condition_of_a_read_and_a_broken_place_in_the_stream_are_named(api: Api) -> None:
    answer = exchange(api.service, "GET", MODEL, [b'If-None-Match: "1'])
    assert [*refused(answer)] == ["/if-none-match"]
    for place in (b"x", b"-1", b"1.5", b"9" * 19, b"\xff"):
        answer = exchange(api.service, "GET", f"{EVENTS}/stream", [b"Last-Event-ID: " + place])
        assert refused(answer) == {"/last-event-id": "invalid_cursor"}


# Anything at all.

SEARCH: Final = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

hard_texts = st.sampled_from(["", "\x00", "\u2028", "\U0010ffff", "\u202e", '"\\/', "a/b", "~", "é"])
texts = hard_texts | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(10**30)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from([*FIELDS, "to_version", "reason", "credential", "model_id", "version"]) | texts
objects = st.dictionaries(names, values, max_size=6)
pointers = st.sampled_from(["", "/", "/-", "/name/0", "/~1", *(f"/{field}" for field in FIELDS)]) | texts
parameters = st.sampled_from(
    ["version", "at", "as_of", "cursor", "limit", "from", "to", "model", "actor", "type", "since", "text"]
)
operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": pointers},
    optional={"from": pointers, "value": values},
)
bodies = (objects | st.lists(operations | objects, max_size=4) | values).map(
    lambda value: json.dumps(value).encode()
) | st.binary(max_size=40)


@SEARCH
@given(
    route=st.sampled_from([write.values for write in WRITES]),
    body=bodies,
    changes=st.none() | objects,
)
def test_no_body_breaks_the_service(
    shared_service: Service, route: tuple[str, str, bytes], body: bytes, changes: dict[str, object] | None
) -> None:
    method, target, content_type = route
    if changes is not None and method == "PUT":
        upstream = shared_service.upstream
        assert upstream is not None
        valid = {
            "name": "fuzzed",
            "max_tokens": 1,
            "supports_streaming": True,
            "supports_temperature": True,
            "api_version": "v1",
            "azure_endpoint": upstream.origin,
        }
        body = json.dumps({**valid, **changes}).encode()
    answer = exchange(shared_service, method, target, [content_type], body)
    assert answer.status < 500
    if answer.status >= 400:
        refused(answer, answer.status)


@SEARCH
@given(
    target=st.sampled_from([MODEL, "/api/config/models", HISTORY, DIFF, EVENTS, DEFAULT]),
    model_id=st.none() | texts.filter(bool),
    query=st.dictionaries(
        parameters | texts.filter(bool),
        texts | numbers.map(str) | st.datetimes().map(lambda at: f"{at.isoformat()}Z"),
        max_size=3,
    ),
)
def test_no_path_and_no_query_breaks_the_service(
    shared_service: Service, target: str, model_id: str | None, query: dict[str, str]
) -> None:
    path = target if model_id is None else target.replace("first", quote(model_id, safe=""))
    asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
    answer = exchange(shared_service, "GET", f"{path}?{asked}")
    assert answer.status < 500
    if answer.status >= 400:
        refused(answer, answer.status)


async def test_after_all_this_the_service_still_works(api: Api) -> None:
    model_id = await api.create()
    assert (await api.read(model_id)).status_code == 200
    ready: httpx2.Response = await api.http.get("/readyz")
    assert ready.json()["status"] == "ready"
