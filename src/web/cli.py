"""The command `model-ledger`."""

import argparse
import gc
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING, NoReturn

from web.listening import PortTaken, listen

if TYPE_CHECKING:
    from web.settings import Settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; errors that a user can mend are told on standard error, with exit code 1 or 2."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.command is None:
        parser.print_help()
        raise SystemExit(2)
    try:
        raise SystemExit(_run(asked))
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _run(asked: argparse.Namespace) -> int:
    if asked.command == "demo-upstream":
        # Without the rest of the application, which takes a second to import.
        from web.demo.upstream import serve_demo_upstream

        serve_demo_upstream(asked.port, asked.key, exit_with_parent=asked.exit_with_parent)
        return 0
    if asked.command == "contract":
        from web.commands import print_contract

        print_contract()
        return 0
    from web.settings import DATABASE_VARIABLES, Settings, SettingsError

    given = {name: getattr(asked, name, None) for name in ("host", "port", "workers", "data_dir")}
    environ: Mapping[str, str] = os.environ
    if asked.command != "serve":
        environ = {name: os.environ.get(name, "") for name in DATABASE_VARIABLES}
    try:
        settings = Settings.load(environ, given)
    except SettingsError as error:
        _fail(f"these settings do not allow a start:\n{error}", 2)
    return _run_application(asked.command, settings)


def _run_application(command: str, settings: "Settings") -> int:
    with ExitStack() as stack:
        listener = None
        if command == "serve":
            try:
                listener = stack.enter_context(listen(settings.host, settings.port))
            except PortTaken as error:
                _fail(str(error), 1)
        gc.disable()  # importing leaves nothing to collect, and looking for it takes a tenth of a start
        from web import commands

        gc.freeze()
        gc.enable()
        try:
            return commands.run(command, settings, listener)
        except commands.REFUSALS as error:
            _fail(str(error), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="model-ledger", description="The book of record for LLM deployments.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"model-ledger {version('model-ledger')}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    serve = commands.add_parser("serve", help="start the service", allow_abbrev=False)
    serve.add_argument("--host", help="MODEL_LEDGER_HOST, default 127.0.0.1")
    serve.add_argument("--port", help="MODEL_LEDGER_PORT, default 8000")
    serve.add_argument("--workers", help="MODEL_LEDGER_WORKERS, default 1")
    verify = commands.add_parser(
        "verify", help="check the chain, the positions and the projection", allow_abbrev=False
    )
    rebuild = commands.add_parser(
        "rebuild", help="make the projection anew from the events", allow_abbrev=False
    )
    for command in (serve, verify, rebuild):
        command.add_argument("--data-dir", help="MODEL_LEDGER_DATA_DIR, default var")
    commands.add_parser("contract", help="print the OpenAPI document", allow_abbrev=False)
    demo = commands.add_parser(
        "demo-upstream", help="start the demonstration provider alone", allow_abbrev=False
    )
    demo.add_argument("--port", type=_port, default=8001, help="default 8001")
    demo.add_argument(
        "--key", default="demonstration", help="what callers must send, default 'demonstration'"
    )
    demo.add_argument("--exit-with-parent", action="store_true", help=argparse.SUPPRESS)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return int(text)


def _fail(message: str, code: int) -> NoReturn:
    print(f"model-ledger: {message}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
