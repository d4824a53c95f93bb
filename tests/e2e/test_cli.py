"""The command line: help, refusals that quote no secret, and the commands that need only a database."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import httpx2
import pytest
from service import COMMAND, Databases, clean_environment, free_port
from upstream import block_until

from application.ledger import Ledger
from application.ports import Context
from domain.configuration import ModelConfig
from domain.model import CreateModel, UpdateModel
from domain.values import SYSTEM, ModelId
from infrastructure.database import Database
from infrastructure.event_store import PostgresEventStore

ROOT = Path(__file__).parents[2]
CANARY = "c4n4ry"
PASSWORD = f"{CANARY}-password"
SECRETS = {
    "MODEL_LEDGER_ADMIN_TOKEN": f"{CANARY}-token-" + "t" * 32,
    "AZURE_OPENAI_API_KEY": f"{CANARY}-key",
    "AZURE_OPENAI_ENDPOINT": "http://127.0.0.1:9",
    "AZURE_OPENAI_DEPLOYMENT_NAME": "first",
}
NOBODY = f"postgresql://user:{PASSWORD}@127.0.0.1:9/ledger"
MODEL = ModelId("a-model")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(**variables)
    return subprocess.run(
        [*COMMAND, *arguments], check=False, env=environment, capture_output=True, text=True, timeout=30
    )


def refusal(code: int, *arguments: str, **variables: str) -> str:
    """What a command says that ends with that code, nothing on standard output, and no secret."""
    done = run(*arguments, **variables)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert "Traceback" not in done.stderr
    assert CANARY not in done.stderr
    return done.stderr


def place_for_data() -> Path:
    """A directory, not made, that the database's user could reach: as root no other one is taken instead."""
    return Path(tempfile.gettempdir()) / f"model-ledger-none-{uuid.uuid4().hex[:12]}"


# Help


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"model-ledger \d+\.\d+\.\d+\n", run("--version").stdout)


def test_without_arguments_it_helps() -> None:
    helped = run().stdout
    for command in ("serve", "verify", "rebuild", "demo-upstream"):
        assert re.search(rf"^ +{command}( |$)", helped, re.MULTILINE), command


def test_help_names_options_and_their_variables() -> None:
    helped = run("serve", "--help").stdout
    for option in ("host", "port", "workers", "data-dir"):
        assert f"--{option}" in helped
        assert f"MODEL_LEDGER_{option.upper().replace('-', '_')}" in helped


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["serve", "--no-such-option"],
        ["serve", "--wor", "2"],
        ["verify", "x"],
        ["demo-upstream", "--port", "99999"],
    ],
)
def test_wrong_arguments_are_answered_with_the_usage(arguments: list[str]) -> None:
    assert refusal(2, *arguments).startswith("usage: model-ledger")


def test_make_help_lists_every_target() -> None:
    command = ["make", "--no-print-directory", "help"]
    helped = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    declared = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared is not None
    targets = declared[1].split()
    assert {"setup", "run", "test", "help"} <= {*targets}
    assert sorted(line.split()[0] for line in helped.splitlines()) == sorted(targets)


# A start that cannot be


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"MODEL_LEDGER_PORT": "http"}, "MODEL_LEDGER_PORT: a port from 1 to 65535"),
        ({"MODEL_LEDGER_ADMIN_TOKEN": f"{CANARY}-short"}, "MODEL_LEDGER_ADMIN_TOKEN: at least 32"),
        (
            {"AZURE_OPENAI_API_KEY": f"{CANARY}-key"},
            "AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_DEPLOYMENT_NAME missing",
        ),
        ({"DATABASE_URL": f"postgresql://user:{PASSWORD}/slash@db/ledger"}, "DATABASE_URL: postgresql://"),
    ],
)
def test_a_wrong_setting_stops_the_start_by_its_name(variables: dict[str, str], told: str) -> None:
    assert told in refusal(2, "serve", **variables)


@pytest.mark.parametrize("command", ["serve", "verify", "rebuild"])
def test_a_database_that_is_away_is_told_without_its_password(command: str) -> None:
    port = ["--port", str(free_port())] if command == "serve" else []
    said = refusal(1, command, *port, **SECRETS, DATABASE_URL=NOBODY)
    assert "the database cannot be reached" in said
    assert "127.0.0.1" in said


def test_a_service_that_cannot_log_in_is_told_without_its_password(
    databases: Databases, database: str
) -> None:
    url = databases.app_url(database).replace("model_ledger_app@", f"no_such_login:{PASSWORD}@")
    owner = databases.owner_url(database).replace("model_ledger_owner@", f"model_ledger_owner:{PASSWORD}@")
    both = {"DATABASE_URL": url, "MODEL_LEDGER_OWNER_DATABASE_URL": owner}
    assert "no_such_login" in refusal(1, "serve", "--port", str(free_port()), **SECRETS, **both)


def test_a_taken_port_is_told_before_anything_is_started(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        began = time.monotonic()
        said = refusal(1, "serve", "--port", port, "--data-dir", str(data), **SECRETS)
        took = time.monotonic() - began
    assert f"127.0.0.1:{port}: Address already in use" in said
    assert "MODEL_LEDGER_PORT" in said
    assert not data.exists()
    assert took < 3


def test_a_data_directory_that_is_a_file_is_told_by_its_setting(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for wanted in (file, file / "below"):
        said = refusal(1, "serve", "--port", str(free_port()), "--data-dir", str(wanted))
        assert "MODEL_LEDGER_DATA_DIR: a directory is needed" in said


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "203.0.113.1"])
def test_a_host_that_is_not_ours_is_told(host: str) -> None:
    said = refusal(1, "serve", "--host", host, "--port", str(free_port()), DATABASE_URL=NOBODY)
    assert f"cannot listen on {host}" in said
    assert "MODEL_LEDGER_HOST" in said


