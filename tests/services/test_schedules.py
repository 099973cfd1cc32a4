"""Schedules on a real store: each time runs once, whatever is killed and whatever still runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from pandastack.errors import BadRequestError, ConflictError, NotFoundError, QuotaError
from pandastack.products.schedules import Outcome, Schedules, checked_new, checked_patch, open_schedules
from pandastack.services import Settings
from pandastack.store.schedules import RunRecord, RunStatus
from tests.cluster.scripted_engine import ScriptedEngine
from tests.store.migrated import migrated_database
from tests.support.functions import Functions
from tests.support.plane import CALLER, OUTSIDER, running

pytestmark = pytest.mark.anyio

MINUTE = 60.0
BEGIN = 20_000 * 86400.0 - 30.0
"""Half a minute before the first time of every schedule here."""


class World:
    """Schedules with functions that outlive them, and a clock that a test moves."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.now = BEGIN
        self.functions = Functions(f=1, unready=0)

    @asynccontextmanager
    async def serving(self, settings: Settings | None = None) -> AsyncIterator[Schedules]:
        async with (
            running(ScriptedEngine(), self.url, settings or Settings()) as plane,
            open_schedules(plane, self.functions, lambda: self.now) as schedules,
        ):
            yield schedules

    async def at(self, schedules: Schedules, minute: float) -> None:
        """Half a minute after the time number ``minute``, at which everything due has fired."""
        self.now = BEGIN + (minute + 1) * MINUTE
        assert not await schedules.fire_due()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(migrated_database(tmp_path))


async def every_minute(schedules: Schedules, name: str = "n", **options: str) -> str:
    wanted = checked_new(name, "f", "* * * * *", **options)  # type: ignore[arg-type]
    return (await schedules.create(CALLER, wanted)).id


async def until(schedules: Schedules, schedule_id: str, *statuses: RunStatus) -> list[RunRecord]:
    """The runs, earliest first, once they are so far."""
    with anyio.fail_after(30):
        while True:
            runs = (await schedules.runs(CALLER, schedule_id))[::-1]
            if tuple(each.status for each in runs) == statuses:
                return runs
            await anyio.sleep(0.01)  # records announce themselves to nobody


S = RunStatus


async def test_each_time_runs_once_with_the_version_of_then(world: World) -> None:
    async with world.serving() as schedules:
        made = await every_minute(schedules)
        await world.at(schedules, 0)
        (first,) = await world.functions.wait_begun(1)
        assert (first.nominal_at, first.version, first.schedule_id) == (BEGIN + 30, 1, made)
        assert not await schedules.fire_due()
        world.functions.end(first.id)
        await until(schedules, made, S.SUCCESS)
        world.functions.versions["f"] = 2
        await world.at(schedules, 1)
        second = (await world.functions.wait_begun(2))[1]
        assert (second.nominal_at, second.version) == (BEGIN + 90, 2)
        world.functions.end(second.id, Outcome(S.TIMEOUT, "took too long"))
        runs = await until(schedules, made, S.SUCCESS, S.TIMEOUT)
        assert [each.id for each in runs] == [first.id, second.id] == world.functions.starts
        assert runs[1].reason == "took too long"
        seen = schedules.get(CALLER, made)
        assert (seen.last_run_at, seen.next_run_at) == (BEGIN + 90, BEGIN + 150)


async def test_a_server_that_is_killed_after_the_claim_leaves_one_run(world: World) -> None:
    """The claim is in the store; the function was not asked yet."""
    killed = anyio.Event()

    async def never(_: object) -> None:
        killed.set()
        await anyio.sleep_forever()

    start, world.functions.start = world.functions.start, never  # type: ignore[method-assign, assignment]
    async with world.serving() as schedules:
        made = await every_minute(schedules)
        await world.at(schedules, 0)
        await killed.wait()
        (claimed,) = await until(schedules, made, S.PENDING)
    world.functions.start = start  # type: ignore[method-assign]
    for _ in range(2):  # the second ends before it hears how the run ended
        async with world.serving() as schedules:
            assert [each.id for each in await world.functions.wait_begun(1)] == [claimed.id]
            await until(schedules, made, S.RUNNING)
    async with world.serving() as schedules:
        world.functions.end(claimed.id)
        await until(schedules, made, S.SUCCESS)
        assert world.functions.starts == [claimed.id]


@pytest.mark.parametrize(("catchup", "begun"), [("none", 0), ("one", 1)])
async def test_times_at_which_no_server_ran(world: World, catchup: str, begun: int) -> None:
    async with world.serving() as schedules:
        made = await every_minute(schedules, catchup=catchup)
        await schedules.update(CALLER, made, checked_patch(cron="0 * * * *"))
    world.now = BEGIN + 30 + 3 * 3600 + 1800
    async with world.serving() as schedules:
        assert not await schedules.fire_due()
        await world.functions.wait_begun(begun)
        runs = (await schedules.runs(CALLER, made))[::-1]
        assert (runs[0].status, runs[0].nominal_at, runs[0].reason) == (
            S.SKIPPED,
            BEGIN + 30,
            "no server ran at this time",
        )
        assert [each.nominal_at for each in runs[1:]] == [BEGIN + 30 + 3 * 3600] * begun
        assert schedules.get(CALLER, made).next_run_at == BEGIN + 30 + 4 * 3600


