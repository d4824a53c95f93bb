"""The small values that everything else is made of, and the one place for their rules."""

import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal, NewType
from urllib.parse import urlsplit

from msgspec import Struct

from domain.errors import InvalidInput, Problem

ModelId = NewType("ModelId", str)
Stream = NewType("Stream", str)
"""All events of one aggregate: `model/<id>` or `default`."""
Origin = NewType("Origin", str)
"""Scheme, host and port of an address (RFC 6454), lower case, the scheme's own port left out."""

MODEL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
HOST_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
URL_CHARACTERS: Final = re.compile(r"[A-Za-z0-9._~:/\[\]@!$&'()*+,;=%?#-]*", re.ASCII)
AUTHORITY: Final = re.compile(r"(?:\[[^\[\]]*:[^\[\]]*\]|[^\[\]:]+)(?::[0-9]+)?", re.ASCII)
"""A host, or an IPv6 address in brackets with nothing beside them but a port (RFC 3986 section 3.2)."""
METADATA_HOSTS: Final = frozenset({"metadata.google.internal", "metadata", "instance-data"})
METADATA_ADDRESSES: Final = frozenset({ip_address("100.100.100.200"), ip_address("fd00:ec2::254")})
IPV4_IN_IPV6: Final = (IPv6Network("::/96"), IPv6Network("64:ff9b::/96"))
"""IPv4-compatible addresses (RFC 4291) and NAT64 (RFC 6052): the last 32 bits are an IPv4 address."""
OWN_PORT: Final = {"http": 80, "https": 443}
REASON_LIMIT: Final = 1_000
"""Characters."""

DEFAULT_STREAM: Final = Stream("default")


class Actor(Struct, frozen=True):
    """Who did it: an opaque id that never changes, and the display name at the time of recording."""

    id: str
    name: str
    kind: Literal["person", "token", "system"]


SYSTEM: Final = Actor("system", "Model Ledger", "system")


class Endpoint(Struct, frozen=True):
    """A provider's address, taken apart once: `url` is the text as it was sent."""

    url: str
    origin: Origin
    path: str


def model_stream(model_id: ModelId) -> Stream:
    """The stream that holds all events of that model."""
    return Stream(f"model/{model_id}")


def model_of(stream: str) -> ModelId | None:
    """The model that a stream belongs to; None for the default pointer's stream."""
    kind, _, name = stream.partition("/")
    return ModelId(name) if kind == "model" else None


def parse_model_id(text: str, pointer: str = "/model_id") -> ModelId:
    """Check an id as callers name it.

    Raises:
        InvalidInput: not 1 to 128 of letters, digits and `. _ : -`, beginning with a letter or digit.
    """
    if not MODEL_ID.fullmatch(text):
        detail = "an id has 1 to 128 letters, digits, '.', '_', ':' or '-', and begins with a letter or digit"
        raise InvalidInput([Problem(pointer, "invalid_id", detail)])
    return ModelId(text)


def parse_reason(text: str | None, pointer: str = "/reason") -> str | None:
    """Check why a change was made; blank counts as none.

    Raises:
        InvalidInput: control characters, or longer than `REASON_LIMIT`.
    """
    if text is None or not text.strip():
        return None
    problem = text_problem(text, REASON_LIMIT)
    if problem:
        raise InvalidInput([Problem(pointer, "invalid_text", problem)])
    return text


def text_problem(text: str, limit: int) -> str | None:
    """What is wrong with a text that people read; None when nothing is."""
    if len(text) > limit:
        return f"at most {limit} characters, this has {len(text)}"
    for place, character in enumerate(text):
        if unicodedata.category(character) in {"Cc", "Cs"}:
            return f"control characters are not allowed: U+{ord(character):04X} at character {place + 1}"
    return None


def parse_endpoint(url: str) -> Endpoint:
    """Take a provider's address apart. The ONE URL parser: saving and sending both go through it.

    Raises:
        ValueError: with the reason, fit to be shown beside the field.
    """
    if len(url) > 2_000:
        raise ValueError("at most 2000 characters")
    if not URL_CHARACTERS.fullmatch(url):
        raise ValueError("a URL has no spaces, control characters or backslashes; write an IDN as xn--")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    if parts.scheme not in OWN_PORT or not url.startswith(f"{parts.scheme}://"):
        raise ValueError("begins with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("a URL carries no user name or password; keys belong to the credential")
    if "?" in url or "#" in url:
        raise ValueError("no query and no fragment; the api version has a field of its own")
    if port == 0 or parts.netloc.endswith(":"):
        raise ValueError("the port is a number from 1 to 65535")
    if not AUTHORITY.fullmatch(parts.netloc):
        raise ValueError("the host is a name, an IPv4 address, or an IPv6 address in brackets")
    if "%" in parts.path or any(part in {".", ".."} for part in parts.path.split("/")):
        raise ValueError("no '.' or '..' segments and no percent escapes in the path")
    host = _host(parts.hostname or "")
    shown = f":{port}" if port not in {None, OWN_PORT[parts.scheme]} else ""
    return Endpoint(url, Origin(f"{parts.scheme}://{host}{shown}"), parts.path.rstrip("/"))


def _host(host: str) -> str:
    """A host in its canonical form; refuses what no provider lives at (link-local, metadata...)."""
    name = host.removesuffix(".")
    address = _address(name)
    if address is not None:
        _refuse_address(address)
        return f"[{address.compressed}]" if isinstance(address, IPv6Address) else str(address)
    labels = name.split(".")
    if not name or len(name) > 253 or not all(HOST_LABEL.fullmatch(label) for label in labels):
        raise ValueError("the host is not a valid name or address")
    if labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]):
        raise ValueError("write an IPv4 address as four decimal numbers")
    if name in METADATA_HOSTS:
        raise ValueError("a cloud's metadata service is never a provider")
    return name


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise ValueError("no zone in an address")
    return address


def _refuse_address(address: IPv4Address | IPv6Address) -> None:
    inner = _inner(address) if isinstance(address, IPv6Address) else address
    if inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in METADATA_ADDRESSES:
        raise ValueError("link-local, multicast, unspecified and metadata addresses are never a provider")
    if str(inner) == "255.255.255.255":
        raise ValueError("the broadcast address is never a provider")


def _inner(address: IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one leads to; else the address itself."""
    if any(address in network for network in IPV4_IN_IPV6):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
