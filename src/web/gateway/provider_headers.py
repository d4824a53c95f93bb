"""The headers of a provider's answer that callers get to see."""

from application.ports import ProviderAnswer


def passed(answer: ProviderAnswer, *names: str) -> dict[str, str]:
    """Those of the named headers that are there and plain text; HTTP allows worse."""
    found = {}
    for name in names:
        value = answer.headers.get(name)
        if value and value.isascii() and value.isprintable():
            found[name] = value
    return found
