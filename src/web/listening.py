"""The port, taken before anything else is started or even imported."""

import socket
from typing import Final

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
