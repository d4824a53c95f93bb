"""Reading the configuration, and how fast a change is in use in every worker."""

import asyncio
import time

import httpx2

from measure import Timing, run

MODELS = 200


async def get_models(client: httpx2.AsyncClient, count: int) -> str:
    """GET of all models."""

    async def read(_: int) -> None:
        (await client.get("/api/config/models")).raise_for_status()

    return f"GET of {MODELS} models     {(await run(read, count=count)).shown()}"


async def propagation(
    clients: list[httpx2.AsyncClient], model_id: str, config: dict[str, object], count: int
) -> str:
    """From the answer to a change until every worker serves it; changes go to the workers in turn."""
    latencies = []
    begin = time.perf_counter()
    for number in range(count):
        changed = {**config, "description": f"change {number}"}
        answer = await clients[number % len(clients)].put(f"/api/config/models/{model_id}", json=changed)
        start = time.perf_counter()
        position = answer.raise_for_status().json()["position"]
        await asyncio.gather(*(_served(client, position) for client in clients))
        latencies.append(time.perf_counter() - start)
    timing = Timing(latencies, time.perf_counter() - begin)
    return (
        f"{count} changes, {len(clients)} workers: in use everywhere "
        f"p50 {timing.percentile(50):.1f} ms, p99 {timing.percentile(99):.1f} ms, "
        f"max {timing.percentile(100):.1f} ms after the answer"
    )


async def _served(client: httpx2.AsyncClient, position: int) -> None:
    while (await client.get("/readyz")).json()["position"] < position:
        pass
