"""The system user who runs the embedded PostgreSQL when the service itself runs as root.

PostgreSQL refuses to run as root. Questions about what that user may do are put to the kernel, by trying as
that user, because mode bits do not tell about access lists, mounts and security modules.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OWN_NAME = "model-ledger"
# Inherited by everything started here. Nothing else is: the service's environment holds its secrets.
_PASSED_ON = ("LD_LIBRARY_PATH",)  # without it some Pythons and PostgreSQL builds do not start


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be had. The message is fit to be shown to the user."""


@dataclass(frozen=True)
class Account:
    """A system user, by number: the name is only for messages."""

    name: str
    uid: int
    gid: int

    def can_enter(self, directory: Path) -> bool:
        """Whether this user can use paths below an existing `directory`."""
        return self._succeeds('test -x "$0"', directory)

    def can_run(self, program: Path) -> bool:
        """Whether `program --version` works for this user, with the libraries that it loads."""
        return self._succeeds('exec "$0" --version', program)

    def _succeeds(self, script: str, path: Path) -> bool:
        # The shell stands between, so that an OSError can only mean that becoming the user failed.
        try:
            answer = run_quietly(["/bin/sh", "-c", script, str(path)], self)
        except OSError as problem:
            raise EmbeddedPostgresError(
                f"PostgreSQL does not run as root, and switching to the system user {self.name!r} fails "
                f"({problem.strerror}). Run Model Ledger as an ordinary user, or set DATABASE_URL."
            ) from problem
        return answer.returncode == 0


def account_for(root: Path, *, create: bool = False) -> Account | None:
    """Who runs the server whose data lies under `root`; None: whoever we are, which is not root.

    Data that exists is run by its owner. `create`: make a system user of our own where only "nobody" is left.
    """
    if os.geteuid() != 0:
        return None
    for data in root.glob("pg[0-9]*"):
        owner = data.stat()
        if owner.st_uid != 0:
            return Account(f"#{owner.st_uid}", owner.st_uid, owner.st_gid)
    existing = _named(OWN_NAME) or _named("postgres")
    if existing is None and create:
        existing = _create()
    existing = existing or _named("nobody")
    if existing is None:
        raise EmbeddedPostgresError(
            "PostgreSQL does not run as root, and there is no other system user to run it: create one "
            f"named {OWN_NAME}, or set DATABASE_URL."
        )
    return existing


def minimal_environment() -> dict[str, str]:
    """The environment of every process of the embedded server."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "TZ": "UTC"} | kept


def run_quietly(command: Sequence[str], account: Account | None = None) -> subprocess.CompletedProcess[str]:
    """Run a short command, as `account` if given, without our environment.

    Raises: OSError when it cannot be started at all, subprocess.TimeoutExpired after 20 s.
    """
    return subprocess.run(  # noqa: S603 - the callers build the command, no user does
        command,
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=20,
        stdin=subprocess.DEVNULL,
        cwd="/",
        env=minimal_environment(),
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def _named(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid)


def _create() -> Account | None:
    program = shutil.which("useradd", path=minimal_environment()["PATH"])
    if program is None:
        return None
    run_quietly(
        [program, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", OWN_NAME]
    )
    return _named(OWN_NAME)
