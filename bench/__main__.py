"""`make bench`: every figure in one run, on the embedded PostgreSQL with its usual safety (fsync on)."""

import argparse
import asyncio
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import asyncpg
import httpx2

from appends import appends
from calls import Target, calls, slow_streams
from domain.configuration import ModelConfig
from infrastructure.database import Database
from infrastructure.embedded import EmbeddedPostgres, lease
from infrastructure.verify import verify
from measure import run
from reads import MODELS, get_models, propagation
from seed import seed

TOKEN = "mlk_bench_" + "b" * 40
HERE = Path(__file__).parent
OPEN_FILES = 8_192
"""A thousand streams take two each in the gateway."""


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(stack: ExitStack, server: EmbeddedPostgres, name: str, origin: str) -> tuple[int, int, float]:
    """A service of one worker: its port, its process id, and the seconds until it was ready."""
    port = free_port()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AZURE_", "OPENAI_"))}
    environment = {
        **kept,
        "DATABASE_URL": server.url(name, owner=False),
        "MODEL_LEDGER_OWNER_DATABASE_URL": server.url(name, owner=True),
        "MODEL_LEDGER_ADMIN_TOKEN": TOKEN,
        "AZURE_OPENAI_API_KEY": "bench-key",
        "AZURE_OPENAI_ENDPOINT": origin,
        "AZURE_OPENAI_DEPLOYMENT_NAME": "bench-default",
        "MODEL_LEDGER_SNAPSHOT_HOURS": "0",
    }
    start = time.perf_counter()
    command = [str(Path(sys.executable).parent / "model-ledger"), "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    if not process.stdout or not process.stdout.readline():
        raise SystemExit("the service did not start")
    return port, process.pid, time.perf_counter() - start


async def make_database(server: EmbeddedPostgres, name: str) -> Database:
    owner = await asyncpg.connect(server.owner_url)
    await owner.execute(f"CREATE DATABASE {name}")
    await owner.close()
    return await Database.prepare(server.url(name, owner=False), server.url(name, owner=True))


def config(origin: str) -> dict[str, object]:
    return {
        "name": "bench",
        "max_tokens": 4096,
        "supports_streaming": True,
        "supports_temperature": True,
        "provider": "openai",
        "base_url": f"{origin}/v1",
    }


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


async def measure(server: EmbeddedPostgres, stack: ExitStack, origin: str, direct: int, scale: float) -> None:
    title("Append (median of 3 interleaved rounds; a ledger append is a whole command)")
    database = await make_database(server, "bench_appends")
    append_config = ModelConfig(
        name="b", max_tokens=1, supports_streaming=True, supports_temperature=True, provider="openai",
        base_url="http://127.0.0.1:9/v1",
    )  # fmt: skip
    for row in await appends(database, server.url("bench_appends"), append_config, int(2_000 * scale)):
        print(row, flush=True)

    await make_database(server, "bench_service")
    ports = [serve(stack, server, "bench_service", origin) for _ in range(2)]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    clients = [
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) for port, _, _ in ports
    ]
    for name in ["bench", *(f"m-{number:03}" for number in range(MODELS - 2))]:
        (await clients[0].post(f"/api/config/models/{name}", json=config(origin))).raise_for_status()
    title("Reads and propagation (two processes of one worker each)")
    print(await get_models(clients[0], int(300 * scale)), flush=True)
    print(await propagation(clients, "m-000", config(origin), int(500 * scale)), flush=True)

    title("Gateway (client, upstream and gateway share this machine's cores; median of 3 interleaved rounds)")
    await clients[0].post("/api/config/models/slow", json=config(origin))
    await clients[0].post("/api/config/models/idle", json=config(origin))
    gateway, pid = Target(ports[0][0], TOKEN), ports[0][1]
    for row in await calls(Target(direct), gateway, pid, int(2_000 * scale)):
        print(row, flush=True)
    print(await slow_streams(gateway, pid), flush=True)
    for client in clients:
        await client.aclose()


async def history(server: EmbeddedPostgres, stack: ExitStack, origin: str, events: int) -> None:
    name = f"bench_{events}"
    await make_database(server, name)
    connection = await asyncpg.connect(server.url(name))
    start = time.perf_counter()
    await seed(connection, events=events, models=200)
    seeded = time.perf_counter() - start
    start = time.perf_counter()
    verdict = await verify(connection)
    verified = time.perf_counter() - start
    model_id = await connection.fetchval(
        "SELECT substr(stream, 7) FROM event WHERE stream LIKE 'model/%' LIMIT 1"
    )
    await connection.close()
    port, _, started = serve(stack, server, name, origin)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:

        async def page(_: int) -> None:
            (await client.get(f"/api/config/models/{model_id}/history")).raise_for_status()

        async def log(_: int) -> None:
            (await client.get("/api/config/events")).raise_for_status()

        pages, logs = await run(page, count=200), await run(log, count=200)
    print(
        f"{events:9,} events: seeded {events / seeded:8,.0f}/s   verified {events / verified:8,.0f}/s "
        f"(ok: {verdict.ok})   start {started:.2f} s   history page p95 {pages.percentile(95):.1f} ms   "
        f"audit page p95 {logs.percentile(95):.1f} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--scale", type=float, default=1.0, help="of the counts; 0.1 for a quick look")
    parser.add_argument(
        "--events", type=int, nargs="*", default=[0, 100_000], help="ledgers for the last table"
    )
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    root = Path(tempfile.mkdtemp(prefix="model-ledger-bench-"))
    root.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        direct = free_port()
        upstream = subprocess.Popen(
            [sys.executable, str(HERE / "provider.py"), str(direct)], stdout=subprocess.PIPE
        )
        stack.callback(upstream.wait)
        stack.callback(upstream.terminate)
        if upstream.stdout:
            upstream.stdout.readline()
        server = stack.enter_context(lease(root))
        origin = f"http://127.0.0.1:{direct}"
        print(f"python -m bench --scale {asked.scale:g}, on {os.cpu_count()} cores")
        asyncio.run(measure(server, stack, origin, direct, asked.scale))
        title("Length of the ledger")
        for events in asked.events:
            asyncio.run(history(server, stack, origin, max(events, 1_000)))


if __name__ == "__main__":
    main()
