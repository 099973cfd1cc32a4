"""Machines that wait for a snapshot: what they save, what nobody can tell from them, and when they go."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pandastack.engine.engine import Engine, open_engine
from pandastack.engine.machines.demand import HALF_LIFE_S, Budget
from pandastack.engine.machines.sandbox import Sandbox, WarmMachine
from pandastack.engine.machines.waiting import MACHINE_MB, Waiting, can_wait
from pandastack.engine.machines.warm_pool import MOMENT_S, WarmPool
from pandastack.engine.origins.origin import Origin
from pandastack.engine.settings import Settings
from tests.support.installation import Installation, eventually
from tests.support.machines import run, spec
from tests.support.origins import captured

pytestmark = pytest.mark.anyio


class Clock:
    """The loop's time, which a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("pandastack.engine.machines.waiting.anyio.current_time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def snapshot(tmp_path: Path) -> Callable[[str], Origin]:
    def make(name: str) -> Origin:
        return quiet(captured(tmp_path / name))

    return make


def quiet(origin: Origin) -> Origin:
    """The capture, of a moment that the agent chose."""
    manifest = replace(origin.snapshot.manifest, at_frame_boundary=True)
    return replace(origin, snapshot=replace(origin.snapshot, manifest=manifest))


def fill(waiting: Waiting) -> int:
    """Make what is missing; returns how many that were."""
    made = 0
    while (origin := waiting.find_missing()) is not None:
        waiting.add(origin, WarmMachine(origin))
        made += 1
    return made


def count(waiting: Waiting) -> list[int]:
    return [len(each) for each in waiting.usable()]


def nothing() -> None:
    pass


async def test_machines_come_with_use_and_go_without(clock: Clock, snapshot: Callable[[str], Origin]) -> None:
    waiting, one = Waiting(Budget(16, 1024), nothing), snapshot("one")
    waiting.created(one)
    assert fill(waiting) == 0, "one create is no repeated use"
    waiting.created(one)
    assert fill(waiting) == 1
    machine = next(iter(waiting.take(one)))
    assert machine.template is one and count(waiting) == [0]
    for _ in range(8):
        waiting.created(one)
    assert fill(waiting) == 7
    left = waiting.usable()[0]
    clock.now += HALF_LIFE_S + 1
    waiting.trim()
    assert (count(waiting), sum(each.usable for each in left)) == ([3], 3), "the others were dismissed"
    clock.now += 10 * HALF_LIFE_S
    waiting.trim()
    assert (waiting.usable(), any(each.usable for each in left)) == ([], False)
    assert waiting.changes_in() == float("inf"), "nothing is remembered"


async def test_a_budget_holds_for_all_snapshots(clock: Clock, snapshot: Callable[[str], Origin]) -> None:
    waiting, one, other = Waiting(Budget(4, 10 * MACHINE_MB), nothing), snapshot("one"), snapshot("other")
    waiting.expect(one, 10**18, 60)
    assert fill(waiting) == 4
    waiting.expect(one, 4, 60)
    waiting.expect(other, 4, 60)
    waiting.trim()
    assert (fill(waiting), count(waiting)) == (2, [2, 2])
    assert Waiting(Budget(0, 1024), nothing).find_missing() is None
    small = Waiting(Budget(16, 3 * MACHINE_MB), nothing)
    small.expect(one, 16, 60)
    assert fill(small) == 3
    (other.snapshot.pages).write_bytes(bytes(2**20 * 2 * MACHINE_MB))
    large = Waiting(Budget(16, 4 * MACHINE_MB), nothing)
    large.expect(other, 16, 60)
    assert fill(large) == 1, "its pages count"


async def test_a_deleted_snapshot_has_no_machines(clock: Clock, snapshot: Callable[[str], Origin]) -> None:
    waiting, one = Waiting(Budget(16, 1024), nothing), snapshot("one")
    waiting.expect(one, 2, 60)
    late = waiting.find_missing()
    assert late is not None and fill(waiting) == 2
    machines = waiting.usable()[0]
    waiting.forget(one.snapshot.directory)
    assert not any(each.usable for each in machines)
    machine = WarmMachine(late)
    waiting.add(late, machine)
    assert (machine.usable, waiting.usable(), list(waiting.take(one))) == (False, [], [])


