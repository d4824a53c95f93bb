"""Which of the optional dependencies are there; nothing is imported to find out."""

from importlib.util import find_spec


def is_installed(package: str) -> bool:
    """Whether that package can be imported."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even what it is in
        return False
