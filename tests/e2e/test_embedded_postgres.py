"""The embedded PostgreSQL with real processes: who starts it, who shares it, what is left when one dies."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

import asyncpg
import pytest

from infrastructure import postgres_binaries
from infrastructure.embedded import EmbeddedPostgres, EmbeddedPostgresError, data_root, lease

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

QUICK = {"fsync": "off"}
HOLDER = """
import sys
from pathlib import Path
from infrastructure.embedded import lease

with lease(Path(sys.argv[1]), grace=0, settings={"fsync": "off"}) as server:
    print(server.owner_url, flush=True)
    sys.stdin.read()
"""

BUSY = """
import asyncio, asyncpg, sys

async def run():
    connection = await asyncpg.connect(sys.argv[1])
    print(connection.get_server_pid(), flush=True)
    await connection.execute("DO 'BEGIN FOR i IN 1..1000000000 LOOP NULL; END LOOP; END'")

asyncio.run(run())
"""


def eventually(check: Callable[[], bool], *, within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.005)


def query(url: str, sql: str, *, before: str = "SELECT") -> object:
    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(before)
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(run())


def succeeds(url: str, sql: str) -> bool:
    try:
        query(url, sql)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        return False
    return True


def is_running(pid: int) -> bool:
    return state_of(pid)[0] not in {"Z", "X"}


def parent_of(pid: int) -> int | None:
    state = state_of(pid)
    return int(state[1]) if len(state) > 1 else None


def state_of(pid: int) -> list[str]:
    """Of proc_pid_stat(5) the state, the parent, and so on; only that it is dead when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X"]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def processes_of(root: Path) -> set[int]:
    """Keeper and postmaster, which name `root` in their command line, and their children."""
    everything = {int(process.name) for process in Path("/proc").glob("[0-9]*")}
    found = {
        pid for pid in everything if os.fsencode(root) in command_of(pid) and b"postgres" in command_of(pid)
    }
    return found | {pid for pid in everything if parent_of(pid) in found}


def postmaster_of(root: Path) -> int:
    (pid_file,) = root.glob("pg*/postmaster.pid")
    return int(pid_file.read_text().split()[0])


def keeper_of(root: Path) -> int:
    parent = parent_of(postmaster_of(root))
    assert parent is not None
    return parent


def nothing_runs_on(root: Path) -> None:
    eventually(lambda: not processes_of(root))


@contextmanager
def directory_of_our_own() -> Iterator[Path]:
    """Not tmp_path: as root the server runs as a system user, who cannot enter pytest's directories."""
    directory = Path(tempfile.mkdtemp(prefix="ledger-"))
    directory.chmod(0o755)
    try:
        yield directory
        nothing_runs_on(directory)
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def empty_root() -> Iterator[Path]:
    """Where nothing has ever been started."""
    with directory_of_our_own() as directory:
        yield directory / "var"


@pytest.fixture(scope="module")
def used_root() -> Iterator[Path]:
    with directory_of_our_own() as directory:
        yield directory / "var"


@pytest.fixture
def root(used_root: Path) -> Iterator[Path]:
    """Where tests before this one may have started servers, which have ended: a first start takes long."""
    yield used_root
    nothing_runs_on(used_root)


@pytest.fixture
def server(root: Path) -> Iterator[EmbeddedPostgres]:
    with lease(root, grace=0, settings=QUICK) as leased:
        yield leased


