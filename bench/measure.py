"""How figures are taken: latencies of bounded loops, and their percentiles."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


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


def median(timings: list[Timing], of: Callable[[Timing], float]) -> Timing:
    """The run in the middle, by a figure."""
    ordered = sorted(timings, key=of)
    return ordered[statistics.median_low(range(len(ordered)))]
