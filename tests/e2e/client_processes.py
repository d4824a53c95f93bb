"""Clients of other makers, each in a process of its own that plays all scenarios and tells of them."""

import asyncio
import fcntl
import json
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from service import Service, clean_environment
from upstream import RecordedRequest, ScriptedUpstream, wait_until

ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent / "clients"
OUT_OF_REACH: Final = re.compile(
    r"\bE(NOTFOUND|AI_AGAIN|CONN\w+|TIMEDOUT|NETUNREACH|HOSTUNREACH|RR_SOCKET_TIMEOUT|403|5\d\d)\b"
    r"|failed to fetch|error sending request|could not find a version|No matching distribution",
    re.IGNORECASE,
)
"""What npm, uv and pip say when the packages cannot be had, rather than not being what they should be."""
OLDEST_NODE: Final = 20
LEAVING: Final = ("left_streaming", "left_waiting")
"""Scenarios whose caller does not wait for the end."""


@dataclass(frozen=True)
class Program:
    """How a client is started, and the Make target that installs what it needs."""

    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    target: str | None = None


NODE: Final = f"{HERE.relative_to(ROOT)}/node_modules/.installed"
PROGRAMS: Final = {
    "openai-node": Program(("node", "openai_sdk.mjs"), ("node", "npm"), NODE),
    "ai-sdk": Program(("node", "ai_sdk.mjs"), ("node", "npm"), NODE),
    "langchain": Program(
        (str(ROOT / ".tools/clients/bin/python"), "langchain_client.py"), (), ".tools/clients/.installed"
    ),
    "curl": Program((sys.executable, "curl_client.py"), ("curl",)),
}


@dataclass(frozen=True)
class Told:
    """What a client told of its scenarios, and what the upstream saw of them."""

    client: str
    found: dict[str, dict[str, Any]]
    models: Mapping[str, str]
    requests: defaultdict[str, list[RecordedRequest]] = field(default_factory=lambda: defaultdict(list))
    aborted_within: list[float] = field(default_factory=list)
    """Seconds between the client's leaving and its call's end upstream, for each of `LEAVING`."""


async def play(client: str, service: Service, upstream: ScriptedUpstream, models: Mapping[str, str]) -> Told:
    """Let a client play its scenarios, each with the model of that name."""
    program = PROGRAMS[client]
    await asyncio.to_thread(install, program)
    told = Told(client, {}, models)
    given = {"base_url": f"{service.url}/v1", "token": service.token, "models": models}
    process = await asyncio.create_subprocess_exec(
        *program.command, cwd=HERE, env=environment(), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(120):
            complained = await converse(process, json.dumps(given), told, upstream)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert process.returncode == 0, complained
    by_deployment = {model_id: scenario for scenario, model_id in models.items()}
    for request in upstream.requests:
        if request.deployment in by_deployment:
            told.requests[by_deployment[request.deployment]].append(request)
    return told


async def converse(process: Process, given: str, told: Told, upstream: ScriptedUpstream) -> str:
    """Give the client its lines, and take down all of its own; what it complained of."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(given.encode() + b"\n")
    before, clock = upstream.aborted, asyncio.get_running_loop().time
    async with asyncio.TaskGroup() as meanwhile:
        complained = meanwhile.create_task(process.stderr.read())
        sending = meanwhile.create_task(send_when_begun(process.stdin, told, upstream))
        while line := json.loads(await process.stdout.readline() or b"{}"):
            told.found[scenario := line.pop("scenario")] = line
            if scenario in LEAVING:
                left, expected = clock(), before + len(told.aborted_within) + 1
                await wait_until(lambda expected=expected: upstream.aborted >= expected, within=10)
                told.aborted_within.append(clock() - left)
        sending.cancel()
        process.stdin.close()
    await process.wait()
    return complained.result().decode()


async def send_when_begun(stdin: asyncio.StreamWriter, told: Told, upstream: ScriptedUpstream) -> None:
    """Tell the client that the calls that it is to leave are under way."""
    wanted = {told.models[scenario] for scenario in LEAVING}
    await wait_until(lambda: wanted <= {each.deployment for each in upstream.requests}, within=60)
    stdin.write(b"leave\n")


def environment() -> dict[str, str]:
    """The clients speak to the service alone, and tell nobody of it."""
    kept = clean_environment(LANGSMITH_TRACING="false", NO_PROXY="*", no_proxy="*")
    foreign = ("LANGCHAIN_", "NODE_OPTIONS")
    return {name: value for name, value in kept.items() if not name.startswith(foreign)}


def node_version() -> int:
    """The major one."""
    said = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout
    return int(said.removeprefix("v").partition(".")[0])


@cache
def install(program: Program) -> None:
    """Install what a client needs, unless it is there, one process of the run at a time.

    Raises:
        pytest.skip.Exception: its interpreter is not on this machine, or its packages are out of reach.
    """
    for need in program.needs:
        if shutil.which(need) is None:
            pytest.skip(f"{need} is not installed")
    if "node" in program.needs and node_version() < OLDEST_NODE:
        pytest.skip(f"Node {OLDEST_NODE} or later is not installed")
    if program.target is None:
        return
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    (ROOT / ".tools").mkdir(exist_ok=True)
    with (ROOT / ".tools/clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(
            ["make", "--silent", program.target],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    said = made.stdout + made.stderr
    if made.returncode and (found := OUT_OF_REACH.search(said)):
        pytest.skip(f"its packages are out of reach: {found[0]}")
    assert made.returncode == 0, said
