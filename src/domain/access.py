"""Who may do what: the permissions that routes ask for, and the roles that hold them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Permission(StrEnum):
    """What a route asks of its caller."""

    PUBLIC = "public"
    """Open to everyone; no token is asked for."""
    READ_MODELS = "models:read"
    CHANGE_MODELS = "models:change"
    READ_HISTORY = "history:read"
    CALL_MODELS = "models:call"
    READ_METRICS = "metrics:read"
    USE_SESSION = "session:use"
    """To see who one is, and to sign out."""


class Role(StrEnum):
    """A named set of permissions."""

    ADMINISTRATOR = "administrator"


PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = {Role.ADMINISTRATOR: frozenset(Permission)}
"""The table of roles; deny by default: what is not named here is refused."""
