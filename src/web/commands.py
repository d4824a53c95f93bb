"""The commands that need the application: serve, verify, rebuild, contract."""

import asyncio
import os
import socket
import sys
from contextlib import ExitStack

import msgspec

from web.composition.app import contract_document
from web.composition.maintenance import rebuild_projection, verify_ledger
from web.composition.start import REFUSALS, database_urls
from web.listening import allow_many_connections
from web.serving import serve
from web.settings import Settings, forget
from web.workers import log_to_stderr

__all__ = ["REFUSALS", "print_contract", "run"]


def print_contract() -> None:
    """Print the OpenAPI document, sorted, so that it changes only when the contract does."""
    document = msgspec.json.encode(contract_document(), order="sorted")
    sys.stdout.write(f"{document.decode()}\n")


def run(command: str, settings: Settings, listener: socket.socket | None) -> int:
    """Run it; answers the exit code: 1 when `verify` found the ledger wrong. Only `serve` has a listener."""
    forget(os.environ)
    log_to_stderr()
    if listener is not None:
        allow_many_connections()
        serve(settings, listener)
        return 0
    with ExitStack() as stack:
        url, owner_url, _ = database_urls(settings, stack, create=False)
        if command == "verify":
            verdict = asyncio.run(verify_ledger(owner_url or url))
            sys.stdout.write(f"{verdict}\n")
            return 0 if verdict.ok else 1
        sys.stdout.write(f"{asyncio.run(rebuild_projection(owner_url or url))}\n")
        return 0
