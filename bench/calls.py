"""Calls through the gateway beside the same calls made directly."""

import asyncio
import json
import time
from dataclasses import dataclass

from measure import Timing, cpu_seconds, median, resident_kilobytes, run

ROUNDS = 3
STREAMS = 1_000


@dataclass(frozen=True)
class Target:
    """Where calls go: the provider itself, or a gateway before it."""

    port: int
    token: str = ""

    def request(self, model: str, *, stream: bool) -> bytes:
        """The bytes of one call."""
        body = json.dumps(
            {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
        )
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {self.token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()


async def calls(direct: Target, gateway: Target, gateway_pid: int, count: int) -> list[str]:
    """The rows of the table: plain calls and streams of 50 chunks, at once and 10 ms apart."""
    rows = []
    for name, model, stream, crowds, times in (
        ("plain call", "bench", False, (1, 16, 64), count),
        ("stream of 50 chunks", "bench", True, (1, 16), count),
        ("the same, 10 ms apart", "slow", True, (1, 16), max(count // 20, 32)),
    ):
        for clients in crowds:
            number = times if clients > 1 or model != "slow" else max(times // 10, 8)
            straight, through, spent = [], [], []
            for _ in range(ROUNDS):
                straight.append(await timed(direct, model, clients, number, stream=stream))
                before = cpu_seconds(gateway_pid)
                through.append(await timed(gateway, model, clients, number, stream=stream))
                spent.append(1_000 * (cpu_seconds(gateway_pid) - before) / (number + clients * 5))
            one, other = (median(each, lambda pair: pair[0].rate) for each in (straight, through))
            rows.append(f"{name:22} c={clients:<3} direct   {_shown(one, stream=stream)}")
            added = other[0].percentile(50) - one[0].percentile(50)
            rows.append(
                f"{'':22} {'':5} gateway  {_shown(other, stream=stream)}   added p50 {added:5.2f} ms   "
                f"CPU {sorted(spent)[ROUNDS // 2]:5.3f} ms a call"
            )
    return rows


async def slow_streams(gateway: Target, gateway_pid: int) -> str:
    """Memory that each of many streams takes while all of them wait for their next chunk."""
    await timed(gateway, "bench", 16, 200, stream=True)
    before = resident_kilobytes(gateway_pid)
    running = asyncio.create_task(timed(gateway, "idle", STREAMS, STREAMS, stream=True, warm=False))
    await asyncio.sleep(10)  # in the middle of their 20 s
    during = resident_kilobytes(gateway_pid)
    (_, firsts), ended = await running, resident_kilobytes(gateway_pid)
    return (
        f"{STREAMS:,} streams of a chunk a second: {(during - before) / STREAMS:.1f} kB each, "
        f"{ended - before:,} kB kept afterwards; first byte p99 {firsts.percentile(99):.0f} ms (all at once)"
    )


async def timed(
    target: Target, model: str, clients: int, count: int, *, stream: bool, warm: bool = True
) -> tuple[Timing, Timing]:
    """Whole calls, and their first bytes of body."""
    connections = [await asyncio.open_connection("127.0.0.1", target.port) for _ in range(clients)]
    request = target.request(model, stream=stream)
    firsts: list[float] = []

    async def call(client: int) -> None:
        reader, writer = connections[client]
        start = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head:
            raise RuntimeError(head.decode())
        if b"chunked" in head:
            await reader.readuntil(b"\r\n")
            firsts.append(time.perf_counter() - start)
            await reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
            firsts.append(time.perf_counter() - start)

    try:
        if warm:
            await run(call, count=clients * 5, clients=clients)
            firsts.clear()
        whole = await run(call, count=count, clients=clients)
        return whole, Timing(firsts, whole.elapsed)
    finally:
        for _, writer in connections:
            writer.close()


def _shown(timings: tuple[Timing, Timing], *, stream: bool) -> str:
    whole, first = timings
    return whole.shown() + (f"   first byte p50 {first.percentile(50):5.2f} ms" if stream else "")