async def test_runs_that_overlap(world: World) -> None:
    async with world.serving() as schedules:
        skip, queue, allow = [await every_minute(schedules, each, overlap=each) for each in ("skip", "queue", "allow")]
        for minute in range(3):
            await world.at(schedules, minute)
        begun = await world.functions.wait_begun(5)
        assert sorted(each.schedule_id for each in begun) == sorted([skip, queue, allow, allow, allow])
        skipped = await until(schedules, skip, S.RUNNING, S.SKIPPED, S.SKIPPED)
        assert skipped[1].reason == "an earlier run had not ended"
        waiting = await until(schedules, queue, S.RUNNING, S.PENDING, S.PENDING)
        await until(schedules, allow, S.RUNNING, S.RUNNING, S.RUNNING)
        world.functions.end(waiting[0].id)
        await until(schedules, queue, S.SUCCESS, S.RUNNING, S.PENDING)
    async with world.serving() as schedules:
        await until(schedules, queue, S.SUCCESS, S.RUNNING, S.PENDING)
        world.functions.end(waiting[1].id, Outcome(S.ERROR, "no"))
        await until(schedules, queue, S.SUCCESS, S.ERROR, S.RUNNING)
        assert world.functions.starts.count(waiting[2].id) == 1


async def test_what_a_paused_schedule_does(world: World) -> None:
    async with world.serving() as schedules:
        made = await every_minute(schedules)
        paused = await schedules.update(CALLER, made, checked_patch(paused=True))
        assert (paused.next_run_at, await schedules.next_runs(paused)) == (None, [])
        await world.at(schedules, 5)
        assert await schedules.runs(CALLER, made) == []
        run = await schedules.trigger(CALLER, made)
        assert [each.id for each in await world.functions.wait_begun(1)] == [run.id]
        resumed = await schedules.update(CALLER, made, checked_patch(paused=False))
        assert await schedules.next_runs(resumed) == [BEGIN + 30 + number * MINUTE for number in range(6, 11)]
        renamed = await schedules.update(CALLER, made, checked_patch(name="other"))
        assert (renamed.name, renamed.next_run_at) == ("other", resumed.next_run_at)


async def test_a_function_that_is_gone_or_not_ready(world: World) -> None:
    async with world.serving() as schedules:
        with pytest.raises(BadRequestError) as unknown:
            await schedules.create(CALLER, checked_new("n", "none", "* * * * *"))
        assert unknown.value.field == "function_id"
        made = await every_minute(schedules)
        world.functions.versions["f"] = 0
        with pytest.raises(ConflictError, match="not ready"):
            await schedules.trigger(CALLER, made)
        await world.at(schedules, 0)
        assert (await until(schedules, made, S.ERROR))[0].reason == "function f is not ready"
        del world.functions.versions["f"]
        await world.at(schedules, 1)
        assert (await until(schedules, made, S.ERROR, S.ERROR))[1].reason == "function not found: f"
        await schedules.function_deleted(CALLER.workspace, "f")
        assert schedules.list(CALLER) == []


async def test_schedules_are_their_workspaces_and_so_many(world: World) -> None:
    async with world.serving(Settings(max_schedules=2)) as schedules:
        made = await every_minute(schedules)
        for refused in (
            schedules.runs(OUTSIDER, made),
            schedules.trigger(OUTSIDER, made),
            schedules.delete(OUTSIDER, made),
        ):
            with pytest.raises(NotFoundError):
                await refused
        assert schedules.list(OUTSIDER) == []
        with pytest.raises(BadRequestError) as twice:
            await every_minute(schedules)
        assert twice.value.field == "name"
        other = await every_minute(schedules, "other")
        with pytest.raises(BadRequestError):
            await schedules.update(CALLER, other, checked_patch(name="n"))
        with pytest.raises(QuotaError):
            await every_minute(schedules, "third")
        await world.at(schedules, 0)
        await world.functions.wait_begun(2)
        await schedules.delete(CALLER, made)
        for run in list(world.functions.runs):
            world.functions.end(run)
        await until(schedules, other, S.SUCCESS)
        assert [each.id for each in schedules.list(CALLER)] == [other]


async def test_the_watch_fires_by_itself(world: World) -> None:
    """With the real clock: a schedule whose time has come while no server ran is made up for at the start."""
    async with world.serving() as schedules:
        made = await every_minute(schedules, catchup="one")
    world.now += 10 * MINUTE
    async with world.serving():
        (run,) = await world.functions.wait_begun(1)
        assert (run.schedule_id, run.nominal_at) == (made, BEGIN + 30 + 9 * MINUTE)


async def test_runs_that_ended_long_ago_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandastack.products.schedules.firing.KEPT_RUNS", 3)
    async with world.serving() as schedules:
        made = await every_minute(schedules)
        for minute in range(6):
            await world.at(schedules, minute)
        await world.functions.wait_begun(1)
        runs = await until(schedules, made, S.RUNNING, S.SKIPPED, S.SKIPPED, S.SKIPPED)
        assert runs[0].nominal_at == BEGIN + 30, "it has not ended"


async def test_schedules_of_a_function_that_is_gone_end_at_the_next_start(world: World) -> None:
    world.functions.versions["g"] = 1
    async with world.serving() as schedules:
        await every_minute(schedules)
        await schedules.create(CALLER, checked_new("other", "g", "* * * * *"))
    world.functions.versions["g"] = 0
    del world.functions.versions["f"]
    async with world.serving() as schedules:
        assert [each.name for each in schedules.list(CALLER)] == ["other"]
