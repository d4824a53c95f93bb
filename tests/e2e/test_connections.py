"""Connections to a provider against servers that speak, byte by byte, what a test tells them."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from openai import AsyncAzureOpenAI, AsyncOpenAI
from upstream import wait_until

from domain.values import Origin
from infrastructure import connections
from infrastructure.connections import Broken, Connection, Connections, Unreachable
from infrastructure.sdk_clients import PER_CALL, Route, WrongOrigin, request_head, sdk_client

REQUEST = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n"
BODY = b"{}"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"


class Server:
    """Answers each request on each connection by the next of its lines; counts what happens."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.opened = 0
        self.open = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.origin = Origin("")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self.answers.pop(0) if self.answers else OK)
        if b"connection: close" in self.requests[-1]:
            writer.close()
        await writer.drain()


@asynccontextmanager
async def listening(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Connections]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server.origin = Origin(f"{'https' if tls else 'http'}://localhost:{port}")
    pool = Connections(server.origin)
    try:
        yield pool
    finally:
        pool.close()
        await wait_until(lambda: server.open == 0, within=2)
        listener.close()
        await listener.wait_closed()


async def read(connection: Connection) -> bytes:
    return b"".join([chunk async for chunk in connection])


async def ask(pool: Connections) -> tuple[int, bytes]:
    connection = await pool.take()
    try:
        await connection.ask(REQUEST, BODY)
        return connection.status, await read(connection)
    finally:
        pool.give_back(connection)


async def test_a_connection_is_used_again_and_again() -> None:
    server = Server()
    async with listening(server) as pool:
        assert [await ask(pool) for _ in range(5)] == [(200, b"done")] * 5
        assert server.opened == 1
        assert server.requests == [REQUEST + BODY] * 5


async def test_calls_at_the_same_time_have_one_each() -> None:
    server = Server()
    async with listening(server) as pool:
        await asyncio.gather(*(ask(pool) for _ in range(20)))
        assert 1 < server.opened <= 20
        opened = server.opened
        await asyncio.gather(*(ask(pool) for _ in range(opened)))
        assert server.opened == opened


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\nx-trailer: 1\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"


@pytest.mark.parametrize("answer", [OK, CHUNKED, INTERIM + OK, b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED])
async def test_every_form_of_a_whole_answer_is_read_and_the_connection_kept(answer: bytes) -> None:
    server = Server(answer, answer)
    async with listening(server) as pool:
        assert [await ask(pool), await ask(pool)] == [(200, b"done")] * 2
        assert server.opened == 1


async def test_an_answer_may_arrive_byte_by_byte() -> None:
    class Slow(Server):
        async def answer(self, writer: asyncio.StreamWriter) -> None:
            for byte in INTERIM + CHUNKED:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)

    async with listening(Slow()) as pool:
        assert await ask(pool) == (200, b"done")


