"""Which builds run now, in which order the others follow, and how their machines wait for room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pandastack.engine.build import resources
from pandastack.engine.build.queue import BuildQueue
from pandastack.engine.build.resources import MachineResources
from pandastack.engine.machines.plan import BootSpec
from pandastack.engine.machines.slots import Slots
from pandastack.errors import CapacityError
from pandastack.model.accelerator import Accelerator
from pandastack.vmm.plan import Boot, Confinement

pytestmark = pytest.mark.anyio

SPEC = BootSpec(
    name="pandastack-work-1.2-build-3",
    boot=Boot(Path("/kernel"), Path("/initramfs")),
    cpus=2,
    memory_mb=2048,
    memory=Path("/memory"),
    disks=(),
    sockets=Path("/sockets"),
    accelerator=Accelerator.TCG,
)


class Work:
    """Builds that run until they are told to end."""

    def __init__(self, queue: BuildQueue) -> None:
        self.queue = queue
        self.begun: list[str] = []
        self.told: dict[str, list[int]] = {}
        self.ends: dict[str, anyio.Event] = {}

    async def run(self, name: str, owner: str) -> None:
        self.ends[name] = anyio.Event()
        async with self.queue.turn(owner, self.told.setdefault(name, []).append):
            self.begun.append(name)
            await self.ends[name].wait()


async def test_only_so_many_run_and_the_others_hear_how_many_come_before() -> None:
    work = Work(BuildQueue(2))
    async with anyio.create_task_group() as tasks:
        for name in "abcd":
            tasks.start_soon(work.run, name, "")
            await anyio.wait_all_tasks_blocked()
        assert (work.begun, work.queue.running) == (["a", "b"], 2)
        assert {name: told[-1:] for name, told in work.told.items()} == {"a": [], "b": [], "c": [0], "d": [1]}
        work.ends["b"].set()
        await anyio.wait_all_tasks_blocked()
        assert (work.begun, work.told["d"][-1]) == (["a", "b", "c"], 0)
        for each in work.ends.values():
            each.set()
    assert (work.begun, work.queue.running) == (["a", "b", "c", "d"], 0)


@pytest.mark.parametrize(
    ("limit", "order"),
    [
        (1, ["one-1", "two-1", "three-1", "one-2", "two-2", "one-3", "one-4"]),
        (2, ["one-1", "one-2", "two-1", "three-1", "one-3", "two-2", "one-4"]),
    ],
)
async def test_owners_take_turns(limit: int, order: list[str]) -> None:
    """Whoever comes late waits for the end of one build, however many another owner has."""
    work = Work(BuildQueue(limit))
    async with anyio.create_task_group() as tasks:
        for name in ("one-1", "one-2", "one-3", "one-4", "two-1", "two-2", "three-1"):
            tasks.start_soon(work.run, name, name.partition("-")[0])
            await anyio.wait_all_tasks_blocked()
        assert work.begun == order[:limit]
        for count in range(limit + 1, 8):
            work.ends[work.begun[count - limit - 1]].set()
            await anyio.wait_all_tasks_blocked()
            assert len(work.begun) == count
        for each in work.ends.values():
            each.set()
    assert work.begun == order


async def test_one_that_is_cancelled_gives_its_place_to_the_next() -> None:
    """Be it one that waits, or one that runs."""
    work = Work(BuildQueue(1))
    scopes = [anyio.CancelScope() for _ in range(2)]

    async def cancelled(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await work.run(name, "")

    async with anyio.create_task_group() as tasks:
        for name, scope in zip("ab", scopes, strict=True):
            tasks.start_soon(cancelled, name, scope)
            await anyio.wait_all_tasks_blocked()
        tasks.start_soon(work.run, "c", "")
        await anyio.wait_all_tasks_blocked()
        scopes[1].cancel()
        await anyio.wait_all_tasks_blocked()
        assert work.told["c"] == [1, 0]
        scopes[0].cancel()
        await anyio.wait_all_tasks_blocked()
        assert work.begun == ["a", "c"]
        work.ends["c"].set()
    assert work.queue.running == 0


async def test_a_machine_waits_for_room_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_LOOK_SECONDS", 0.001)
    refusals, held, told = [CapacityError("no", hint="delete sandboxes")] * 3, list[int](), list[str]()

    @contextmanager
    def reserve(memory_mb: int) -> Iterator[None]:
        if refusals:
            raise refusals.pop()
        held.append(memory_mb)
        yield
        held.remove(memory_mb)

    async with MachineResources(None, reserve).of(SPEC, told.append) as placed:
        assert (placed, held) == (SPEC, [2048])
    assert (held, told) == ([], ["waiting for 2048 MiB of memory: delete sandboxes"])


async def test_a_machine_that_never_gets_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "ROOM_SECONDS", -1.0)

    @contextmanager
    def reserve(memory_mb: int) -> Iterator[None]:
        raise CapacityError("no", hint="delete sandboxes")
        yield

    with pytest.raises(CapacityError, match="needs 2048 MiB of memory") as refused:
        async with MachineResources(None, reserve).of(SPEC, str):
            pass
    assert (refused.value.hint, refused.value.status_code) == ("delete sandboxes", 507)


async def test_machines_that_build_at_once_have_users_of_their_own() -> None:
    slots = Slots(2)

    @contextmanager
    def user() -> Iterator[int]:
        with slots.take() as slot:
            yield 1000 + slot

    found, shared = MachineResources(user=user), replace(SPEC, confinement=Confinement(7, 7, None))
    async with found.of(shared, str) as one, found.of(shared, str) as two, found.of(SPEC, str) as none:
        assert [(each.confinement.uid, each.confinement.gid) for each in (one, two) if each.confinement] == [
            (1000, 1000),
            (1001, 1001),
        ]
        assert none.confinement is None
    async with resources.UNLIMITED.of(shared, str) as alone:
        assert alone == shared


def test_what_a_machine_may_take() -> None:
    """Its CPUs, where they are idle; beside sandboxes that need them, a quarter of one."""
    limits = resources.limits_of(SPEC)
    assert (limits.memory_bytes >> 20, limits.cpus, limits.share) == (2048 + 320, 2.5, 0.25)
