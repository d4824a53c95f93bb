"""The files of the local snapshot on a real disk, and who writes them when."""

import asyncio
import os
import random
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ledgers import config
from msgspec.structs import replace
from upstream import wait_until

from application.ports import Caller, LiveModel
from domain.access import Role
from domain.errors import StoreUnavailable
from domain.values import Actor, ModelId
from infrastructure import snapshot_files, snapshot_keeper
from infrastructure.access_tokens import AccessTokens, digest
from infrastructure.database import Database
from infrastructure.follower import Follower
from infrastructure.live import Live
from infrastructure.local_snapshot import LocalSnapshot, encode
from infrastructure.recall import Recall
from infrastructure.snapshot_files import SnapshotFiles
from infrastructure.snapshot_keeper import SnapshotKeeper

DATABASE = "d" * 64
TOKEN = "mlk_kept_" + "k" * 40
ADMINISTRATOR = Caller(Actor("token:administrator", "administrator", "token"), Role.ADMINISTRATOR)
NOWHERE = Database("postgresql://user@127.0.0.1:9/ledger")


@pytest.fixture
def files(tmp_path: Path) -> SnapshotFiles:
    return SnapshotFiles(tmp_path / "data" / "snapshots", DATABASE, timedelta(hours=24))


def snapshot(position: int = 1, *, age: timedelta = timedelta(0), database: str = DATABASE) -> LocalSnapshot:
    model = LiveModel(ModelId("m"), config(), 1, position, datetime.now(UTC))
    live = Live("epoch", position, b"h" * 32, {model.model_id: model}, None)
    callers = {digest(TOKEN).hex(): ADMINISTRATOR}
    return LocalSnapshot(database, datetime.now(UTC) - age, live, callers, None)


def position(files: SnapshotFiles) -> int | None:
    loaded = files.load()
    return loaded.live.position if loaded else None


def newest(files: SnapshotFiles) -> Path:
    return files.directory / f"{DATABASE[:16]}.json"


def older(files: SnapshotFiles) -> Path:
    return files.directory / f"{DATABASE[:16]}.older"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return said


# The files


def test_what_was_saved_is_loaded_and_nobody_else_can_read_it(files: SnapshotFiles) -> None:
    before = os.umask(0)
    try:
        files.save(snapshot(1))
        files.save(snapshot(2))
    finally:
        os.umask(before)
    assert position(files) == 2
    assert stat.S_IMODE(files.directory.stat().st_mode) == 0o700
    kept = {file.name.partition(".")[2]: file for file in files.directory.iterdir()}
    assert kept.keys() == {"json", "older", "lock"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in kept.values()} == {0o600}


def test_without_a_snapshot_there_is_none_and_nothing_is_said(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture
) -> None:
    assert files.load() is None
    assert not files.directory.exists()
    files.save(snapshot())
    newest(files).unlink()
    assert files.load() is None
    assert warnings(caplog) == []


def test_of_a_damaged_file_one_line_is_said_and_the_older_one_is_used(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture, dice: random.Random
) -> None:
    files.save(snapshot(1))
    files.save(snapshot(2))
    good = newest(files).read_bytes()
    spots = {*dice.sample(range(len(good)), 100), 0, len(good) - 1}
    damaged = [good[:at] + bytes([good[at] ^ 1 << dice.randrange(8)]) + good[at + 1 :] for at in spots]
    for content in (*damaged, *(good[:end] for end in spots), b"", b"\0" * 4_096, dice.randbytes(4_096)):
        newest(files).write_bytes(content)
        assert position(files) == 1
        (line,) = warnings(caplog)
        assert line.startswith(f"the local snapshot {newest(files)} is not used: ")
    older(files).write_bytes(damaged[0])
    assert files.load() is None
    assert len(warnings(caplog)) == 2
    assert files.load(quiet=True) is None
    assert warnings(caplog) == []