async def test_headers_are_found_in_any_case() -> None:
    server = Server(b"HTTP/1.1 429 Slow\r\nReTry-After: 3\r\nX-B: a\xff\r\ncontent-length: 0\r\n\r\n")
    async with listening(server) as pool:
        connection = await pool.take()
        await connection.ask(REQUEST, BODY)
        assert connection.status == 429
        assert connection.headers["Retry-After"] == "3"
        assert connection.headers.get("missing") is None
        assert dict(connection.headers)["x-b"] == "a\xff"
        pool.give_back(connection)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\ndone",
        b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\ndone",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        OK + b"junk",
    ],
)
async def test_a_connection_that_is_of_no_more_use_is_not_used(answer: bytes) -> None:
    server = Server(answer)
    async with listening(server) as pool:
        assert await ask(pool) == (200, b"done")
        assert await ask(pool) == (200, b"done")
        assert server.opened == 2


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    class Old(Server):
        async def answer(self, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\ndo")
            await writer.drain()
            writer.write(b"ne")
            writer.close()

    async with listening(Old()) as pool:
        assert await ask(pool) == (200, b"done")


async def test_a_reset_is_no_end_of_an_answer_without_a_length() -> None:
    class Resetting(Server):
        async def answer(self, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nhal")
            await writer.drain()

    server = Resetting()
    async with listening(server) as pool:
        connection = await pool.take()
        await connection.ask(REQUEST, BODY)
        chunks = aiter(connection)
        assert await anext(chunks) == b"hal"
        opened = server.writers[0].get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.writers[0].transport.abort()
        with pytest.raises(Broken):
            await anext(chunks)
        pool.give_back(connection)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ndone",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndo",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndone\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\ndone",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\ndone",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ],
    ids=lambda answer: answer[:60].decode(),
)
async def test_half_an_answer_or_none_is_broken_and_its_connection_closed(answer: bytes) -> None:
    class Breaking(Server):
        async def answer(self, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            writer.close()

    async with listening(Breaking()) as pool:
        with pytest.raises(Broken):
            await ask(pool)


async def test_what_came_before_the_break_is_read_first() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    async with listening(server) as pool:
        connection = await pool.take()
        await connection.ask(REQUEST, BODY)
        chunks = aiter(connection)
        assert await anext(chunks) == b"half"
        server.writers[0].close()
        with pytest.raises(Broken):
            await anext(chunks)
        pool.give_back(connection)


async def test_leaving_early_closes_the_connection_at_once() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    async with listening(server) as pool:
        connection = await pool.take()
        await connection.ask(REQUEST, BODY)
        pool.give_back(connection)
        await wait_until(lambda: server.open == 0, within=1)


async def test_an_idle_connection_that_the_server_closed_is_not_used() -> None:
    server = Server()
    async with listening(server) as pool:
        await ask(pool)
        server.writers[0].close()
        await wait_until(lambda: server.open == 0, within=1)
        assert await ask(pool) == (200, b"done")
        assert server.opened == 2


async def test_a_server_that_speaks_unasked_is_not_asked() -> None:
    server = Server()
    async with listening(server) as pool:
        await ask(pool)
        server.writers[0].write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        await wait_until(lambda: server.open == 0, within=1)
        assert await ask(pool) == (200, b"done")


async def test_idle_connections_are_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LONGEST_IDLE", 0.05)
    server = Server()
    async with listening(server) as pool:
        await asyncio.gather(ask(pool), ask(pool))
        await wait_until(lambda: server.open == 0, within=2)
        assert await ask(pool) == (200, b"done")
        await wait_until(lambda: server.open == 0, within=2)


async def test_a_closed_pool_closes_what_is_idle_and_what_comes_back() -> None:
    server = Server()
    async with listening(server) as pool:
        await ask(pool)
        lent = await pool.take()
        await lent.ask(REQUEST, BODY)
        pool.close()
        assert await read(lent) == b"done", "what is lent goes on"
        pool.give_back(lent)
        await wait_until(lambda: server.open == 0, within=1)


async def test_beyond_the_limit_calls_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 2)
    server = Server()
    async with listening(server) as pool:
        assert len(await asyncio.gather(*(ask(pool) for _ in range(20)))) == 20
        assert server.opened <= 2


async def test_one_who_stops_waiting_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 1)
    async with listening(Server()) as pool:
        lent = await pool.take()
        waiting = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        waiting.cancel()
        pool.give_back(lent)
        assert await ask(pool) == (200, b"done")


async def test_nobody_there_is_unreachable_and_costs_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 1)
    async with listening(Server()) as pool:
        pass
    gone = Connections(Origin(pool_origin(pool)))
    for _ in range(3):
        with pytest.raises(Unreachable):
            await gone.take()


def pool_origin(pool: Connections) -> str:
    return f"http://127.0.0.1:{pool._port}"


async def test_a_name_with_an_address_that_nobody_serves_is_reached_by_the_other() -> None:
    server = Server()
    async with listening(server) as pool:  # on 127.0.0.1 alone, while `localhost` may be ::1 as well
        assert await ask(pool) == (200, b"done")


async def test_a_name_that_does_not_exist_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        await Connections(Origin("http://nowhere.invalid")).take()


