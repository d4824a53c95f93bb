"""The headers of a provider's answer that callers get to see."""

from application.ports import ProviderAnswer


def passed(answer: ProviderAnswer, *names: str) -> dict[str, str]:
    """Those of the named headers that are there and plain text; HTTP allows worse."""
    found = {name: answer.headers.get(name, "") for name in names}
    return {name: value for name, value in found.items() if value and value.isascii() and value.isprintable()}
