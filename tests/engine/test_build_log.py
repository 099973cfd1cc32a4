"""What followers of a build read: everything in order, what is missing is said, and the end."""

from __future__ import annotations

import anyio
import pytest

from pandastack.contract.builds import BUILD_MOVES, BuildEvent, BuildStatus, LinesDropped, StepPrinted
from pandastack.engine.build import log
from pandastack.engine.build.log import BuildLog

pytestmark = pytest.mark.anyio


async def collect(source: BuildLog, *, follow: bool) -> list[BuildEvent]:
    return [event async for event in source.read(follow=follow)]


async def test_every_follower_reads_everything_whenever_it_comes() -> None:
    source, read = BuildLog(), list[list[BuildEvent]]()

    async def follow() -> None:
        read.append(await collect(source, follow=True))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        source.line("one")
        await anyio.wait_all_tasks_blocked()
        source.line("two")
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        source.line("three")
        source.close()
    assert read == [[StepPrinted("one"), StepPrinted("two"), StepPrinted("three")]] * 2


async def test_a_look_without_following_ends_at_once() -> None:
    source = BuildLog()
    source.line("one")
    assert await collect(source, follow=False) == [StepPrinted("one")]


async def test_what_is_no_longer_retained_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "EVENTS_MAX", 3)
    source = BuildLog()
    for number in range(5):
        source.line(str(number))
    source.close()
    assert await collect(source, follow=True) == [LinesDropped(2), *map(StepPrinted, "234")]


async def test_a_line_is_cut() -> None:
    source = BuildLog()
    source.line("x" * 10_000)
    (event,) = await collect(source, follow=False)
    assert event == StepPrinted("x" * log.LINE_MAX)


@pytest.mark.parametrize("status", list(BuildStatus))
def test_a_build_ends_for_good(status: BuildStatus) -> None:
    assert status.ended == (status in (BuildStatus.DONE, BuildStatus.FAILED, BuildStatus.CANCELLED))
    assert all(BUILD_MOVES[each] for each in BuildStatus if not each.ended)
