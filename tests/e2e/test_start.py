"""Starting and stopping: what one start makes and the next one finds, what runs and what is left."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from service import COMMAND, Api, Databases, Service, clean_environment, free_port, path, serving
from upstream import ScriptedUpstream, block_until, wait_until

from domain.values import Origin
from infrastructure.database import MIGRATIONS, REVISIONS
from infrastructure.embedded import data_root, lease
from web.composition.start import DEMO_KEY, _keys
from web.settings import Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

ROOT = Path(__file__).parents[2]
CANARY = "c4n4ry"
TOKEN = f"{CANARY}-token-" + "t" * 32
FIRST = re.compile(
    r"Model Ledger is at (?P<url>\S+), data in (?P<data>\S+); "
    r"sign in with this administrator token, shown only now: (?P<token>\S+)"
)

LINK = re.compile(r"Open \S+/sign-in#mlc_\w{36} to sign in with a browser \(once, within 24 hours\)\n")


# The processes


def stat_of(pid: int) -> list[str]:
    """State, parent, group, session, ... of proc_pid_stat(5); dead when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0", "0", "0"]


def text_of(pid: int, what: str) -> str:
    """`cmdline` or `environ` of a process, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def runs(pid: int) -> bool:
    return stat_of(pid)[0] not in {"Z", "X"}


def pids() -> set[int]:
    return {int(process.name) for process in Path("/proc").glob("[0-9]*")}


def family(service: Service) -> set[int]:
    """The processes of a start, without the embedded database's."""
    return {pid for pid in pids() if stat_of(pid)[3] == str(service.process.pid) and runs(pid)}


def database_of(data: Path) -> set[int]:
    """The keeper and the server of a data directory, with the server's own processes."""
    first = {pid for pid in pids() if f"{data}/" in text_of(pid, "cmdline") and runs(pid)}
    first = {pid for pid in first if "postgres" in text_of(pid, "cmdline")}
    return first | {pid for pid in pids() if int(stat_of(pid)[1]) in first}


def demos(service: Service) -> list[tuple[int, int]]:
    """The demo upstreams of a start: process and port."""
    commands = {pid: text_of(pid, "cmdline") for pid in family(service)}
    found = {pid: re.search(r" demo-upstream .*--port (\d+)", command) for pid, command in commands.items()}
    return [(pid, int(match[1])) for pid, match in found.items() if match]


def ctrl_c(service: Service, *, also: Collection[int] = ()) -> None:
    """What a terminal does; the exit is clean, soon, and leaves no process."""
    everyone = family(service) | {*also}
    assert service.process.pid in everyone
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.process.wait(15) == 0
    nothing_left(everyone)


def workers(service: Service) -> set[int]:
    return {pid for pid in family(service) if "spawn_main" in text_of(pid, "cmdline")}


def nothing_left(processes: set[int]) -> None:
    block_until(lambda: not [pid for pid in processes if runs(pid)], within=10)


