"""`make bench-peers`: the gateway beside LiteLLM, Portkey and the direct call, before the same provider.

Each gateway is one process with one worker, on loopback, before `bench/provider.py`. They are measured in
turn, round by round, and the table has each one's median. A peer that is not installed is left out.

How they are set up: Model Ledger as `make run` starts it, with everything on, and a caller's token. LiteLLM's
proxy with uvloop and httptools, in production mode, with its master key as the caller's token, without a
database, callbacks, telemetry and a cost map from elsewhere; it still does more for each call than the
others, such as its cost tracking. Portkey's gateway without its console, told provider and address by the
caller's headers; it asks callers for no token. Whatever would leave this machine meets a proxy that is not
there.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx2
from bench.__main__ import HERE, TOKEN, config, free_port, make_database, serve

from calls import Target, timed
from infrastructure.embedded import lease
from measure import Timing, cpu_seconds, median

PEERS = HERE.parent / ".tools" / "peers"
KEY = "sk-bench-" + "k" * 40
ROUNDS = 3
SECONDS = 2.0
"""That one contender is measured for in one round, about."""
MOST = 4_000
"""Calls of one contender in one round."""
READY_WITHIN = 120.0
ROWS = [("plain call", False, (1, 16, 64)), ("stream of 50 chunks", True, (1, 16))]
LOOPBACK = """
    import { Server } from "node:net";
    const { listen } = Server.prototype;
    Server.prototype.listen = function (port, _, then) { return listen.call(this, port, "127.0.0.1", then); };
