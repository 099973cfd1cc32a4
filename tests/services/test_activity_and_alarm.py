from __future__ import annotations

import anyio
import pytest

from pandastack.services.records.activity import Activity
from pandastack.services.records.alarm import Alarm
from pandastack.services.records.bus import Bus

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_idle_time_grows_from_the_last_use() -> None:
    clock = Clock()
    activity = Activity(Bus(), clock)
    activity.start("a", at=990.0)
    assert activity.idle_seconds("a") == 10
    with activity.hold("a"):
        pass
    clock.now += 3
    assert activity.idle_seconds("a") == 3


def test_an_operation_counts_for_as_long_as_it_runs_even_beside_shorter_ones() -> None:
    clock = Clock()
    activity = Activity(Bus(), clock)
    activity.start("a")
    with activity.hold("a"):
        with activity.hold("a"):
            clock.now += 100
        clock.now += 100
        assert activity.busy("a")
        assert activity.idle_seconds("a") == 0
    assert not activity.busy("a")
    clock.now += 7
    assert activity.idle_seconds("a") == 7


def test_only_clocks_that_moved_are_saved_and_only_once() -> None:
    clock = Clock()
    activity = Activity(Bus(), clock)
    activity.start("a")
    activity.start("b")
    with activity.hold("a"):
        pass
    assert activity.take_unsaved() == {"a": 1000.0}
    assert activity.take_unsaved() == {}


def test_an_operation_that_outlives_its_sandbox_leaves_nothing() -> None:
    activity = Activity(Bus(), Clock())
    activity.start("a")
    with activity.hold("a"):
        activity.forget("a")
    assert activity.take_unsaved() == {}
    assert not activity.busy("a")


async def test_an_alarm_wakes_for_what_is_due_earlier_but_not_for_later() -> None:
    clock = Clock()
    alarm = Alarm(clock)
    woken = anyio.Event()

    async def sleeper() -> None:
        await alarm.sleep_until(2000.0)
        woken.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleeper)
        await anyio.wait_all_tasks_blocked()
        alarm.expect(3000.0)
        await anyio.wait_all_tasks_blocked()
        assert not woken.is_set()
        alarm.expect(999.0)
        with anyio.fail_after(30):
            await woken.wait()


async def test_an_alarm_that_is_due_does_not_sleep() -> None:
    with anyio.fail_after(30):
        await Alarm(Clock()).sleep_until(1000.0)