class Holder:
    """Another process that holds a lease until it is killed, or the test is over."""

    def __init__(self, root: Path, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @cached_property
    def url(self) -> str:
        """The server's address, as soon as the lease is held."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def end(self) -> int:
        if self._process.returncode is None:
            self._process.communicate()
        return self._process.returncode


@contextmanager
def long_query(url: str) -> Iterator[int]:
    """The id of a server process that is in the middle of a query for half a minute or so."""
    client = subprocess.Popen(
        [sys.executable, "-c", BUSY, url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert client.stdout is not None
    pid = int(client.stdout.readline())
    active = f"SELECT 1 / count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE 'DO %'"
    eventually(lambda: succeeds(url, active))
    try:
        yield pid
    finally:
        client.kill()
        client.communicate()


def test_the_first_start_makes_a_utf8_database_of_the_owner(server: EmbeddedPostgres) -> None:
    facts = query(
        server.owner_url,
        "SELECT (current_user, current_database(), current_setting('server_encoding'), datcollate,"
        " pg_get_userbyid(datdba), current_setting('data_checksums'), current_setting('listen_addresses'))"
        " FROM pg_database WHERE datname = current_database()",
    )

    assert facts == ("model_ledger_owner", "model_ledger", "UTF8", "C", "model_ledger_owner", "on", "")


def test_the_app_role_can_log_in_and_nothing_more(server: EmbeddedPostgres) -> None:
    facts = query(
        server.app_url,
        "SELECT (current_user, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolinherit, rolreplication,"
        " rolbypassrls) FROM pg_roles WHERE rolname = current_user",
    )

    assert facts == ("model_ledger_app", True, False, False, False, False, False, False)
    assert not succeeds(server.app_url, "CREATE TABLE public.mine ()")


def test_another_database_of_the_same_server_has_an_address_for_each_role(server: EmbeddedPostgres) -> None:
    query(server.owner_url, 'CREATE DATABASE "a test / ü" TEMPLATE model_ledger')

    for owner, name in ((True, "model_ledger_owner"), (False, "model_ledger_app")):
        url = server.url("a test / ü", owner=owner)
        assert query(url, "SELECT (current_user, current_database())") == (name, "a test / ü")


def test_a_second_lease_shares_the_server_and_outlives_the_first(root: Path) -> None:
    first = lease(root, grace=0, settings=QUICK)
    postmaster = postmaster_of(root)
    with lease(root) as second:
        assert second.owner_url == first.owner_url
        first.close()
        first.close()  # once or often
        assert query(second.owner_url, "SELECT 1") == 1
        assert postmaster_of(root) == postmaster


def test_nothing_is_left_running_after_the_last_lease(root: Path) -> None:
    with lease(root, grace=0, settings=QUICK):
        running = processes_of(root)
        assert {postmaster_of(root), keeper_of(root)} < running

    eventually(lambda: not any(is_running(pid) for pid in running))


def test_a_lease_within_the_grace_finds_the_same_server(root: Path) -> None:
    with lease(root, grace=30, settings=QUICK):
        postmaster = postmaster_of(root)
    with lease(root):
        assert postmaster_of(root) == postmaster
        os.kill(keeper_of(root), signal.SIGTERM)  # else the grace would have to be waited for

    nothing_runs_on(root)


def test_a_lease_while_the_server_is_ending_starts_it_again(root: Path) -> None:
    for number in range(3):
        with lease(root, grace=0, settings=QUICK) as server:
            query(server.owner_url, f"CREATE TABLE round_{number} ()")
    with lease(root, grace=0, settings=QUICK) as server:
        assert query(server.owner_url, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'round_%'") == 3


def test_killing_the_only_holder_ends_the_server(root: Path) -> None:
    with Holder(root) as holder:
        assert query(holder.url, "SELECT 1") == 1

        holder.kill()

        nothing_runs_on(root)


def test_killing_one_holder_leaves_the_server_to_the_other(root: Path) -> None:
    with Holder(root) as starter:
        assert starter.url
        with lease(root) as other:
            postmaster = postmaster_of(root)
            starter.kill()
            assert query(other.owner_url, "SELECT 1") == 1
            assert postmaster_of(root) == postmaster


def test_a_killed_keeper_takes_the_server_along_and_the_next_lease_has_every_row(root: Path) -> None:
    with lease(root, grace=0, settings=QUICK) as lost:
        query(lost.owner_url, "CREATE TABLE kept_1 AS SELECT generate_series(1, 1000)")
        first = processes_of(root)
        os.kill(keeper_of(root), signal.SIGKILL)

        with lease(root, grace=0, settings=QUICK) as server:
            assert query(server.owner_url, "SELECT count(*) FROM kept_1") == 1000
            eventually(lambda: not any(is_running(pid) for pid in first))


def test_a_keeper_and_a_busy_server_killed_at_once_are_replaced(root: Path) -> None:
    with lease(root, grace=0, settings=QUICK) as lost, long_query(lost.owner_url) as busy:
        query(lost.owner_url, "CREATE TABLE kept_2 AS SELECT generate_series(1, 1000)")
        keeper = keeper_of(root)
        os.kill(keeper, signal.SIGSTOP)  # neither may react to the other's end
        os.kill(postmaster_of(root), signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)
        eventually(lambda: not succeeds(lost.owner_url, "SELECT 1"))
        assert is_running(busy)  # the premise: a process in the middle of a query outlives its postmaster

        with lease(root, grace=0, settings=QUICK) as server:
            assert query(server.owner_url, "SELECT count(*) FROM kept_2") == 1000
            eventually(lambda: not is_running(busy))


def test_a_killed_postmaster_is_healed_on_the_same_address_even_if_a_query_goes_on(
    root: Path, server: EmbeddedPostgres
) -> None:
    query(server.owner_url, "CREATE TABLE kept_3 AS SELECT generate_series(1, 1000)")
    keeper, killed = keeper_of(root), postmaster_of(root)

    with long_query(server.owner_url) as busy:
        os.kill(killed, signal.SIGKILL)

        eventually(lambda: succeeds(server.owner_url, "SELECT 1"))
        assert not is_running(busy)
    assert query(server.owner_url, "SELECT count(*) FROM kept_3") == 1000
    assert postmaster_of(root) != killed
    assert keeper_of(root) == keeper


def test_a_server_that_keeps_dying_is_given_up_and_a_new_lease_starts_over(root: Path) -> None:
    with lease(root, grace=0, settings=QUICK) as given_up:
        keeper = keeper_of(root)
        for _ in range(5):
            killed = postmaster_of(root)
            os.kill(killed, signal.SIGKILL)
            eventually(lambda: succeeds(given_up.owner_url, "SELECT 1"))
        os.kill(postmaster_of(root), signal.SIGKILL)
        eventually(lambda: not is_running(keeper))

        assert "died 5 times within 60 s" in given_up.log.read_text()
        with lease(root, grace=0, settings=QUICK) as server:
            assert query(server.owner_url, "SELECT 1") == 1


def test_five_cold_starts_at_once_share_one_server(empty_root: Path) -> None:
    with ExitStack() as stack:
        holders = [stack.enter_context(Holder(empty_root)) for _ in range(5)]
        (url,) = {holder.url for holder in holders}

        assert query(url, "SELECT 1") == 1
        assert [pid for pid in processes_of(empty_root) if b"\0-D\0" in command_of(pid)] == [
            postmaster_of(empty_root)
        ]
        assert [holder.end() for holder in holders] == [0] * 5


@pytest.mark.parametrize(
    "name",
    ["with a space", 'c,o"m\\m as', "ünïcode %41", "/".join(["quite-a-long-directory-name"] * 8)],
    ids=["space", "list syntax", "unicode and percent", "very long"],
)
def test_any_path_can_hold_the_data(root: Path, empty_root: Path, name: str) -> None:
    lease(root, grace=0, settings=QUICK).close()
    nothing_runs_on(root)
    moved = empty_root / name
    moved.parent.mkdir(parents=True)
    root.rename(moved)

    with lease(moved, grace=0, settings=QUICK) as server:
        for url in (server.owner_url, server.app_url):
            assert query(url, "SELECT 1") == 1
        assert postmaster_of(moved)

    nothing_runs_on(moved)
    moved.rename(root)


def test_a_server_whose_directory_is_deleted_ends_and_makes_room_for_another(empty_root: Path) -> None:
    with lease(empty_root, grace=0, settings=QUICK):
        running = processes_of(empty_root)
        shutil.rmtree(empty_root)
        eventually(lambda: not any(is_running(pid) for pid in running))

        with lease(empty_root, grace=0, settings=QUICK) as server:
            assert query(server.owner_url, "SELECT 1") == 1


def test_no_secret_of_the_environment_reaches_keeper_or_server(root: Path) -> None:
    with Holder(root, AZURE_OPENAI_API_KEY="planted-secret") as holder:
        keepers = holder.url and Path(f"/proc/{keeper_of(root)}/environ").read_text()
        servers = query(
            holder.url,
            "SELECT string_agg(line, E'\\n') FROM environment",
            before="CREATE TEMP TABLE environment (line text); COPY environment FROM PROGRAM 'env'",
        )

    for environment in (keepers, str(servers)):
        assert "TZ=UTC" in environment  # the premise: this is an environment
        assert "planted-secret" not in environment


def test_the_keeper_has_a_session_of_its_own(root: Path, server: EmbeddedPostgres) -> None:
    assert os.getsid(keeper_of(root)) != os.getsid(0)


def test_data_of_another_major_version_is_never_passed_over_in_silence(empty_root: Path) -> None:
    (empty_root / "pg9").mkdir(parents=True)

    with pytest.raises(EmbeddedPostgresError, match=r"holds data of PostgreSQL 9.* MODEL_LEDGER_PG_BIN"):
        lease(empty_root)
    assert [entry.name for entry in empty_root.iterdir() if entry.name.startswith("pg")] == ["pg9"]


def test_a_server_that_cannot_start_says_why(empty_root: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"(?s)ended while it was starting.*max_connections"):
        lease(empty_root, settings=QUICK | {"max_connections": "many"})

    nothing_runs_on(empty_root)
    with lease(empty_root, grace=0, settings=QUICK) as server:
        assert query(server.owner_url, "SELECT 1") == 1


def test_a_lease_that_cannot_be_had_in_time_says_so(empty_root: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"not ready within 0\.05 s"):
        lease(empty_root, grace=0, timeout=0.05, settings=QUICK)

    nothing_runs_on(empty_root)


def test_a_stranger_in_the_socket_directory_is_not_asked(empty_root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make another user's directory")
    (empty_root / "run").mkdir(parents=True)
    os.chown(empty_root / "run", 12345, 12345)

    with pytest.raises(EmbeddedPostgresError, match="belongs to another user"):
        lease(empty_root)


def test_without_any_programs_the_message_names_the_ways_out(
    empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_binaries, "WHEEL", ("no_such_wheel", "bin"))
    monkeypatch.setattr(postgres_binaries, "SYSTEM_PLACES", ("no/such/place/*",))
    monkeypatch.setenv("PATH", "/no/such/path")
    monkeypatch.delenv("MODEL_LEDGER_PG_BIN", raising=False)

    with pytest.raises(EmbeddedPostgresError) as caught:
        lease(empty_root)

    for way_out in ("DATABASE_URL", "PostgreSQL 15 or newer", "MODEL_LEDGER_PG_BIN"):
        assert way_out in str(caught.value)


def test_a_wrong_directory_of_programs_is_an_error_and_not_a_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_LEDGER_PG_BIN", "/no/such/directory")

    with pytest.raises(
        EmbeddedPostgresError, match=r"MODEL_LEDGER_PG_BIN is /no/such/directory, but no working"
    ):
        postgres_binaries.find_binaries()


def test_the_named_programs_come_first_and_links_are_followed(
    empty_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = postgres_binaries.find_binaries()
    empty_root.mkdir()
    (empty_root / "postgres").symlink_to(found.directory / "postgres")
    monkeypatch.setattr(postgres_binaries, "WHEEL", ("no_such_wheel", "bin"))
    monkeypatch.setenv("MODEL_LEDGER_PG_BIN", str(empty_root))

    assert postgres_binaries.find_binaries() == found


def test_data_stays_where_it_is_wanted_if_the_servers_user_can_go_there(empty_root: Path) -> None:
    assert data_root(empty_root / "below") == empty_root / "below"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_as_root_the_data_evades_a_private_directory_and_leaves_it_private(empty_root: Path) -> None:
    private = empty_root / "private"
    private.mkdir(mode=0o700, parents=True)

    evaded = data_root(private / "checkout" / "var")

    assert evaded.parent == Path("/var/lib/model-ledger")
    assert evaded == data_root(private / "checkout" / "var") != data_root(private / "other")
    with pytest.raises(EmbeddedPostgresError, match="cannot enter"):
        lease(private)
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_as_root_programs_below_a_private_directory_are_copied(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = postgres_binaries.find_binaries().directory.parent
    private = root / "private" / install.parent.name
    private.parent.mkdir(mode=0o700, parents=True)
    shutil.copytree(install, private / install.name)
    libraries = install.parents[1] / f"{install.parent.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, root / "private" / libraries.name)
    monkeypatch.setenv("MODEL_LEDGER_PG_BIN", str(private / install.name / "bin"))

    with lease(root, grace=0, settings=QUICK) as server:
        assert query(server.owner_url, "SELECT 1") == 1
        (copies,) = root.glob("binaries-*")
        assert command_of(postmaster_of(root)).startswith(os.fsencode(copies))
