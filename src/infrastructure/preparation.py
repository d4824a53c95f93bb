"""What a start leaves undone when it finds the database away, shared by the processes that wait for it."""

import multiprocessing
from typing import Final

UNDONE: Final = 0
AS_LOGIN: Final = 1
LESSER: Final = 2


class Preparation:
    """Whether the database was prepared since, and the role to take there.

    The supervising process prepares; its workers see it at once. There is no lock, as one that a worker
    takes with it when it is killed would stop all others.
    """

    def __init__(self) -> None:
        self._state = multiprocessing.get_context("spawn").RawValue("b", UNDONE)

    @property
    def done(self) -> bool:
        """Whether connections may be made."""
        return bool(self._state.value != UNDONE)

    @property
    def lesser(self) -> bool:
        """Whether they take on the lesser role."""
        return bool(self._state.value == LESSER)

    def finish(self, *, lesser: bool) -> None:
        """Have the workers connect."""
        self._state.value = LESSER if lesser else AS_LOGIN
