"""Tokens of Entra ID in place of a key, fetched by azure-identity from a managed identity's endpoint."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from service import TOKEN, Databases, Service, clean_environment, serving
from upstream import ScriptedUpstream, Status

SCOPE = "https://cognitiveservices.azure.com/.default"
HEADER = "the-machine's-own-word"


class ManagedIdentity:
    """What a machine of Azure offers on a local port: tokens for whoever knows its word."""

    def __init__(self) -> None:
        self.resources: list[str] = []
        self.refuses = False
        identity = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.headers["X-IDENTITY-HEADER"] == HEADER
                identity.resources.append(self.path)
                token = {
                    "access_token": f"entra-{len(identity.resources)}",
                    "expires_on": str(int(time.time()) + 86_400),
                    "resource": "r",
                    "token_type": "Bearer",
                }
                body = json.dumps({} if identity.refuses else token).encode()
                self.send_response(400 if identity.refuses else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quietly."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/token"


@pytest.fixture
def identity() -> Iterator[ManagedIdentity]:
    identity = ManagedIdentity()
    thread = Thread(target=identity.server.serve_forever)
    thread.start()
    yield identity
    identity.server.shutdown()
    identity.server.server_close()
    thread.join()


@pytest.fixture
def service(
    databases: Databases, database: str, upstream: ScriptedUpstream, identity: ManagedIdentity
) -> Iterator[Service]:
    environment = clean_environment(
        DATABASE_URL=databases.app_url(database),
        MODEL_LEDGER_OWNER_DATABASE_URL=databases.owner_url(database),
        MODEL_LEDGER_ADMIN_TOKEN=TOKEN,
        MODEL_LEDGER_ENTRA_SCOPE=SCOPE,
        AZURE_OPENAI_ENDPOINT=upstream.origin,
        AZURE_OPENAI_DEPLOYMENT_NAME="prod",
        IDENTITY_ENDPOINT=identity.url,
        IDENTITY_HEADER=HEADER,
    )
    with serving(environment, upstream=upstream) as service:
        yield service


async def test_calls_carry_a_token_instead_of_a_key(
    service: Service, upstream: ScriptedUpstream, identity: ManagedIdentity
) -> None:
    async with service.api() as api:
        await api.create("v1", azure_endpoint=f"{upstream.origin}/openai/v1")
        for model in ("prod", "v1", "prod"):
            assert (await api.chat(model)).status_code == 200
    assert [request.headers.get("authorization") for request in upstream.requests] == ["Bearer entra-1"] * 3
    assert not any("api-key" in request.headers for request in upstream.requests)
    assert len(identity.resources) == 1, "a token is kept as long as it holds"
    assert "cognitiveservices" in identity.resources[0]


async def test_an_error_does_not_quote_the_token(service: Service, upstream: ScriptedUpstream) -> None:
    upstream.script(Status(400, body={"error": {"message": "you sent entra-1, which is wrong"}}))
    async with service.api() as api:
        answer = await api.chat("prod")
    assert answer.status_code == 400
    assert "you sent ***" in answer.text


async def test_without_a_token_nothing_is_sent_and_the_caller_is_told(
    service: Service, upstream: ScriptedUpstream, identity: ManagedIdentity
) -> None:
    identity.refuses = True
    async with service.api() as api:
        refused = await api.chat("prod")
        assert refused.status_code == 502
        assert refused.json()["error"]["code"] == "provider_not_authorized"
        assert not upstream.requests
        identity.refuses = False
        assert (await api.chat("prod")).status_code == 200
    assert "Entra ID gave no token" in service.said()