async def test_under_pressure_the_least_used_go_first(clock: Clock, snapshot: Callable[[str], Origin]) -> None:
    waiting, one, other = Waiting(Budget(16, 1024), nothing), snapshot("one"), snapshot("other")
    for _ in range(4):
        waiting.created(one)
    for _ in range(2):
        waiting.created(other)
    assert (fill(waiting), count(waiting)) == (4, [3, 1])
    gone = []
    while waiting.dismiss_one():
        gone.append(count(waiting))
    assert gone == [[2, 1], [1, 1], [1, 0], [0, 0]]


async def test_what_cannot_wait(snapshot: Callable[[str], Origin]) -> None:
    one = snapshot("one")
    assert can_wait(one)
    for change in ({"at_frame_boundary": False}, {"mounts": ("/data",)}, {"memory_lost": "why"}, {"parent": ""}):
        manifest = replace(one.snapshot.manifest, **change)  # type: ignore[arg-type]
        assert not can_wait(replace(one, snapshot=replace(one.snapshot, manifest=manifest)))


LOOP = "while sleep 0.01; do read name < /proc/sys/kernel/hostname; echo $name >> /run/names; done"
STATE = "find / -xdev -newer /run/mark -not -path '/proc/*' -not -path '/sys/*' -type f | grep -v /run/names | sort"
DRAWN = "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid /etc/machine-id"


async def test_a_create_finds_a_machine_that_has_loaded_the_snapshot(place: Installation) -> None:
    """No program of its user's ran while the machine waited, and nothing tells it from any other copy."""
    async with open_engine(place.layout, Settings(ready_machines=1)) as engine:
        source = await engine.sandboxes.create(spec(), "base")
        await run(source, f"({LOOP}) > /dev/null 2>&1 & touch /run/mark; sync")
        name = str(uuid.uuid4())
        await engine.copies.snapshot(source.id, name)
        cold = await engine.sandboxes.create_from(spec(), name)
        assert "resume" not in cold.phases
        engine.sandboxes.expect(name, 2, 60)
        await waits(engine, 2)
        made = [await engine.sandboxes.create_from(spec(), name) for _ in range(2)]
        names = {source.spec.hostname} | {each.spec.hostname for each in (cold, *made)}
        for each in made:
            assert "resume" in each.phases, "it was made ahead"
            begun = f"until grep -q {each.spec.hostname} /run/names; do sleep 0.1; done"
            seen = await run(each, f"{begun}; sort -u /run/names")
            assert set(seen.split()) == {source.spec.hostname, each.spec.hostname} <= names
            assert await run(each, STATE) == await run(cold, STATE)
            assert (await each.channel.processes())[0] == []
        assert len({await run(each, DRAWN) for each in (cold, *made)}) == 3
        await eventually_gone(engine, name)


async def waits(engine: Engine, number: int) -> None:
    def enough() -> bool:
        return sum(len(each) for each in engine.warm_pool.snapshots.usable()) == number

    await anyio.to_thread.run_sync(eventually, enough, 60, f"{number} machines wait")


async def eventually_gone(engine: Engine, name: str) -> None:
    """Machines that wait go with their snapshot, and leave the sandboxes."""
    engine.sandboxes.expect(name, 1, 60)
    await waits(engine, 1)
    machine = engine.warm_pool.snapshots.usable()[0][0]
    engine.warm_pool.snapshots.forget(engine.saved.path(name))
    await engine.saved.remove(name)
    assert not machine.usable
    templates = sum(len(kind) for kind in engine.warm_pool.waiting())
    live = len([each for each in engine.registry.list() if isinstance(each, Sandbox)])

    def gone() -> bool:
        return len(list(engine.pool.machines.iterdir())) <= templates + live

    await anyio.to_thread.run_sync(eventually, gone, 60, "nothing is left of the machine that waited")


async def test_a_claim_has_a_moment_before_the_next_machine_is_made() -> None:
    async with anyio.create_task_group() as lives:
        pool = WarmPool(None, lives, 0, Budget(1, 100))  # type: ignore[arg-type]  # it makes no machine here
        await pool._a_moment()
        passed: list[float] = []

        async def look() -> None:
            await pool._a_moment()
            passed.append(anyio.current_time())

        with pool._without_refill():
            lives.start_soon(look)
            await anyio.sleep(0.01)
            assert passed == []
        ended = anyio.current_time()
        with pool._without_refill():
            pass
    assert passed[0] >= ended + MOMENT_S
