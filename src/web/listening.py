"""The port, taken before anything else is started or even imported."""

import socket
import sys
from typing import Final

OPEN_FILES: Final = 65_536
BACKLOG: Final = 2_048
"""Connections that wait to be accepted."""


class PortTaken(Exception):
    """The message says which, and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """Listen. Connections are taken from now on, and wait until somebody accepts them.

    Raises:
        PortTaken: or not to be had for another reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)  # a port that is only bound can be bound once more
    except (OSError, UnicodeError) as error:
        listener.close()
        why = (isinstance(error, OSError) and error.strerror) or "this is not a host"
        raise PortTaken(
            f"cannot listen on {host}:{port}: {why}; choose another with --host and --port, "
            "or MODEL_LEDGER_HOST and MODEL_LEDGER_PORT"
        ) from error
    listener.set_inheritable(True)
    return listener


def allow_many_connections() -> None:
    """Raise this process's limit of open files, and with it that of its workers: a stream takes two."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