def verify(data: Path) -> str:
    command = [*COMMAND, "verify", "--data-dir", str(data)]
    done = subprocess.run(command, env=clean_environment(), check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout


# One installation with the embedded database


@contextmanager
def installation(wanted: Path) -> Iterator[Path]:
    """Where the data of a start with `--data-dir wanted` will be; removed in the end."""
    data = data_root(wanted)
    try:
        yield data
    finally:
        block_until(lambda: not database_of(data), within=10)
        shutil.rmtree(data, ignore_errors=True)
        if data != wanted and not any(data.parent.iterdir()):
            data.parent.rmdir()


async def test_an_installation_from_its_first_start_to_its_next(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    wanted = tmp_path / "data"  # as root in a place that the database's user cannot reach
    with installation(wanted) as data:
        began = time.monotonic()
        with serving(clean_environment(), "--data-dir", str(wanted)) as service:
            assert time.monotonic() - began < 30
            token = told(service, data)
            demo_port = await serves_a_demonstration(service, token)
            assert verify(wanted).startswith("2 events, chain and projection verified")
            await keeps_no_token(data, token)
            before = database_of(data)
            assert before, "keeper and server"
            await ends_with_open_streams(service, token, before)
            rest = service.said().removeprefix(service.announcement)
            assert LINK.fullmatch(rest), "two lines and nothing else"
        assert verify(wanted).startswith("2 events, chain and projection verified")
        nothing_left(database_of(data))
        secrets = azure(upstream, MODEL_LEDGER_ADMIN_TOKEN=TOKEN)
        with serving(clean_environment(**secrets), "--data-dir", str(wanted), "--workers", "2") as service:
            assert service.announcement.endswith("sign in with the token in MODEL_LEDGER_ADMIN_TOKEN")
            await serves_azure_and_the_demonstration(service, token, demo_port)
            assert CANARY not in shown(family(service) | database_of(data), but=service.process.pid)
            ctrl_c(service, also=database_of(data))
            assert CANARY not in service.said()
        assert files_with(CANARY.encode(), data) == []
        with serving(clean_environment(), "--data-dir", str(wanted)) as service:
            assert cpu_seconds(service.process.pid) < 3
            assert "administrator token of the first start" in service.announcement
            assert [port for _, port in demos(service)] == [demo_port]


def told(service: Service, data: Path) -> str:
    """The administrator's token of the first line, which has the address and the place of the data."""
    line = FIRST.fullmatch(service.announcement)
    assert line is not None, service.announcement
    assert (line["url"], line["data"]) == (service.url, str(data))
    if os.geteuid() == 0:
        assert data.parent == Path("/var/lib/model-ledger")
    assert len(line["token"]) >= 32
    return line["token"]


async def serves_a_demonstration(service: Service, token: str) -> int:
    """The default model is the demonstration, and it answers; its upstream's port."""
    service.token = token
    async with service.api() as api:
        answer = (await api.chat("demo")).json()
        assert "demonstration" in answer["choices"][0]["message"]["content"]
        models = await models_of(api)
        assert {name: model["is_default"] for name, model in models.items()} == {"demo": True}
    ((_, port),) = demos(service)
    assert models["demo"]["azure_endpoint"] == f"http://127.0.0.1:{port}"
    return port


async def keeps_no_token(data: Path, token: str) -> None:
    with lease(data) as server:
        connection = await asyncpg.connect(server.owner_url)
        (row,) = await connection.fetch("SELECT * FROM access_token")
        await connection.execute("CHECKPOINT")
        await connection.close()
    assert row["hash"] == sha256(token.encode()).digest()
    assert files_with(token.encode(), data) == []


async def ends_with_open_streams(service: Service, token: str, database: set[int]) -> None:
    """Ctrl-C while somebody listens to the events, and an answer is under way, which is finished."""
    headers = {"Authorization": f"Bearer {token}"}
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    async with (
        httpx2.AsyncClient(base_url=service.url, headers=headers, trust_env=False, timeout=20) as client,
        client.stream("GET", "/api/config/events/stream") as events,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        assert (events.status_code, answer.status_code) == (200, 200)
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        stopping = asyncio.create_task(asyncio.to_thread(ctrl_c, service, also=database))
        assert [line async for line in lines if line][-1] == "data: [DONE]"
        await stopping


async def serves_azure_and_the_demonstration(service: Service, old_token: str, demo_port: int) -> None:
    """Only the demonstration was there: the new model is the default, and each gets its own key."""
    service.token = old_token
    async with service.api() as api:
        assert (await api.http.get("/api/config/models")).status_code == 401
    service.token = TOKEN
    async with service.api() as api:
        models = await models_of(api)
        assert {name: model["is_default"] for name, model in models.items()} == {"demo": False, "first": True}
        assert (await api.chat("first")).status_code == 200
        answer = (await api.chat("demo")).json()  # it refuses every key but its own
        assert "demonstration" in answer["choices"][0]["message"]["content"]
    assert [port for _, port in demos(service)] == [demo_port]


def azure(upstream: ScriptedUpstream, **more: str) -> dict[str, str]:
    return {
        "AZURE_OPENAI_API_KEY": f"{CANARY}-key",
        "AZURE_OPENAI_ENDPOINT": upstream.origin,
        "AZURE_OPENAI_DEPLOYMENT_NAME": "first",
        **more,
    }


async def models_of(api: Api) -> dict[str, dict[str, Any]]:
    answer = await api.http.get("/api/config/models")
    assert answer.status_code == 200, answer.text
    models: dict[str, dict[str, Any]] = answer.json()
    return models


def shown(processes: set[int], *, but: int) -> str:
    """What anyone can see of processes: every argument, and every variable except one's first ones."""
    environments = [text_of(pid, "environ") for pid in processes if pid != but]
    assert any("PATH=" in environment for environment in environments)
    return " ".join([*environments, *(text_of(pid, "cmdline") for pid in processes)])


def files_with(secret: bytes, directory: Path) -> list[Path]:
    files = [file for file in directory.rglob("*") if file.is_file()]
    assert len(files) > 100
    return [file for file in files if secret in file.read_bytes()]


def cpu_seconds(pid: int) -> float:
    """What a process computed so far; unlike the time that passed it does not depend on its neighbours."""
    return sum(int(ticks) for ticks in stat_of(pid)[11:13]) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_while_the_database_is_made_leaves_nothing(tmp_path: Path) -> None:
    wanted = tmp_path / "data"
    with installation(wanted) as data, tempfile.TemporaryFile("w+") as errors:
        command = [*COMMAND, "serve", "--port", str(free_port()), "--data-dir", str(wanted)]
        process = subprocess.Popen(
            command, env=clean_environment(), stderr=errors, stdout=errors, start_new_session=True
        )
        block_until(lambda: len(database_of(data)) > 1 or process.poll() is not None, within=20)
        everyone = database_of(data) | {process.pid}
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) in {0, 130}
        nothing_left(everyone | database_of(data))
        errors.seek(0)
        assert "Traceback" not in errors.read()


# On a database of its own


@pytest.fixture
def environment(databases: Databases, database: str, tmp_path: Path) -> dict[str, str]:
    """An empty ledger in an external database, and an administrator's token."""
    return clean_environment(
        MODEL_LEDGER_DATA_DIR=str(tmp_path / "data"),
        DATABASE_URL=databases.app_url(database),
        MODEL_LEDGER_OWNER_DATABASE_URL=databases.owner_url(database),
        MODEL_LEDGER_ADMIN_TOKEN=TOKEN,
    )


async def test_the_demo_upstream_runs_while_a_model_points_at_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "web.py").write_text("raise SystemExit('what lies in the directory of the start')")
    with serving(environment, cwd=tmp_path) as service:
        service.token = TOKEN
        ((first, port),) = demos(service)
        async with service.api() as api:
            other = await api.create(credential=None)
            assert (await api.delete("demo", new_default=other)).status_code == 200
            await wait_until(lambda: not runs(first), within=10)
            assert demos(service) == []
            assert (await api.http.post(path("demo", "restore"), json={})).status_code == 200
            await wait_until(lambda: demos(service), within=10)
            ((second, same),) = demos(service)
            assert same == port
            await wait_until_answered(api)
            os.kill(second, signal.SIGKILL)
            await wait_until(lambda: demos(service) and demos(service)[0][0] != second, within=10)
            await wait_until_answered(api)
        ctrl_c(service)
    with serving(environment, cwd=tmp_path) as service:
        assert [again for _, again in demos(service)] == [port]
        everyone = family(service)
        service.process.kill()  # no time to tidy up
        service.process.wait()
        nothing_left(everyone)


async def wait_until_answered(api: Api) -> None:
    deadline = time.monotonic() + 10
    while (await api.chat("demo")).status_code != 200:
        assert time.monotonic() < deadline


async def test_the_first_model_comes_from_the_environment_once(
    environment: dict[str, str], upstream: ScriptedUpstream
) -> None:
    environment |= azure(upstream, AZURE_OPENAI_DEPLOYMENT_NAME="gpt-4o")
    with serving(environment) as service:
        service.token = TOKEN
        async with service.api() as api:
            (model,) = (await models_of(api)).values()
            assert {**model, **FROM_ENVIRONMENT, "azure_endpoint": upstream.origin} == model
            (entry,) = await api.history("gpt-4o")
            assert (entry["actor"]["id"], entry["actor"]["kind"], entry["source"]) == ("system",) * 3
            assert (await api.chat("gpt-4o")).status_code == 200
            assert upstream.requests[-1].headers["api-key"] == environment["AZURE_OPENAI_API_KEY"]
            assert "/deployments/gpt-4o/" in upstream.requests[-1].path
            assert (await api.http.put("/api/config/default", json={"model_id": None})).status_code == 200
            assert (await api.delete("gpt-4o")).status_code == 200
            position = await api.position()
        assert demos(service) == []
    another = "!#$%&'()*+,-./:;<=>?@[]^_`{|}~\"\\" + "x" * 8
    with serving({**environment, "MODEL_LEDGER_ADMIN_TOKEN": another}) as service:
        service.token = TOKEN
        async with service.api() as api:
            assert (await api.http.get("/api/config/models")).status_code == 401
        service.token = another
        async with service.api() as api:
            assert await models_of(api) == {}
            assert await api.position() == position


FROM_ENVIRONMENT = {
    "name": "gpt-4o",
    "provider": "azure",
    "max_tokens": 40_000,
    "supports_streaming": False,
    "supports_temperature": False,
    "api_version": "2025-01-01-preview",
    "base_timeout": 120,
    "max_timeout": 300,
    "token_factor": 0.05,
    "credential": "environment",
    "is_default": True,
    "version": 1,
}


def test_no_worker_shows_a_secret_and_none_outlives_the_start(
    databases: Databases, database: str, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    def with_password(url: str) -> str:
        return url.replace("@/", f":{CANARY}-password@/")

    addresses = {
        "DATABASE_URL": with_password(databases.app_url(database)),
        "MODEL_LEDGER_OWNER_DATABASE_URL": with_password(databases.owner_url(database)),
    }
    assert all(CANARY in address for address in addresses.values())
    secrets = azure(upstream, MODEL_LEDGER_ADMIN_TOKEN=TOKEN, OPENAI_API_KEY=f"{CANARY}-other", **addresses)
    environment = clean_environment(MODEL_LEDGER_DATA_DIR=str(tmp_path), **secrets)
    with serving(environment, "--workers", "2") as service:
        everyone = family(service)
        assert len(workers(service)) == 2
        assert CANARY in text_of(service.process.pid, "environ"), "the kernel keeps what it was started with"
        assert CANARY not in shown(everyone, but=service.process.pid)
        killed = min(workers(service))
        os.kill(killed, signal.SIGKILL)
        block_until(lambda: len(workers(service) - {killed}) == 2, within=10)
        service.process.kill()  # no time to tidy up
        service.process.wait()
        nothing_left(everyone | family(service))
        assert f"worker {killed} ended with status -9 and is replaced" in service.said()
        assert CANARY not in service.said()


@pytest.mark.parametrize("times", [1, 3])
async def test_ctrl_c_while_the_workers_start_ends_them_and_shows_the_new_token(
    environment: dict[str, str], owner: asyncpg.Connection, times: int
) -> None:
    del environment["MODEL_LEDGER_ADMIN_TOKEN"]
    said = interrupted(environment, times)
    assert "Traceback" not in said
    token = re.search(r"shown only now: (\S+)", said)
    assert token is not None
    assert sha256(token[1].encode()).digest() == await owner.fetchval("SELECT hash FROM access_token")


def interrupted(environment: dict[str, str], times: int) -> str:
    """What a start of two workers says that is interrupted as soon as both are there."""
    with tempfile.TemporaryFile("w+") as output:
        command = [*COMMAND, "serve", "--port", str(free_port()), "--workers", "2"]
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, text=True, start_new_session=True
        )
        service = Service(process, "", "")
        try:
            block_until(lambda: len(workers(service)) == 2, within=30)
            everyone = family(service)
            for _ in range(times):
                os.killpg(process.pid, signal.SIGINT)
            assert process.wait(40) in {0, 130}
            nothing_left(everyone)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return output.read()


async def test_two_first_starts_at_once_make_one_token_and_one_model(
    environment: dict[str, str], owner: asyncpg.Connection
) -> None:
    del environment["MODEL_LEDGER_ADMIN_TOKEN"]
    processes = [
        await asyncio.create_subprocess_exec(
            *COMMAND, "serve", "--port", str(free_port()), env=environment, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    lines = []
    for process in processes:
        assert process.stdout is not None
        lines.append((await process.stdout.readline()).decode())
    for process in processes:
        process.terminate()
        assert await process.wait() == 0
    assert sum("shown only now" in line for line in lines) == 1
    assert sum("token of the first start" in line for line in lines) == 1
    types = await owner.fetch("SELECT stream, type FROM event ORDER BY position")
    assert sorted(row["stream"] for row in types) == ["default", "model/demo"]


def test_make_run_starts_the_service_and_ctrl_c_ends_it(environment: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    environment |= {"MODEL_LEDGER_PORT": str(port), "MODEL_LEDGER_SNAPSHOT_HOURS": "0"}
    # As if everything were installed: it is, and not every change of a file is to install anew.
    command = ["make", "--directory", str(ROOT), "--assume-old", ".venv/.installed", "run"]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    announcement = ""
    while "Model Ledger is at" not in announcement:
        announcement = process.stdout.readline()
        assert announcement, process.communicate()
    service = Service(process, f"http://127.0.0.1:{port}", announcement)
    assert f"Model Ledger is at http://127.0.0.1:{port}" in announcement
    everyone = family(service)
    assert len(everyone) >= 3, "make, the service, the demo upstream"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=15)
    nothing_left(everyone)
    assert "Traceback" not in errors
    assert not (tmp_path / "data").exists()


def test_a_start_looks_for_the_newest_migration() -> None:
    """It takes the revisions from the names of their files, as Alembic takes a while to import."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [REVISIONS[-1]]
    assert sorted(script.revision for script in scripts.walk_revisions()) == REVISIONS


def test_the_real_key_never_goes_to_the_demo_upstream() -> None:
    demo = Origin("http://127.0.0.1:12345")
    real = {"azure_api_key": "real", "azure_endpoint": demo, "azure_deployment": "first"}
    settings = Settings(**real, key_origins=f"{demo}, https://other.example")
    assert _keys(settings, demo) == {demo: DEMO_KEY, "https://other.example": "real"}


def test_without_a_real_key_the_allowed_origins_get_the_demonstrations_public_one() -> None:
    assert _keys(Settings(key_origins="https://other.example"), None) == {"https://other.example": DEMO_KEY}


def test_the_signal_to_stop_is_heeded_though_the_shell_had_it_ignored(
    environment: dict[str, str],
) -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring, *COMMAND, "serve", "--port", str(port), "--workers", "2"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in {0, 130}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
