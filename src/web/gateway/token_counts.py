"""What a call used, read from the end of its answer."""

import json
from typing import Any, Final

from application.ports import Tokens

END: Final = 8_192
"""Bytes of an answer that are searched; the usage stands near its end."""
MOST: Final = 2**31 - 1
"""No call uses more; a provider that says so is wrong."""
DECODER: Final = json.JSONDecoder()


def read_tokens(answer: bytes) -> Tokens | None:
    """The tokens of the last `usage` that tells any; None without one.

    Args:
        answer: JSON, or lines of a stream; its beginning may be missing.
    """
    end = answer[-END:]
    at = end.rfind(b'"usage"')  # no string holds this: quotes within strings are escaped
    while at >= 0:
        tokens = _tokens(_value(end[at + 7 :]))
        if tokens is not None:
            return tokens
        at = end.rfind(b'"usage"', 0, at)
    return None


def _value(text: bytes) -> Any:
    """What comes after a field's name."""
    text = text.lstrip()
    if not text.startswith(b":"):
        return None
    try:
        return DECODER.raw_decode(text[1:].decode("utf-8", "replace").lstrip())[0]
    except (ValueError, RecursionError):
        return None


def _tokens(usage: Any) -> Tokens | None:
    if not isinstance(usage, dict):
        return None
    told = _count(usage.get("prompt_tokens", usage.get("input_tokens")))
    made = _count(usage.get("completion_tokens", usage.get("output_tokens", 0)))  # embeddings make none
    return None if told is None or made is None else Tokens(told, made)


def _count(value: object) -> int | None:
    # The type itself: True is an int, too.
    return value if type(value) is int and 0 <= value <= MOST else None
