"""How figures are taken: latencies of bounded loops, and their percentiles."""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

TICKS = os.sysconf("SC_CLK_TCK")

Taken = TypeVar("Taken")


@dataclass(frozen=True)
class Timing:
    """Latencies of one run, in seconds, and its length."""

    latencies: list[float]
    elapsed: float

    @property
    def rate(self) -> float:
        """Operations per second."""
        return len(self.latencies) / self.elapsed

    def percentile(self, percent: float) -> float:
        """A latency in milliseconds."""
        ordered = sorted(self.latencies)
        return 1_000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def shown(self) -> str:
        """The row's usual columns: rate, p50, p99."""
        return f"{self.rate:8.0f}/s   p50 {self.percentile(50):7.2f} ms   p99 {self.percentile(99):7.2f} ms"


async def run(work: Callable[[int], Awaitable[object]], *, count: int, clients: int = 1) -> Timing:
    """Do the work `count` times from several clients at once; `work` is told which client it is."""
    latencies: list[float] = []
    left = iter(range(count))

    async def client(number: int) -> None:
        for _ in left:
            start = time.perf_counter()
            await work(number)
            latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return Timing(latencies, time.perf_counter() - start)


def median(timings: list[Taken], of: Callable[[Taken], float]) -> Taken:
    """The run in the middle, by a figure."""
    ordered = sorted(timings, key=of)
    return ordered[statistics.median_low(range(len(ordered)))]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_kilobytes(pid: int) -> int:
    """Memory of a process that is in RAM (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
