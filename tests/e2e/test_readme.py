"""The README's tour works as it is written."""

import asyncio
import json
from pathlib import Path

from service import TOKEN, Databases, clean_environment, serving

README = Path(__file__).parents[2] / "README.md"


def tour() -> list[str]:
    text = README.read_text()
    block = text.partition("## A tour in five lines")[2].partition("```sh\n")[2].partition("```")[0]
    lines = block.strip().splitlines()
    assert lines[0].startswith("api() {")
    assert len(lines) == 6, "a function and five lines"
    return lines


async def test_the_tour_creates_changes_shows_rolls_back_and_chats(
    databases: Databases, database: str
) -> None:
    environment = clean_environment(
        DATABASE_URL=databases.app_url(database),
        MODEL_LEDGER_OWNER_DATABASE_URL=databases.owner_url(database),
        MODEL_LEDGER_ADMIN_TOKEN=TOKEN,
    )
    with serving(environment) as service:
        script = "\n".join(tour()).replace("http://127.0.0.1:8000", service.url)
        shell = await asyncio.create_subprocess_exec(
            "bash",
            "-euo",
            "pipefail",
            "-c",
            script,
            env={**environment, "TOKEN": TOKEN},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await shell.communicate()
    assert shell.returncode == 0, errors.decode()
    created, changed, history, rolled_back, answer = map(json.loads, out.decode().splitlines())
    assert (created["status"], created["version"]) == ("created", 1)
    assert (changed["status"], changed["version"]) == ("updated", 2)
    assert [entry["version"] for entry in history["data"]] == [2, 1]
    assert history["data"][0]["reason"] == "long prompts time out"
    assert (rolled_back["status"], rolled_back["version"]) == ("rolled_back", 3)
    assert "demonstration" in answer["choices"][0]["message"]["content"]