def test_a_snapshot_that_was_cut_off_while_it_was_written_changes_nothing(
    files: SnapshotFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save(snapshot(1))
    for broken in ("_write", "_sync"):
        with monkeypatch.context() as patch:
            patch.setattr(snapshot_files, broken, full_disk)
            with pytest.raises(OSError, match="no space"):
                files.save(snapshot(2))
        assert position(files) in {1, 2}
    (files.directory / f"{DATABASE[:16]}.next").write_bytes(b"half of")
    files.save(snapshot(3))
    assert position(files) == 3


def full_disk(*_: object) -> None:
    raise OSError("no space left")


def test_between_the_two_renames_the_older_one_is_there(files: SnapshotFiles) -> None:
    files.save(snapshot(1))
    newest(files).replace(older(files))
    assert position(files) == 1


def test_only_one_process_writes_at_a_time_and_readers_always_find_a_whole_one(files: SnapshotFiles) -> None:
    files.save(snapshot(1))
    ended = threading.Event()

    def write(number: int) -> None:
        while not ended.is_set():
            files.save(snapshot(number))

    writers = [threading.Thread(target=write, args=(number,)) for number in (2, 3)]
    for writer in writers:
        writer.start()
    try:
        found = {position(files) for _ in range(200)}
    finally:
        ended.set()
        for writer in writers:
            writer.join()
    assert None not in found


def test_a_snapshot_of_another_database_is_not_used(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture
) -> None:
    files.save(snapshot(database="e" * 64))
    assert files.load() is None
    (line,) = warnings(caplog)
    assert line.endswith("is not used: it is of another database")


@pytest.mark.parametrize(
    ("age", "why"),
    [
        (timedelta(hours=24, seconds=1), "it is older than MODEL_LEDGER_SNAPSHOT_HOURS allows (24)"),
        (timedelta(days=-1), "it was saved in the future: a clock is wrong"),
    ],
)
def test_a_snapshot_of_the_wrong_age_is_not_used(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture, age: timedelta, why: str
) -> None:
    files.save(snapshot(age=age))
    assert files.load() is None
    (line,) = warnings(caplog)
    assert line.endswith(f"is not used: {why}")


@pytest.mark.parametrize("age", [timedelta(hours=23, minutes=59), timedelta(minutes=-4)])
def test_a_snapshot_within_its_age_is_used(files: SnapshotFiles, age: timedelta) -> None:
    files.save(snapshot(age=age))
    assert position(files) == 1


def test_a_file_or_directory_that_others_can_reach_is_not_used(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture
) -> None:
    files.save(snapshot())
    newest(files).chmod(0o602)
    assert files.load() is None
    assert "open to others" in warnings(caplog)[0]
    newest(files).chmod(0o660)  # a group that an operator lets in, as with Kubernetes' fsGroup
    assert position(files) == 1
    files.directory.chmod(0o703)
    assert files.load() is None
    assert "its directory is open to others" in warnings(caplog)[0]
    with pytest.raises(PermissionError, match="open to others"):
        files.save(snapshot(2))


def test_what_is_no_plain_file_is_not_followed(files: SnapshotFiles, tmp_path: Path) -> None:
    files.save(snapshot())
    target = tmp_path / "elsewhere"
    newest(files).rename(target)
    newest(files).symlink_to(target)
    assert files.load() is None
    newest(files).unlink()
    os.mkfifo(newest(files), 0o600)
    assert files.load() is None
    newest(files).unlink()
    newest(files).mkdir(mode=0o700)
    assert files.load() is None


def test_a_file_that_is_too_large_is_not_read(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save(snapshot())
    monkeypatch.setattr(snapshot_files, "SIZE_LIMIT", len(encode(snapshot())) - 1)
    assert files.load() is None
    assert "too large" in warnings(caplog)[0]


# Who writes


class Known:
    """A follower and its tokens, as far as the keeper looks at them; and every snapshot that it saved."""

    def __init__(self) -> None:
        self.live: Live | None = None
        self.is_connected = True
        self.looks = 0
        self.callers: dict[bytes, Caller] = {digest(TOKEN): ADMINISTRATOR}
        self.saved: list[LocalSnapshot] = []
        self.disk_is_full = False

    @property
    def connected(self) -> bool:
        self.looks += 1
        return self.is_connected

    async def looked_at(self, times: int) -> None:
        """Wait until the keeper has looked so many times more."""
        wanted = self.looks + times
        await wait_until(lambda: self.looks >= wanted, within=5)

    def keeper(self) -> SnapshotKeeper:
        files: Any = SimpleNamespace(database=DATABASE, save=self._save)
        parts = cast("Any", self)
        return SnapshotKeeper(files, parts, parts, None)

    def _save(self, snapshot: LocalSnapshot) -> None:
        if self.disk_is_full:
            full_disk()
        self.saved.append(snapshot)


@contextmanager
def at_pace(monkeypatch: pytest.MonkeyPatch, *, look: float, refresh: float) -> Iterator[None]:
    monkeypatch.setattr(snapshot_keeper, "LOOK", look)
    monkeypatch.setattr(snapshot_keeper, "REFRESH", refresh)
    yield


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_changes_are_saved_at_most_once_a_look_and_the_last_one_for_certain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Known()
    known.live = snapshot(0).live
    with at_pace(monkeypatch, look=0.1, refresh=60):
        task = asyncio.create_task(known.keeper().run())
        while known.looks < 4:
            known.live = replace(known.live, position=known.live.position + 1)
            await asyncio.sleep(0)
        last = known.live = replace(known.live, position=known.live.position + 1)
        await ended(task)
    assert 4 <= len(known.saved) <= 6 < last.position
    assert known.saved[-1].live is last


async def test_a_changed_token_alone_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known()
    known.live = snapshot().live
    with at_pace(monkeypatch, look=0.01, refresh=60):
        task = asyncio.create_task(known.keeper().run())
        await wait_until(lambda: len(known.saved) == 1, within=2)
        known.callers = {}
        await wait_until(lambda: len(known.saved) == 2, within=2)
        known.callers = {}
        await known.looked_at(5)
        await ended(task)
    assert [len(each.callers) for each in known.saved] == [1, 0]


async def test_while_the_database_answers_the_age_is_kept_low_and_else_it_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Known()
    with at_pace(monkeypatch, look=0.01, refresh=0.02):
        task = asyncio.create_task(known.keeper().run())
        await known.looked_at(5)
        assert known.saved == [], "nothing is known yet"
        known.live = snapshot().live
        await wait_until(lambda: len(known.saved) >= 3, within=2)
        times = [each.saved_at for each in known.saved]
        assert times == sorted({*times})
        known.is_connected = False
        count = len(known.saved)
        await known.looked_at(5)
        assert len(known.saved) == count
        await ended(task)
    assert len(known.saved) == count


async def test_a_full_disk_is_told_once_and_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = Known()
    known.live = snapshot().live
    known.disk_is_full = True
    with at_pace(monkeypatch, look=0.01, refresh=0.02):
        task = asyncio.create_task(known.keeper().run())
        await known.looked_at(10)
        assert len(warnings(caplog)) == 1
        known.disk_is_full = False
        await wait_until(lambda: known.saved, within=2)
        await ended(task)


# Who falls back on it


async def test_a_follower_serves_it_until_it_is_too_old_and_then_nothing(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture
) -> None:
    files = replace(files, max_age=timedelta(seconds=10))
    files.save(snapshot(7, age=timedelta(seconds=8.5)))
    tokens = AccessTokens()
    with pytest.raises(StoreUnavailable):
        tokens.authenticate(TOKEN)
    published: list[Live] = []

    async def note(live: Live) -> None:
        published.append(live)

    recall = Recall(files, tokens, None, quiet=False)
    follower = Follower(NOWHERE, [note], [tokens.read], recall.live)
    task = asyncio.create_task(follower.run())
    await asyncio.wait_for(follower.started(), 5)
    assert (follower.position, follower.reached, follower.connected) == (7, False, False)
    assert tokens.authenticate(TOKEN) == ADMINISTRATOR
    assert tokens.authenticate("unknown") is None
    assert 8 <= recall.age < 12
    place = follower.place
    assert await asyncio.wait_for(follower.moved(place), 10) > place
    assert follower.live is None
    with pytest.raises(StoreUnavailable):
        tokens.authenticate(TOKEN)
    await ended(task)
    assert [live.position for live in published] == [7], "running calls keep their clients"
    assert "nothing is served any more" in caplog.text


def test_the_token_of_the_environment_wins_over_the_saved_one(files: SnapshotFiles) -> None:
    files.save(snapshot())
    for given, known in ((None, {TOKEN}), (digest("another"), {"another"})):
        tokens = AccessTokens()
        assert Recall(files, tokens, given, quiet=False).live()
        assert {token for token in (TOKEN, "another") if tokens.authenticate(token)} == known


def test_tokens_that_were_read_are_not_replaced_by_saved_ones(files: SnapshotFiles) -> None:
    files.save(snapshot())
    tokens = AccessTokens()
    tokens.callers = {}
    assert Recall(files, tokens, None, quiet=False).live()
    assert tokens.authenticate(TOKEN) is None
