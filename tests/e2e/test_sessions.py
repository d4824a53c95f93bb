"""Signing in with a browser: what a session is good for, how it ends, and whom its cookie does not serve."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import asyncpg
import pytest
from browser import COOKIE, eventually, page, secret, sign_in, signed_in
from chaos_proxy import ChaosProxy
from raw import exchange
from service import TOKEN, Api, Databases, Service, clean_environment, path, running, serving
from upstream import ScriptedUpstream

from infrastructure.access_tokens import ensure_administrator
from infrastructure.sessions import MOST_OPEN


@pytest.fixture
async def mine(shared_service: Service) -> AsyncIterator[Api]:
    """A page that is signed in."""
    async with signed_in(shared_service) as api:
        yield api


@pytest.fixture
async def sql(databases: Databases, shared_service: Service) -> AsyncIterator[asyncpg.Connection]:
    """The shared service's database."""
    connection = await asyncpg.connect(databases.owner_url(shared_service.database))
    yield connection
    await connection.close()


LINK = re.compile(
    r"Open (http://[0-9.:]+)/sign-in#(mlc_\w{36}) to sign in with a browser \(once, within 24 hours\)\n"
)


def digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


async def everywhere(api: Api, status: int) -> bool:
    """Whether whichever worker is asked answers so."""
    answers = await asyncio.gather(*(api.http.get("/api/session") for _ in range(12)))
    return {answer.status_code for answer in answers} == {status}


# Signing in.