"""
"""Portkey has no setting for where it listens, and would do so for the whole network."""
NOWHERE = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1"),
}


@dataclass(frozen=True)
class Contender(Target):
    """A way to the provider."""

    name: str = ""
    pid: int | None = None
    """Of the gateway; None for no gateway."""
    headers: bytes = b""

    def request(self, model: str, *, stream: bool) -> bytes:
        return super().request(model, stream=stream).replace(b"\r\n\r\n", self.headers + b"\r\n\r\n", 1)

    def cpu(self) -> float:
        """Seconds of processor time, with those of its children."""
        return sum(map(cpu_seconds, family(self.pid))) if self.pid is not None else 0.0


@dataclass(frozen=True)
class Found:
    """One round of one contender."""

    whole: Timing
    first: Timing
    cpu: float
    """Milliseconds a call."""


def family(pid: int) -> Iterator[int]:
    yield pid
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                yield from family(int(stat.parent.name))


def litellm(stack: ExitStack, folder: Path, provider: int) -> Contender | None:
    command = PEERS / "litellm" / "bin" / "litellm"
    if not command.exists():
        return None
    settings = {
        "model_list": [
            {
                "model_name": "bench",
                "litellm_params": {
                    "model": "openai/bench",
                    "api_base": f"http://127.0.0.1:{provider}/v1",
                    "api_key": KEY,
                },
            }
        ],
        "litellm_settings": {"telemetry": False, "callbacks": [], "num_retries": 0},
        "general_settings": {"master_key": KEY},
    }
    (folder / "litellm.json").write_text(json.dumps(settings))
    port = free_port()
    arguments = ["--config", str(folder / "litellm.json"), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
    pid = start(
        stack, folder, [str(command), *arguments, "--num_workers", "1", "--telemetry", "False"], quiet
    )
    version = next((PEERS / "litellm").glob("lib/*/site-packages/litellm-*.dist-info")).name
    return Contender(port, KEY, f"LiteLLM {version.split('-')[1].removesuffix('.dist')}", pid)


def portkey(stack: ExitStack, folder: Path, provider: int) -> Contender | None:
    package = PEERS / "portkey" / "node_modules" / "@portkey-ai" / "gateway"
    if not package.exists() or shutil.which("node") is None:
        return None
    port = free_port()
    script = str(package / "build" / "start-server.js")
    command = ["node", f"--import=data:text/javascript,{quote(LOOPBACK)}", script]
    trusted = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"}
    pid = start(stack, folder, [*command, f"--port={port}", "--headless"], trusted)
    version = json.loads((package / "package.json").read_text())["version"]
    told = f"\r\nx-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:{provider}/v1"
    return Contender(port, KEY, f"Portkey {version}", pid, told.encode())


def start(stack: ExitStack, folder: Path, command: list[str], variables: dict[str, str]) -> int:
    """Start a peer without what the user's shell knows; its process id."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    log = stack.enter_context((folder / f"{Path(command[0]).name}.log").open("w"))
    process = subprocess.Popen(
        command,
        env={**kept, **NOWHERE, "HOME": str(folder), **variables},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process.pid


def model_ledger(stack: ExitStack, folder: Path, provider: int) -> Contender:
    origin = f"http://127.0.0.1:{provider}"
    server = stack.enter_context(lease(folder))
    asyncio.run(make_database(server, "bench_peers"))
    port, pid, _ = serve(stack, server, "bench_peers", origin)
    made = httpx2.post(
        f"http://127.0.0.1:{port}/api/config/models/bench",
        json=config(origin),
        headers={"Authorization": f"Bearer {TOKEN}"},
        trust_env=False,
    )
    made.raise_for_status()
    return Contender(port, TOKEN, "Model Ledger", pid)


def answers(contender: Contender) -> bool:
    """Wait until both kinds of calls reach the provider through it; False when they never do."""
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        with suppress(OSError, RuntimeError, ValueError, asyncio.IncompleteReadError):
            for stream, mark in ((False, b"word word"), (True, b"[DONE]")):
                if mark not in asyncio.run(body(contender, stream=stream)):
                    raise ValueError(f"{contender.name} does not pass the provider's answer on")
            return True
        time.sleep(0.2)
    return False


async def body(contender: Contender, *, stream: bool) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", contender.port)
    try:
        async with asyncio.timeout(20):
            writer.write(contender.request("bench", stream=stream))
            await reader.readuntil(b"\r\n\r\n")
            return await reader.readuntil(b"[DONE]" if stream else b"word word")
    finally:
        writer.close()


async def row(contenders: list[Contender], clients: int, *, stream: bool) -> list[Found]:
    """One row of the table: a median for each contender."""
    counts = []
    for contender in contenders:
        whole, _ = await timed(contender, "bench", clients, clients * 3, stream=stream)
        counts.append(max(clients * 3, min(MOST, int(whole.rate * SECONDS))))
    found: list[list[Found]] = [[] for _ in contenders]
    for _ in range(ROUNDS):
        for contender, count, mine in zip(contenders, counts, found, strict=True):
            before = contender.cpu()
            whole, first = await timed(contender, "bench", clients, count, stream=stream, warm=False)
            mine.append(Found(whole, first, 1_000 * (contender.cpu() - before) / count))
    return [median(mine, lambda each: each.whole.rate) for mine in found]


async def table(contenders: list[Contender]) -> None:
    """Print it; ratios are to Model Ledger's figures in the same row."""
    ours = next(number for number, each in enumerate(contenders) if each.name == "Model Ledger")
    print("| | | calls/s | p50 | first byte p50 | CPU a call | calls/s | CPU |")
    print("|---|---|---|---|---|---|---|---|")
    for name, stream, crowds in ROWS:
        for clients in crowds:
            found = await row(contenders, clients, stream=stream)
            for number, (contender, mine) in enumerate(zip(contenders, found, strict=True)):
                first = f"{mine.first.percentile(50):.2f} ms" if stream else ""
                spent = f"{mine.cpu:.2f} ms" if contender.pid else ""
                rate = f"{mine.whole.rate / found[ours].whole.rate:.2f}x"
                cost = f"{mine.cpu / found[ours].cpu:.1f}x" if contender.pid and found[ours].cpu else ""
                told = f"{name}, c={clients}" if number == 0 else ""
                p50 = f"{mine.whole.percentile(50):.2f} ms"
                cells = [told, contender.name, f"{mine.whole.rate:,.0f}", p50, first, spent, rate, cost]
                print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="model-ledger-bench-")))
        folder.chmod(0o755)
        provider = free_port()
        upstream = subprocess.Popen(
            [sys.executable, str(HERE / "provider.py"), str(provider)], stdout=subprocess.PIPE
        )
        stack.callback(upstream.wait)
        stack.callback(upstream.terminate)
        if upstream.stdout:
            upstream.stdout.readline()
        contenders = [Contender(provider, "", "direct"), model_ledger(stack, folder, provider)]
        for name, begin in (("LiteLLM", litellm), ("Portkey", portkey)):
            peer = begin(stack, folder, provider)
            if peer is None or not answers(peer):
                print(f"{name} is left out: it {'does not answer' if peer else 'is not installed'}")
            else:
                contenders.append(peer)
        print(f"python -m bench.peers, on {os.cpu_count()} cores; medians of {ROUNDS} rounds")
        asyncio.run(table(contenders))


if __name__ == "__main__":
    main()