def test_postgresqls_programs_are_looked_for_where_the_variable_says(tmp_path: Path) -> None:
    nothing, data = tmp_path / "nothing", place_for_data()
    arguments = ("--port", str(free_port()), "--data-dir", str(data))
    said = refusal(1, "serve", *arguments, MODEL_LEDGER_PG_BIN=str(nothing))
    assert f"MODEL_LEDGER_PG_BIN is {nothing}" in said
    shutil.rmtree(data, ignore_errors=True)


# Verify and rebuild need a database and nothing else


@pytest.fixture
async def ledger(databases: Databases, database: str) -> AsyncIterator[str]:
    """A ledger of three events: the default, a model, and its update."""
    context = Context(SYSTEM, "system", "request-1")
    needed = {"max_tokens": 1, "supports_streaming": True, "supports_temperature": True, "credential": None}
    config = ModelConfig(name="A model", provider="openai", base_url="http://127.0.0.1:9", **needed)
    async with Database(databases.app_url(database)).pool(1) as pool:
        ledger = Ledger(PostgresEventStore(pool), frozenset())
        await ledger.execute(CreateModel(MODEL, config), context)
        again = ModelConfig(name="Another name", provider="openai", base_url="http://127.0.0.1:9", **needed)
        await ledger.execute(UpdateModel(MODEL, again), context)
    return databases.owner_url(database)


def without_anything_else(tmp_path: Path, url: str) -> dict[str, str]:
    """Only the database's address; the other settings are wrong on purpose."""
    return {
        "DATABASE_URL": url,
        "MODEL_LEDGER_DATA_DIR": str(tmp_path / "none"),
        "MODEL_LEDGER_PORT": "none",
        "AZURE_OPENAI_API_KEY": CANARY,
    }


async def test_verify_and_rebuild_find_and_mend_a_wrong_projection(
    ledger: str, owner: asyncpg.Connection, tmp_path: Path
) -> None:
    only = without_anything_else(tmp_path, ledger)
    await owner.execute("UPDATE model SET config = '{}'")
    found = run("verify", **only)
    assert (found.returncode, found.stderr) == (1, "")
    assert "a-model" in found.stdout
    mended = run("rebuild", **only)
    assert (mended.returncode, mended.stdout, mended.stderr) == (
        0,
        "1 models rebuilt from their events: 1 rows put right\n",
        "",
    )
    verified = run("verify", **only)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert verified.stdout.startswith("3 events, chain and projection verified up to position 3")
    assert not (tmp_path / "none").exists()


async def test_verify_tells_the_first_bad_position_and_fails(
    ledger: str, owner: asyncpg.Connection, tmp_path: Path
) -> None:
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(
        "ALTER TABLE event DISABLE TRIGGER ALL; UPDATE event SET reason = 'x' WHERE position > 1"
    )
    found = run("verify", **without_anything_else(tmp_path, ledger))
    assert found.returncode == 1
    assert "position 2" in found.stdout.splitlines()[0]


async def test_verify_needs_no_more_than_the_services_rights(
    ledger: str, databases: Databases, database: str
) -> None:
    assert run("verify", DATABASE_URL=databases.app_url(database)).returncode == 0


@pytest.fixture
async def unmigrated(databases: Databases) -> AsyncIterator[str]:
    """A database without a ledger."""
    name = f"unmigrated_{uuid.uuid4().hex[:16]}"
    connection = await asyncpg.connect(databases.server.owner_url)
    await connection.execute(f"CREATE DATABASE {name}")
    yield databases.owner_url(name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.mark.parametrize("command", ["verify", "rebuild"])
async def test_a_database_without_a_ledger_is_told_and_stays_without(command: str, unmigrated: str) -> None:
    assert "no ledger" in refusal(1, command, DATABASE_URL=unmigrated)
    connection = await asyncpg.connect(unmigrated)
    tables = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    assert tables == 0


def test_a_data_directory_without_a_database_is_told_and_not_made(tmp_path: Path) -> None:
    data = place_for_data()
    said = refusal(1, "verify", "--data-dir", str(data))
    assert f"there is no database in {data}" in said
    assert not data.exists()


# The demo upstream alone


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """`model-ledger demo-upstream`: its address."""
    port = free_port()
    process = subprocess.Popen(
        [*COMMAND, "demo-upstream", "--port", str(port), "--key", "a-key"], env=clean_environment()
    )
    try:
        block_until(lambda: accepts(port), within=20)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def accepts(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_the_demo_upstream_serves_alone(demo: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    path = "/openai/deployments/any/chat/completions?api-version=2025-01-01-preview"
    with httpx2.Client(base_url=demo, trust_env=False) as client:
        assert client.post(path, json=body).status_code == 401
        answer = client.post(path, json=body, headers={"api-key": "a-key"})
    assert answer.status_code == 200
    assert "demonstration" in answer.json()["choices"][0]["message"]["content"]


# From a checkout, with make


def test_make_setup_installs_the_command_and_nothing_is_started() -> None:
    """What it would run on a fresh checkout, told by make itself."""
    would = subprocess.run(
        ["make", "--dry-run", "--always-make", "setup"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert "requirements.lock" in would
    assert "--require-hashes" in would
    assert "model-ledger serve" not in would
    assert os.access(ROOT / ".venv" / "bin" / "model-ledger", os.X_OK)
