"""How a client is asked and answers: a line of JSON in, one for each scenario out; as scenarios.mjs."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

HELLO = "hello"
TEXTS = ["one", "two"]
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}

Found = dict[str, Any]
Scenario = Callable[[Found], Awaitable[object]]


async def play(
    scenarios: Callable[[Mapping[str, Any], asyncio.Event], Mapping[str, Scenario]],
    describe: Callable[[Exception], Found],
) -> None:
    """Run all scenarios at once, tell of each as it ends, and stay until standard input does.

    Until then the upstream is looked at, and an end of this process would close every connection. The event
    is set by the second line, which comes when the calls that are to be left have begun.
    """
    given, leaving = json.loads(await next_line()), asyncio.Event()

    async def run(scenario: str, act: Scenario) -> None:
        found: Found = {}
        try:
            await act(found)
        except Exception as error:  # noqa: BLE001 - whatever a client raises is what is asked for
            found["error"] = describe(error)
        tell({"scenario": scenario, **found})

    running = [asyncio.create_task(run(*each)) for each in scenarios(given, leaving).items()]
    await next_line()
    leaving.set()
    await asyncio.gather(*running)
    tell({})
    await next_line()


async def next_line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


def tell(line: Found) -> None:
    """Write it down at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def identity(headers: Mapping[str, str]) -> Mapping[str, str | None]:
    """Who says that it answered."""
    return {name: headers.get(f"x-model-ledger-{name}") for name in ("model", "version", "position")}
