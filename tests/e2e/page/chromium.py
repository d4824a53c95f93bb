"""A Chromium to test with: one that is there, else one that can be had."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, Error, Playwright

FLAGS: Final = [
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    # Nothing outside has an address: what the page asked for elsewhere would fail, and be seen.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
PLACES: Final = {
    "Darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    ),
    "Linux": ("/usr/lib/chromium/chromium", "/snap/bin/chromium"),
}
ADVICE: Final = (
    "No Chromium, Chrome or Edge starts here, and none could be installed. "
    "Install one, or name it: MODEL_LEDGER_BROWSER=/path/to/chrome make test"
)


class NoBrowser(Exception):
    """There is none, and none could be installed."""


async def launch(playwright: Playwright) -> Browser:
    """Start a browser; only one that really starts counts.

    Raises:
        NoBrowser: the message says what to do.
    """
    named = os.environ.get("MODEL_LEDGER_BROWSER")
    if named:
        return await playwright.chromium.launch(executable_path=named, args=FLAGS)
    browser = await _start_any(playwright)
    for install in _installations():
        if browser:
            break
        if _run(install):
            browser = await _start_any(playwright)
    if browser is None:
        raise NoBrowser(ADVICE)
    return browser


async def _start_any(playwright: Playwright) -> Browser | None:
    for path in _candidates(playwright):
        try:
            return await playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=30_000)
        except Error:
            continue
    return None


def _candidates(playwright: Playwright) -> Iterator[str]:
    places = [
        playwright.chromium.executable_path,
        *(shutil.which(name) for name in NAMES),
        *PLACES.get(platform.system(), ()),
    ]
    yield from dict.fromkeys(place for place in places if place and Path(place).exists())


def _installations() -> Iterator[Sequence[str]]:
    yield [sys.executable, "-m", "playwright", "install", "chromium"]
    if shutil.which("apt-get") is None:
        return
    if os.geteuid() == 0:
        sudo = []
    elif shutil.which("sudo"):
        sudo = ["sudo", "-n"]
    else:
        return
    # The lock is waited for: another process of the test run may be installing.
    options = ["-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    yield [*sudo, "apt-get", "install", *options, "chromium", "fonts-liberation"]
    yield [*sudo, "apt-get", "update"]
    yield [*sudo, "apt-get", "install", *options, "chromium", "fonts-liberation"]


def _run(command: Sequence[str]) -> bool:
    sys.stderr.write(f"No browser yet: {' '.join(command)}\n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return (
            subprocess.run(command, check=False, timeout=900, env=environment, stdout=sys.stderr).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
