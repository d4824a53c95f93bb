"""The application in its own processes, and the words that the tests use to talk to it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import asyncpg
import httpx2
from upstream import ScriptedUpstream

from infrastructure.embedded import EmbeddedPostgres

TOKEN = "mlk_test_" + "t" * 40
COMMAND = [str(Path(sys.executable).parent / "model-ledger")]
START_TIMEOUT = 60.0


@dataclass(frozen=True)
class Databases:
    """Databases on one server, each made from a migrated template."""

    server: EmbeddedPostgres
    template: str

    @contextmanager
    def made(self) -> Iterator[str]:
        """A database of its own, dropped in the end whoever is still connected."""
        name = f"ledger_{uuid.uuid4().hex[:16]}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {self.template}")
        try:
            yield name
        finally:
            self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def owner_url(self, name: str) -> str:
        return self.server.url(name, owner=True)

    def app_url(self, name: str) -> str:
        return self.server.url(name, owner=False)

    def _execute(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(self.server.owner_url)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        # In a thread of its own: a fixture may run beside a loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, execute()).result()


@dataclass
class Service:
    """A running `model-ledger serve`."""

    process: subprocess.Popen[str]
    url: str
    announcement: str
    upstream: ScriptedUpstream | None = None
    token: str = TOKEN
    errors: IO[str] | None = None
    """What it wrote to standard error, so far."""
    database: str = ""
    """The database of its ledger, where `running` made one for it."""

    def said(self) -> str:
        """Everything that it wrote: the announcement, all of standard error, and when it ended the rest."""
        assert self.errors is not None
        self.errors.seek(0)
        rest = self.process.stdout.read() if self.process.stdout and self.process.poll() is not None else ""
        return self.announcement + rest + self.errors.read()

    @asynccontextmanager
    async def api(self, **options: Any) -> AsyncIterator["Api"]:
        """A client with the administrator's token, on connections of its own."""
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        # Plain HTTP: to load the certificates, which verify=True does, would be most of a test's time.
        async with httpx2.AsyncClient(
            base_url=self.url, headers=headers, timeout=20, trust_env=False, verify=False, **options
        ) as client:
            yield Api(client, self)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Ask the service to stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)


@dataclass
class Api:
    """The REST API in the users' words."""

    http: httpx2.AsyncClient
    service: Service
    made: list[str] = field(default_factory=list)

    def config(self, **changes: Any) -> dict[str, Any]:
        """A valid configuration that points at the scripted upstream."""
        upstream = self.service.upstream
        return {
            "name": "A model",
            "max_tokens": 4096,
            "supports_streaming": True,
            "supports_temperature": True,
            "api_version": "2025-01-01-preview",
            "azure_endpoint": upstream.origin if upstream else "http://127.0.0.1:9",
            **changes,
        }

    def new_id(self) -> str:
        return f"m-{uuid.uuid4().hex[:12]}"

    async def create(self, model_id: str | None = None, **changes: Any) -> str:
        """Create a model; its id."""
        model_id = model_id or self.new_id()
        answer = await self.http.post(path(model_id), json=self.config(**changes))
        assert answer.status_code == 201, answer.text
        return model_id

    async def update(
        self, model_id: str, headers: Mapping[str, str] | None = None, **changes: Any
    ) -> httpx2.Response:
        return await self.http.put(path(model_id), json=self.config(**changes), headers=headers)

    async def patch(
        self, model_id: str, headers: Mapping[str, str] | None = None, **changes: Any
    ) -> httpx2.Response:
        patch_headers = {"Content-Type": "application/merge-patch+json", **(headers or {})}
        return await self.http.patch(path(model_id), json=changes, headers=patch_headers)

    async def read(self, model_id: str, **query: Any) -> httpx2.Response:
        return await self.http.get(path(model_id), params=query)

    async def delete(self, model_id: str, **query: Any) -> httpx2.Response:
        return await self.http.delete(path(model_id), params=query)

    async def history(self, model_id: str, **query: Any) -> list[dict[str, Any]]:
        answer = await self.http.get(path(model_id, "history"), params=query)
        assert answer.status_code == 200, answer.text
        entries: list[dict[str, Any]] = answer.json()["data"]
        return entries

    async def roll_back(self, model_id: str, to_version: int, **more: Any) -> httpx2.Response:
        query = {"dry_run": "true"} if more.pop("dry_run", False) else {}
        body = {"to_version": to_version, **more}
        return await self.http.post(path(model_id, "rollback"), json=body, params=query)

    async def chat(self, model_id: str, **more: Any) -> httpx2.Response:
        body = {"model": model_id, "messages": [{"role": "user", "content": "hello"}], **more}
        return await self.http.post("/v1/chat/completions", json=body)

    async def position(self) -> int:
        """The ledger's newest position."""
        answer = await self.http.get("/api/config/events", params={"limit": 1})
        entries = answer.json()["data"]
        return entries[0]["position"] if entries else 0


def path(model_id: str, *more: str) -> str:
    return "/".join(["/api/config/models", model_id, *more])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment of a user's shell without anything that concerns the service.

    A test that does not say where leaves no local snapshot behind.
    """
    concerns = ("MODEL_LEDGER_", "AZURE_OPENAI_", "OPENAI_", "OTEL_", "DATABASE_URL", "O_SERIES")
    # Without its bytecode kept, every start compiles the libraries again: 4 s instead of 1.5 s.
    slows = "PYTHONDONTWRITEBYTECODE"
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*concerns, slows))}
    if "MODEL_LEDGER_DATA_DIR" not in variables:
        kept["MODEL_LEDGER_SNAPSHOT_HOURS"] = "0"
    return {**kept, **variables}


@contextmanager
def serving(
    environment: Mapping[str, str],
    *arguments: str,
    upstream: ScriptedUpstream | None = None,
    cwd: Path | None = None,
) -> Iterator[Service]:
    """Start `model-ledger serve`, wait until it says that it is ready, and stop it in the end."""
    port = free_port()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port), *arguments],
            env={**environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            cwd=cwd,
        )
        try:
            assert process.stdout is not None
            announcement = process.stdout.readline()
            if not announcement:
                process.wait(START_TIMEOUT)
                errors.seek(0)
                raise AssertionError(f"it did not start: {errors.read()}")
            url = f"http://127.0.0.1:{port}"
            yield Service(process, url, announcement.strip(), upstream, errors=errors)
        finally:
            stop(process)
            process.stdout.close()


def stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


@contextmanager
def running(
    databases: Databases, name: str, upstream: ScriptedUpstream, *, workers: int, **variables: str
) -> Iterator[Service]:
    """A service on a database of the run's server, whose models may call the scripted upstream."""
    data = tempfile.TemporaryDirectory(prefix="model-ledger-data-")
    given = {
        "MODEL_LEDGER_DATA_DIR": data.name,
        "DATABASE_URL": databases.app_url(name),
        "MODEL_LEDGER_OWNER_DATABASE_URL": databases.owner_url(name),
        "MODEL_LEDGER_ADMIN_TOKEN": TOKEN,
        "AZURE_OPENAI_API_KEY": "test-key-0123456789abcdef",
        "AZURE_OPENAI_ENDPOINT": upstream.origin,
        "AZURE_OPENAI_DEPLOYMENT_NAME": "first",
    }
    environment = clean_environment(**{**given, **variables})
    with data, serving(environment, "--workers", str(workers), upstream=upstream) as service:
        service.database = name
        yield service


async def connect(databases: Databases, name: str) -> asyncpg.Connection:
    return await asyncpg.connect(databases.owner_url(name))
