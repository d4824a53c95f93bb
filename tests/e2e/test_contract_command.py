"""The contract without a service: what the page's types are made of."""

import asyncio
import json

from service import COMMAND, Api, clean_environment


async def test_the_command_prints_what_the_service_publishes(api: Api) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "contract", env=clean_environment(), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    published = (await api.http.get("/schema/openapi.json")).json()
    assert json.loads(printed) == published
