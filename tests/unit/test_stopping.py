"""Work that is told of the server's end, and nothing else that could be taken for it."""

import asyncio

import pytest

from web.stopping import Stopped, Stopping


async def hang() -> None:
    await asyncio.Event().wait()


async def run_until_stopped(stopping: Stopping) -> str:
    try:
        with stopping.until():
            await hang()
    except Stopped:
        await asyncio.sleep(0)  # nothing is left of the cancellation
        return "told"
    return "never"


async def started(*work: "asyncio.Task[str]") -> None:
    await asyncio.sleep(0)
    assert not any(task.done() for task in work)


async def test_all_running_work_is_told_and_may_say_a_last_word() -> None:
    stopping = Stopping()
    work = [asyncio.create_task(run_until_stopped(stopping)) for _ in range(3)]
    await started(*work)
    stopping.end()
    assert await asyncio.gather(*work) == ["told"] * 3
    assert [task.cancelling() for task in work] == [0, 0, 0]


async def test_work_that_begins_too_late_is_told_at_once() -> None:
    stopping = Stopping()
    stopping.end()
    with pytest.raises(Stopped), stopping.until():
        raise AssertionError


async def test_work_that_is_done_is_left_alone() -> None:
    stopping = Stopping()
    with stopping.until():
        await asyncio.sleep(0)
    stopping.end()
    await asyncio.sleep(0)


async def test_an_error_of_the_work_itself_passes() -> None:
    with pytest.raises(KeyError), Stopping().until():
        raise KeyError


async def test_a_cancellation_from_elsewhere_passes() -> None:
    stopping = Stopping()
    task = asyncio.create_task(run_until_stopped(stopping))
    await started(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_elsewhere_wins_over_the_end() -> None:
    stopping = Stopping()
    task = asyncio.create_task(run_until_stopped(stopping))
    await started(task)
    stopping.end()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_around_it_or_within_it_keeps_its_meaning() -> None:
    stopping = Stopping()

    async def late_within() -> None:
        with stopping.until():
            async with asyncio.timeout(0.01):
                await hang()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run_until_stopped(stopping), 0.01)
    with pytest.raises(TimeoutError):
        await late_within()


async def test_an_end_that_comes_while_the_work_tidies_up_is_told_too() -> None:
    stopping = Stopping()

    async def tidy_up() -> str:
        try:
            with stopping.until():
                try:
                    await hang()
                finally:
                    await hang()
        except Stopped:
            return "told"
        return "never"

    task = asyncio.create_task(tidy_up())
    await started(task)
    task.cancel()
    await started(task)
    task.uncancel()  # as `asyncio.timeout` does
    stopping.end()
    assert await task == "told"
