"""Calls through the gateway beside the same calls made directly."""

import asyncio
import json
import os
from pathlib import Path

from measure import Timing, median, run

ROUNDS = 3
TICKS = os.sysconf("SC_CLK_TCK")


async def calls(direct_port: int, gateway_port: int, token: str, gateway_pid: int, count: int) -> list[str]:
    """The rows of the table: plain at 1 and 16 clients, streams of 50 chunks at 1 and 16."""
    rows = []
    for stream in (False, True):
        for clients in (1, 16):
            direct, gateway, spent = [], [], []
            for _ in range(ROUNDS):
                direct.append(await _calls(direct_port, "bench", "", stream, clients, count))
                before = _cpu(gateway_pid)
                gateway.append(await _calls(gateway_port, "bench", token, stream, clients, count))
                spent.append(1_000 * (_cpu(gateway_pid) - before) / count)
            straight, through = (median(timings, lambda timing: timing.rate) for timings in (direct, gateway))
            added = through.percentile(50) - straight.percentile(50)
            name = "stream of 50 chunks" if stream else "plain call"
            rows.append(f"{name:20} c={clients:<3} direct   {straight.shown()}")
            rows.append(
                f"{'':20} {'':5} gateway  {through.shown()}   added p50 {added:5.2f} ms   "
                f"CPU {sorted(spent)[ROUNDS // 2]:5.2f} ms a call"
            )
    return rows


async def _calls(port: int, model: str, token: str, stream: bool, clients: int, count: int) -> Timing:
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(clients)]
    body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]})
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()

    async def call(client: int) -> None:
        reader, writer = connections[client]
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head:
            raise RuntimeError(head.decode())
        if b"chunked" in head:
            await reader.readuntil(b"0\r\n\r\n")
        else:
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))

    try:
        await run(call, count=clients * 5, clients=clients)  # warm
        return await run(call, count=count, clients=clients)
    finally:
        for _, writer in connections:
            writer.close()


def _cpu(pid: int) -> float:
    """Seconds of processor time that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
