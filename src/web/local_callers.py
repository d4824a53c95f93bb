"""Whether a request comes from a program of this machine, and for itself."""

from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from litestar.connection import ASGIConnection

LOCAL_NAME: Final = "localhost"
PROXIED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers by which a proxy says that it speaks for someone else."""


def is_local(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether the peer is this machine, no proxy says that it passes the request on, and `Host` agrees.

    The host matters, as a page from elsewhere can have its own name resolved to this machine in a browser.
    """
    peer, headers = connection.client, connection.headers
    if peer is None or not _is_loopback(peer.host) or any(name in headers for name in PROXIED):
        return False
    host = headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() == LOCAL_NAME or _is_loopback(name)


def _is_loopback(text: str) -> bool:
    with suppress(ValueError):
        address = ip_address(text)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address.is_loopback
    return False
