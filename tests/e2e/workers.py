"""The workers of a service, one by one: who they are, and a client that talks to a certain one (Linux)."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from service import Api, Service

ESTABLISHED = "01"
"""The state of a connection in /proc/net/tcp."""


def children(pid: int) -> dict[int, str]:
    """The running children of a process, with their command lines."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (directory / "stat").read_text().rsplit(") ", 1)[1].split()[:2]
            if int(parent) == pid and state not in "ZX":
                found[int(directory.name)] = (directory / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def command_of(pid: int) -> str:
    """Its command line; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def family(pid: int) -> set[int]:
    """A process and all that descends from it."""
    return {pid}.union(*(family(child) for child in children(pid)))


def workers(service: Service) -> set[int]:
    """The processes that serve: the children that were spawned, or the process itself."""
    spawned = {pid for pid, command in children(service.process.pid).items() if "spawn_main" in command}
    return spawned or {service.process.pid}


@asynccontextmanager
async def each_worker(service: Service, **options: Any) -> AsyncIterator[dict[int, Api]]:
    """A client for each worker, on one connection that it keeps."""
    wanted = workers(service)
    found: dict[int, Api] = {}
    async with AsyncExitStack() as stack:
        for _ in range(1_000):
            api = await stack.enter_async_context(service.api(**options))
            pid = await worker_of(api)
            assert pid in wanted, f"{pid} is none of {wanted}"
            found.setdefault(pid, api)
            if len(found) == len(wanted):
                yield found
                return
    raise AssertionError(f"only {set(found)} of {wanted} answered")


async def worker_of(api: Api) -> int:
    """Which process answers on this client's connection."""
    answer = await api.http.get("/livez")
    _, port = answer.extensions["network_stream"].get_extra_info("client_addr")[:2]
    ours = int(api.service.url.rpartition(":")[2])
    (inode,) = {inode for local, remote, inode in connections() if (local, remote) == (ours, port)}
    (pid,) = [pid for pid in family(api.service.process.pid) if inode in sockets(pid)]
    return pid


def connections() -> Iterator[tuple[int, int, str]]:
    """Every established IPv4 connection: its local port, its remote port, and its socket's inode."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *rest = line.split()
        if state == ESTABLISHED:
            yield int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16), rest[5]


def sockets(pid: int) -> set[str]:
    """The inodes of a process's open sockets."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def connections_to(service: Service, port: int) -> int:
    """How many connections the workers hold to a port."""
    own = set().union(*(sockets(pid) for pid in workers(service)))
    return sum(remote == port and inode in own for _, remote, inode in connections())