async def test_a_slow_reader_makes_the_server_wait() -> None:
    size = 50_000_000

    class Big(Server):
        sent = 0

        async def answer(self, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            while self.sent < size:
                writer.write(bytes(100_000))
                self.sent += 100_000
                await writer.drain()

    server = Big()
    async with listening(server) as pool:
        connection = await pool.take()
        await connection.ask(REQUEST, BODY)
        before = -1
        while before < server.sent:  # until the server gets no further
            before = server.sent
            for _ in range(50):
                await asyncio.sleep(0.002)
        assert server.sent < size / 2
        assert connection._size < connections.READ_AHEAD + 300_000  # a loop reads up to 256 kB at once
        assert len(await read(connection)) == size
        pool.give_back(connection)


async def test_silence_is_told_and_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SILENCE", 0.02)
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndo")
    async with listening(server) as pool:
        connection = await pool.take()
        await connection.ask(REQUEST, BODY)
        chunks = aiter(connection)
        assert [await anext(chunks) for _ in range(4)] == [b"do", b"", b"", b""]
        server.writers[0].write(b"ne")
        rest = [chunk async for chunk in chunks]
        assert b"".join(rest) == b"ne"
        pool.give_back(connection)


async def test_a_large_request_arrives_whole() -> None:
    body = bytes(range(256)) * 40_000
    server = Server()
    async with listening(server) as pool:
        connection = await pool.take()
        await connection.ask(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body), body)
        assert await read(connection) == b"done"
        assert server.requests[0].endswith(body)
        pool.give_back(connection)


class TestTls:
    async def test_a_trusted_server_is_spoken_to(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        server_side, client_side = contexts(tmp_path, "localhost")
        monkeypatch.setattr(connections, "_tls", lambda: client_side)
        server = Server()
        async with listening(server, server_side) as pool:
            assert [await ask(pool) for _ in range(3)] == [(200, b"done")] * 3
            assert server.opened == 1

    async def test_another_name_in_the_certificate_is_refused_before_anything_is_sent(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        server_side, client_side = contexts(tmp_path, "other.example")
        monkeypatch.setattr(connections, "_tls", lambda: client_side)
        server = Server()
        async with listening(server, server_side) as pool:
            with pytest.raises(Unreachable):
                await pool.take()
        assert not server.requests

    async def test_a_certificate_of_nobody_is_refused(self, tmp_path: Path) -> None:
        server_side, _ = contexts(tmp_path, "localhost")
        server = Server()
        async with listening(server, server_side) as pool:
            with pytest.raises(Unreachable):
                await pool.take()
        assert not server.requests


def contexts(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for that name, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "certificate.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pem)
    return server_side, ssl.create_default_context(cafile=str(pem))


ROUTES = {
    "classic": Route("http://localhost", "prod", "2025-01-01-preview", "environment"),
    "v1": Route("http://localhost/openai/v1", None, "", "environment"),
    "compatible": Route("http://localhost/deep/v1/", None, "", None),
}


class TestTheSdkIsTheAuthority:
    @pytest.mark.parametrize("path", ["/chat/completions", "/embeddings", "/responses"])
    @pytest.mark.parametrize("kind", ROUTES)
    async def test_a_request_is_as_the_sdk_sends_it_by_itself(self, kind: str, path: str) -> None:
        route = ROUTES[kind]
        sent: list[httpx2.Request] = []

        def answer(request: httpx2.Request) -> httpx2.Response:
            sent.append(request)
            return httpx2.Response(200, json={})

        http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        post: Callable[..., Awaitable[object]]
        if route.deployment:
            post = AsyncAzureOpenAI(
                azure_endpoint=route.url,
                azure_deployment=route.deployment,
                api_version=route.api_version,
                api_key="the-key",
                http_client=http,
            ).post
        else:
            post = AsyncOpenAI(base_url=route.url, api_key="the-key", http_client=http).post
        await post(path, cast_to=httpx2.Response, content=b"{}")
        (by_itself,) = sent

        key = "the-key" if route.credential else None
        head = await request_head(
            sdk_client(route, key), path, Origin("http://localhost"), key=key is not None
        )

        first, *lines = head.decode().removesuffix("\r\n").split("\r\n")
        assert first == f"POST {by_itself.url.raw_path.decode()} HTTP/1.1"
        ours = dict(line.lower().split(": ", 1) for line in lines)
        theirs = {name: value.lower() for name, value in by_itself.headers.items() if name not in PER_CALL}
        if key is None:
            theirs.pop("authorization")
        assert ours == {**theirs, "accept-encoding": "identity"}
        assert len(lines) == len(ours), "no header stands twice"

    async def test_a_client_that_would_send_elsewhere_builds_nothing(self) -> None:
        with pytest.raises(WrongOrigin):
            await request_head(
                sdk_client(ROUTES["v1"], "k"), "/responses", Origin("http://other.example"), key=True
            )