async def test_a_token_opens_a_session_in_a_cookie_that_scripts_cannot_read(shared_service: Service) -> None:
    async with page(shared_service) as api:
        assert (await api.http.get("/api/session")).status_code == 401
        answer = await sign_in(api, token=TOKEN)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["cache-control"] == "no-store"
        parts = sorted(part.strip().lower() for part in answer.headers["set-cookie"].split(";"))
        assert parts[0] == "httponly"
        assert parts[1:4] == ["max-age=604800", parts[2], "path=/"]
        assert parts[4:] == ["samesite=strict"]
        told = (await api.http.get("/api/session")).json()
    assert told["actor"] == {"id": "token:administrator", "name": "administrator", "kind": "token"}
    assert told["role"] == "administrator"
    assert {"models:change", "models:call", "session:use"} <= {*told["permissions"]}
    left = datetime.fromisoformat(told["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=11, minutes=55) < left <= timedelta(hours=12, minutes=1)


async def test_a_session_is_good_in_every_worker_at_once(shared_service: Service) -> None:
    for _ in range(5):
        async with signed_in(shared_service) as api:
            assert await everywhere(api, 200)


async def test_only_a_digest_is_stored(mine: Api, sql: asyncpg.Connection) -> None:
    rows = await sql.fetch("SELECT * FROM session")
    assert digest(secret(mine)) in {row["hash"] for row in rows}
    assert secret(mine) not in str([dict(row) for row in rows])


@pytest.mark.parametrize(
    ("proof", "status"),
    [
        ({"token": "wrong"}, 401),
        ({"token": TOKEN + "x"}, 401),
        ({"token": ""}, 401),
        ({"token": "é🙂\ud800".encode("utf-8", "replace").decode()}, 401),
        ({"code": TOKEN}, 401),
        ({"code": "mlc_" + "x" * 36}, 401),
        ({"code": ""}, 401),
        ({}, 400),
        ({"token": TOKEN, "code": "mlc_" + "x" * 36}, 400),
        ({"token": 5}, 400),
        ({"token": TOKEN, "more": 1}, 400),
        ([TOKEN], 400),
    ],
)
async def test_what_proves_nothing_opens_no_session(shared_service: Service, proof: Any, status: int) -> None:
    async with page(shared_service) as api:
        answer = await api.http.post("/api/session", json=proof)
        assert answer.status_code == status, answer.text
        assert "set-cookie" not in answer.headers
        assert TOKEN not in answer.text


async def test_a_second_sign_in_takes_the_place_of_the_first(mine: Api) -> None:
    before = secret(mine)
    assert (await sign_in(mine, token=TOKEN)).status_code == 204
    assert secret(mine) != before
    async with page(mine.service) as api:
        api.http.cookies.set(COOKIE, before)
        await eventually(lambda: everywhere(api, 401))
    assert await everywhere(mine, 200)


async def test_a_failed_sign_in_leaves_the_session_that_is_there(mine: Api) -> None:
    assert (await sign_in(mine, token="wrong")).status_code == 401
    assert await everywhere(mine, 200)


async def test_a_token_has_a_bounded_number_of_sessions(mine: Api, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "INSERT INTO session (hash, token_hash, seen_at) "
        "SELECT sha256(n::text::bytea), $1, now() - n * interval '1 s' FROM generate_series(1, $2) n",
        digest(TOKEN),
        MOST_OPEN + 50,
    )
    assert (await sign_in(mine, token=TOKEN)).status_code == 204
    count = await sql.fetchval("SELECT count(*) FROM session WHERE token_hash = $1", digest(TOKEN))
    assert count == MOST_OPEN
    assert await everywhere(mine, 200)


# What it is good for.


async def test_a_session_reads_changes_calls_and_watches(mine: Api) -> None:
    model_id = await mine.create()
    assert (await mine.patch(model_id, max_tokens=1)).status_code == 200
    assert (await mine.read(model_id)).json()["max_tokens"] == 1
    assert (await mine.chat(model_id)).status_code == 200
    async with mine.http.stream("GET", "/api/config/events/stream?after=0") as events:
        assert events.status_code == 200
        async for line in events.aiter_lines():
            if line.startswith("data:"):
                break
    newest, created = await mine.history(model_id)
    assert {newest["source"], created["source"]} == {"ui"}
    assert newest["actor"]["id"] == "token:administrator"


async def test_a_program_with_a_token_is_told_who_it_is_too(api: Api) -> None:
    told = (await api.http.get("/api/session")).json()
    assert (told["actor"]["id"], told["expires_at"]) == ("token:administrator", None)
    assert (await api.http.delete("/api/session")).status_code == 204
    assert (await api.http.get("/api/session")).status_code == 200


async def test_a_token_that_is_sent_counts_and_not_the_cookie(mine: Api) -> None:
    answer = await mine.http.get("/api/session", headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == 401
    model_id = mine.new_id()
    with_token = {"Authorization": f"Bearer {TOKEN}"}
    made = await mine.http.post(path(model_id), json=mine.config(), headers=with_token)
    assert made.status_code == 201
    assert (await mine.history(model_id))[0]["source"] == "api"


@pytest.mark.parametrize("value", ["", "mls_", "mls_" + "x" * 36, "mls_" + "x" * 5_000, TOKEN, '"', "é"])
async def test_a_cookie_that_holds_no_session_is_answered_with_401(
    shared_service: Service, value: str
) -> None:
    header = f"Cookie: {COOKIE}={value}".encode()
    assert exchange(shared_service, "GET", "/api/config/models", [header], token="").status == 401


# How it ends.


async def test_signing_out_ends_the_session_in_every_worker(mine: Api, sql: asyncpg.Connection) -> None:
    before = secret(mine)
    assert await everywhere(mine, 200)
    answer = await mine.http.delete("/api/session")
    assert answer.status_code == 204
    assert "max-age=0" in answer.headers["set-cookie"].lower()
    assert COOKIE not in mine.http.cookies
    assert await sql.fetchval("SELECT 1 FROM session WHERE hash = $1", digest(before)) is None
    mine.http.cookies.set(COOKIE, before)
    await eventually(lambda: everywhere(mine, 401))


@pytest.mark.parametrize(
    "ended",
    ["seen_at = now() - interval '12 hours 1 second'", "created_at = now() - interval '7 days 1 second'"],
)
async def test_a_session_ends_when_it_is_idle_or_old(mine: Api, sql: asyncpg.Connection, ended: str) -> None:
    assert await everywhere(mine, 200)
    await sql.execute(f"UPDATE session SET {ended} WHERE hash = $1", digest(secret(mine)))
    await eventually(lambda: everywhere(mine, 401))


async def test_its_use_keeps_a_session_open(mine: Api, sql: asyncpg.Connection) -> None:
    key = digest(secret(mine))
    await sql.execute("UPDATE session SET seen_at = now() - interval '11 hours' WHERE hash = $1", key)

    async def is_noted() -> bool:
        assert (await mine.http.get("/api/session")).status_code == 200
        since = await sql.fetchval("SELECT now() - seen_at FROM session WHERE hash = $1", key)
        return bool(since < timedelta(hours=1))

    await eventually(is_noted)


async def test_a_session_ends_with_its_token_and_so_does_what_it_watches(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    with running(databases, database, upstream, workers=1) as service:
        async with signed_in(service) as api, page(service) as watcher:
            watcher.http.cookies.set(COOKIE, secret(api))
            async with watcher.http.stream("GET", "/api/config/events/stream") as events:
                lines = events.aiter_lines()
                assert (await anext(lines)).startswith("retry:")
                owner = await asyncpg.connect(databases.owner_url(database))
                service.token = TOKEN.upper()
                await owner.execute("UPDATE access_token SET hash = $1", digest(service.token))
                await owner.close()
                await eventually(lambda: everywhere(api, 401))
                async with service.api() as successor:
                    await successor.create()
                assert "model.created" not in "".join([line async for line in lines])


async def test_a_start_with_another_token_ends_the_sessions_of_the_one_before(
    owner: asyncpg.Connection,
) -> None:
    await ensure_administrator(owner, "first" * 8)
    await owner.execute("INSERT INTO session SELECT sha256('kept'), hash FROM access_token")
    for token, left in (("first" * 8, 1), ("other" * 8, 0), ("first" * 8, 0)):
        await ensure_administrator(owner, token)
        assert await owner.fetchval("SELECT count(*) FROM session") == left


async def test_a_session_that_a_worker_knows_goes_on_while_the_database_is_away(
    databases: Databases, database: str, upstream: ScriptedUpstream
) -> None:
    with (
        ChaosProxy(databases.app_url(database)) as proxy,
        running(databases, database, upstream, workers=1, DATABASE_URL=proxy.url) as service,
    ):
        async with signed_in(service) as api, page(service) as stranger:
            assert (await api.chat("first")).status_code == 200
            proxy.black_hole()
            stranger.http.cookies.set(COOKIE, "mls_" + "x" * 36)
            unknown, failed, known = await asyncio.gather(
                stranger.http.get("/api/session"), sign_in(stranger, token=TOKEN), api.chat("first")
            )
            assert (unknown.status_code, failed.status_code, known.status_code) == (503, 503, 200)
            proxy.heal()

            async def is_back() -> bool:
                return (await stranger.http.get("/api/session")).status_code == 401

            await eventually(is_back)
            assert await everywhere(api, 200)


# The one-time link.


async def make_link(sql: asyncpg.Connection, code: str, left: str = "1 hour") -> None:
    await sql.execute(
        "INSERT INTO sign_in_link SELECT $1, hash, now() + $2::text::interval FROM access_token",
        digest(code),
        left,
    )


async def test_a_link_signs_in_once(shared_service: Service, sql: asyncpg.Connection) -> None:
    code = "mlc_" + "once" * 9
    await make_link(sql, code)
    async with page(shared_service) as first, page(shared_service) as second:
        answers = await asyncio.gather(*(sign_in(api, code=code) for api in (first, second)))
        assert sorted(answer.status_code for answer in answers) == [204, 401]
        assert (await sign_in(first, code=code)).status_code == 401


async def test_a_link_is_void_after_its_time(shared_service: Service, sql: asyncpg.Connection) -> None:
    code = "mlc_" + "late" * 9
    await make_link(sql, code, "-1 second")
    async with page(shared_service) as api:
        assert (await sign_in(api, code=code)).status_code == 401
    assert await sql.fetchval("SELECT 1 FROM sign_in_link WHERE hash = $1", digest(code)) is None


async def test_a_start_tells_a_link_that_signs_in(databases: Databases, database: str) -> None:
    environment = clean_environment(
        DATABASE_URL=databases.app_url(database),
        MODEL_LEDGER_OWNER_DATABASE_URL=databases.owner_url(database),
        MODEL_LEDGER_ADMIN_TOKEN=TOKEN,
    )
    with serving(environment) as service:
        assert service.process.stdout is not None
        line = service.process.stdout.readline()
        told = LINK.fullmatch(line)
        assert told
        assert told[1] == service.url
        async with page(service) as api:
            assert (await sign_in(api, code=told[2])).status_code == 204
            assert (await api.http.get("/api/session")).status_code == 200
        service.token = TOKEN
        service.stop()
        assert told[2] not in service.said()


async def test_a_start_for_others_than_this_machine_tells_no_link(
    databases: Databases, database: str
) -> None:
    environment = clean_environment(
        DATABASE_URL=databases.app_url(database),
        MODEL_LEDGER_OWNER_DATABASE_URL=databases.owner_url(database),
        MODEL_LEDGER_ADMIN_TOKEN=TOKEN,
        MODEL_LEDGER_PUBLIC_URL="https://ledger.example.com",
    )
    with serving(environment) as service:
        # Under TLS: the cookie is bound to the host, and only the public origin is ours.
        async with page(service) as api:
            ours = {"Origin": "https://ledger.example.com"}
            assert (await sign_in(api, token=TOKEN)).status_code == 403
            answer = await api.http.post("/api/session", json={"token": TOKEN}, headers=ours)
            assert answer.status_code == 204
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith(f"__Host-{COOKIE}=mls_")
            assert {"secure", "httponly", "path=/", "samesite=strict"} <= {
                part.strip().lower() for part in cookie.split(";")
            }
            bare = exchange(
                service, "GET", "/api/session", [b"Cookie: " + cookie.partition(";")[0].encode()], token=""
            )
            assert bare.status == 200
        service.stop()
        assert "sign-in#" not in service.said()


# Other sites.


def cookie(api: Api) -> bytes:
    return f"Cookie: {COOKIE}={secret(api)}".encode()


OURS = [b"Sec-Fetch-Site: same-origin", b"X-Model-Ledger-Request: 1", b"Content-Type: application/json"]


@pytest.mark.parametrize(
    "headers",
    [
        [b"Sec-Fetch-Site: cross-site", *OURS[1:]],
        [b"Sec-Fetch-Site: same-site", *OURS[1:]],
        [b"Sec-Fetch-Site: none", *OURS[1:]],
        [b"Origin: https://evil.example", *OURS],
        [b"Origin: null", *OURS],
        [b"Origin: http://localhost:9", *OURS],
        [b"Origin: https://evil.example", *OURS[1:]],
        [*OURS[1:]],
        [OURS[0], OURS[2]],
        [OURS[0], b"X-Model-Ledger-Request: 2", OURS[2]],
        [OURS[0], OURS[1]],
        [OURS[0], OURS[1], b"Content-Type: text/plain"],
        [OURS[0], OURS[1], b"Content-Type: text/plain; application/json"],
        [OURS[0], OURS[1], b"Content-Type: application/x-www-form-urlencoded"],
        [OURS[0], OURS[1], b"Content-Type: multipart/form-data; boundary=x"],
    ],
)
async def test_a_change_that_our_page_did_not_make_is_refused(mine: Api, headers: list[bytes]) -> None:
    before = await mine.position()
    for method, target, body in (
        ("PUT", path("first"), b'{"max_tokens": 1}'),
        ("POST", path(mine.new_id()), b"{}"),
        ("PUT", "/api/config/default", b'{"model_id": null}'),
        ("POST", "/v1/chat/completions", b'{"model": "first", "messages": []}'),
        ("DELETE", path("first"), b"{}"),
        ("POST", "/api/session", b'{"token": "%s"}' % TOKEN.encode()),
    ):
        answer = exchange(mine.service, method, target, [cookie(mine), *headers], body, token="")
        assert answer.status == 403, f"{method} {target}"
        assert "set-cookie" not in answer.headers
    assert await mine.position() == before


async def test_our_own_origin_is_enough_where_a_browser_tells_no_more(mine: Api) -> None:
    headers = [b"Origin: http://localhost", *OURS[1:], cookie(mine)]  # `exchange` sends Host: localhost
    body = b'{"model_id": "first"}'
    assert exchange(mine.service, "PUT", "/api/config/default", headers, body, token="").status == 200


async def test_a_change_without_a_body_needs_no_media_type(mine: Api) -> None:
    model_id = await mine.create()
    headers = [*OURS[:2], cookie(mine)]
    assert exchange(mine.service, "DELETE", path(model_id), headers, token="").status == 200
    assert exchange(mine.service, "POST", path(model_id, "restore"), headers, token="").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),
        ([b"Sec-Fetch-Site: same-origin"], 200),
        ([b"Sec-Fetch-Site: none"], 200),
        ([b"Sec-Fetch-Site: same-site"], 403),
        ([b"Sec-Fetch-Site: cross-site"], 403),
        ([b"Origin: https://evil.example"], 403),
    ],
)
async def test_what_other_sites_ask_for_is_not_told(mine: Api, headers: list[bytes], status: int) -> None:
    for target in ("/api/config/models", "/api/config/events?format=jsonl", "/v1/models", "/api/session"):
        answer = exchange(mine.service, "GET", target, [cookie(mine), *headers], token="")
        assert answer.status == status, target
    if status != 200:  # else it would not end
        stream = "/api/config/events/stream"
        answer = exchange(mine.service, "GET", stream, [cookie(mine), *headers], token="")
        assert answer.status == status


async def test_reading_never_changes_anything(mine: Api) -> None:
    document = (await mine.http.get("/schema/openapi.json")).json()
    before = await mine.position()
    for route, item in document["paths"].items():
        if "get" in item and not route.endswith("/stream"):
            target = route.replace("{model_id}", "first")
            for disguise in ({"X-HTTP-Method-Override": "DELETE"}, {"X-Method-Override": "PUT"}):
                await mine.http.get(target, params={"_method": "DELETE"}, headers=disguise)
                await mine.http.get(target, headers=disguise)
                await mine.http.head(target)
    assert await mine.position() == before
    assert await everywhere(mine, 200)


async def test_a_program_with_a_token_needs_no_marks_of_a_page(api: Api) -> None:
    foreign = {"Origin": "https://tools.example", "Sec-Fetch-Site": "cross-site"}
    model_id = api.new_id()
    assert (await api.http.post(path(model_id), json=api.config(), headers=foreign)).status_code == 201
