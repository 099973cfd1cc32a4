"""Pausing, capturing, restoring, forking and adopting real machines, through the engine itself."""

from __future__ import annotations

import uuid
from dataclasses import replace

import anyio
import pytest

from pandastack.engine.engine import Engine, open_engine
from pandastack.engine.machines.capture import HELD_BYTES
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.settings import Settings
from pandastack.errors import CapacityError, ConflictError, NotFoundError
from pandastack.host import facts, files
from tests.support.installation import Installation, eventually
from tests.support.loops import slowed
from tests.support.machines import opened, run, spec
from tests.support.programs import COUNTER

pytestmark = pytest.mark.anyio


async def test_a_hibernated_sandbox_wakes_with_its_processes_and_files(engine: Engine) -> None:
    sandbox = await engine.sandboxes.create(spec(), "base")
    await run(sandbox, f"echo kept > /root/file; {COUNTER}")
    machine_id = await run(sandbox, "cat /etc/machine-id; hostname")
    for turn in range(3):
        captured = await engine.lifecycle.hibernate(sandbox.id)
        assert captured and 0 < captured.dirty_bytes < 64 * 2**20
        assert isinstance(engine.registry.get(sandbox.id), Hibernated)
        assert await engine.lifecycle.hibernate(sandbox.id) is None
        with pytest.raises(ConflictError, match="hibernated"):
            engine.registry.reach(sandbox.id)
        sandbox = await engine.lifecycle.wake(sandbox.id)
        assert await run(sandbox, "cat /etc/machine-id; hostname") == machine_id
        assert await run(sandbox, "cat /root/file") == "\n".join(["kept", *map(str, range(turn))])
        await run(sandbox, f"echo {turn} >> /root/file")
        before = int(await run(sandbox, "cat /run/counter"))
        assert int(await run(sandbox, "sleep 0.5; cat /run/counter")) > before
    await engine.sandboxes.delete(sandbox.id)
    assert not engine.asleep.names()


async def test_what_is_being_made_can_be_deleted(engine: Engine) -> None:
    """As when the one who asked for it has left: the machine is made nonetheless."""
    wanted = spec()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.sandboxes.create, wanted, "base")
        await anyio.wait_all_tasks_blocked()
        assert engine.registry.find(wanted.sandbox) is None, "it is being made"
        await engine.sandboxes.delete(wanted.sandbox)
    assert engine.registry.find(wanted.sandbox) is None
    with pytest.raises(NotFoundError):
        await engine.sandboxes.delete(wanted.sandbox)


async def test_a_paused_sandbox_stands_still(engine: Engine) -> None:
    sandbox = await engine.sandboxes.create(spec(), "base")
    await engine.lifecycle.pause(sandbox.id)
    await engine.lifecycle.pause(sandbox.id)
    assert sandbox.state == "paused"
    with pytest.raises(ConflictError, match="paused"):
        engine.registry.reach(sandbox.id)
    await engine.lifecycle.resume(sandbox.id)
    assert await run(sandbox, "echo on") == "on"
    await engine.lifecycle.pause(sandbox.id)
    await engine.lifecycle.hibernate(sandbox.id)
    woken = await engine.lifecycle.wake(sandbox.id)
    assert await run(woken, "echo awake") == "awake"
    await engine.sandboxes.delete(sandbox.id)


async def test_a_snapshot_outlives_its_source(engine: Engine) -> None:
    sandbox, name = await engine.sandboxes.create(spec(), "base"), str(uuid.uuid4())
    await run(sandbox, "echo then > /root/file; sync")
    await engine.copies.snapshot(sandbox.id, name)
    await run(sandbox, "echo later > /root/file")
    await engine.sandboxes.delete(sandbox.id)
    first = await engine.sandboxes.create_from(spec(), name)
    second = await engine.sandboxes.create_from(spec(), name)
    assert [await run(each, "cat /root/file") for each in (first, second)] == ["then", "then"]
    await engine.saved.remove(name)
    assert await run(first, "cat /root/file; ls /usr/bin | wc -l")  # what it was restored from is still its own
    with pytest.raises(NotFoundError):
        await engine.sandboxes.create_from(spec(), name)
    for each in (first, second):
        await engine.sandboxes.delete(each.id)


async def test_a_fork_of_a_fork_of_a_fork(engine: Engine) -> None:
    sandbox = await engine.sandboxes.create(spec(), "base")
    await run(sandbox, COUNTER)
    family = [sandbox]
    for generation in range(3):
        await run(family[-1], f"echo {generation} >> /root/line")
        forked = await engine.copies.fork(family[-1].id, [spec()])
        child = forked.children[0].made
        assert isinstance(child, Sandbox), child
        family.append(child)
    for depth, each in enumerate(family):
        expected = [str(n) for n in range(min(depth, 2) + 1)]
        assert (await run(each, "cat /root/line")).split() == expected
        before = int(await run(each, "cat /run/counter"))
        assert int(await run(each, "sleep 0.5; cat /run/counter")) > before
    seen = {await run(each, "head -c 16 /dev/urandom | base64; cat /etc/machine-id; hostname") for each in family}
    assert len(seen) == len(family)
    for each in family:
        await engine.sandboxes.delete(each.id)


async def test_memory_of_which_much_was_written_gets_an_image_of_its_own(engine: Engine) -> None:
    sandbox = await engine.sandboxes.create(spec(), "base")
    template = engine.templates.get("base").snapshot.memory
    little, much = spec().sandbox, spec().sandbox
    await engine.copies.snapshot(sandbox.id, little)
    await run(sandbox, f"mount -t tmpfs none /mnt && head -c {HELD_BYTES + 2**20} /dev/urandom > /mnt/much")
    await engine.copies.snapshot(sandbox.id, much)
    assert engine.saved.get(little).snapshot.memory.samefile(template)
    assert not engine.saved.get(much).snapshot.memory.samefile(template)
    assert not engine.saved.get(much).snapshot.pages.exists()
    digest = await run(sandbox, "sha256sum /mnt/much")
    copy = await engine.sandboxes.create_from(spec(), much)
    child = (await engine.copies.fork(copy.id, [spec()])).children[0].made
    assert isinstance(child, Sandbox)
    assert await run(child, "sha256sum /mnt/much") == digest
    assert await run(copy, "sha256sum /mnt/much") == digest
    for name in (little, much):
        await engine.saved.remove(name)


async def test_forks_and_sleepers_move_into_machines_that_wait(place: Installation) -> None:
    async with open_engine(place.layout, Settings(ready_machines=2)) as engine:
        sandbox = await engine.sandboxes.create(spec(), "base")

        def full() -> bool:
            return all(len(kind) == 2 for kind in engine.warm_pool.waiting())

        await anyio.to_thread.run_sync(eventually, full, 30, "machines wait")
        waiting = {each.name for each in engine.pool.machines.iterdir()}
        await run(sandbox, "echo kept > /root/file")
        child = (await engine.copies.fork(sandbox.id, [spec()])).children[0].made
        await engine.lifecycle.hibernate(sandbox.id)
        woken = await engine.lifecycle.wake(sandbox.id)
        assert isinstance(child, Sandbox)
        for each in (child, woken):
            assert await run(each, "cat /root/file") == "kept"
            assert each.journal.entry.machine in waiting
        assert await run(child, "cat /etc/machine-id") != await run(woken, "cat /etc/machine-id")


async def test_more_is_not_promised_than_the_host_may_promise(place: Installation) -> None:
    """Machines made ahead give way to sandboxes, and a rewind takes the place of what it replaces."""
    size = 512 * 2**20
    factor = 3.5 * size / facts.memory_bytes()
    async with open_engine(place.layout, Settings(ready_machines=2, overcommit=factor)) as engine:

        def waiting() -> int:
            return sum(len(kind) for kind in engine.warm_pool.waiting())

        await anyio.to_thread.run_sync(eventually, lambda: waiting() == 3, 60, "all that fits waits")
        made = [await engine.sandboxes.create(spec(), "base") for _ in range(3)]
        assert waiting() == 0
        for refused in (engine.sandboxes.create(spec(), "base"), engine.copies.fork(made[0].id, [spec()])):
            with pytest.raises(CapacityError, match="insufficient host memory") as refusal:
                await refused
            assert refusal.value.detail == {"asked_mb": 512, "promised_mb": 1536, "limit_mb": 1792}
        assert engine.registry.list() == made
        name = str(uuid.uuid4())
        await engine.copies.snapshot(made[0].id, name)
        await engine.rewinder.rewind(made[0].id, name)
        await engine.lifecycle.hibernate(made[1].id)
        await engine.sandboxes.create_from(spec(), name)
        with pytest.raises(CapacityError):
            await engine.lifecycle.wake(made[1].id)
        await engine.sandboxes.delete(made[2].id)
        await engine.lifecycle.wake(made[1].id)
        for each in engine.registry.list():
            await engine.sandboxes.delete(each.id)
        await engine.saved.remove(name)
        await anyio.to_thread.run_sync(
            eventually, lambda: waiting() == 3, 60, "there is room again, and all wait again"
        )


async def test_a_rewind_undoes_files_and_memory(engine: Engine) -> None:
    sandbox, name = await engine.sandboxes.create(spec(), "base"), str(uuid.uuid4())
    await run(sandbox, "echo good > /root/file; echo good > /run/in-memory")
    await engine.copies.snapshot(sandbox.id, name)
    await run(sandbox, "rm /root/file; echo bad > /run/in-memory")
    rewound = await engine.rewinder.rewind(sandbox.id, name)
    assert rewound.id == sandbox.id
    assert await run(rewound, "cat /root/file /run/in-memory") == "good\ngood"
    await engine.sandboxes.delete(rewound.id)
    await engine.saved.remove(name)


async def test_a_lost_sandbox_returns_by_its_own_snapshot_only(engine: Engine) -> None:
    """What a reboot leaves: a snapshot with the order that its sandbox was made for."""
    wanted, name = replace(spec(), hostname="mine", env={"A": "1"}), str(uuid.uuid4())
    sandbox = await engine.sandboxes.create(wanted, "base")
    await run(sandbox, "echo kept > /root/file")
    await engine.copies.snapshot(sandbox.id, name)
    await engine.sandboxes.delete(sandbox.id)
    with pytest.raises(NotFoundError, match="sandbox"):
        await engine.rewinder.rewind(str(uuid.uuid4()), name)
    found = await engine.rewinder.rewind(wanted.sandbox, name)
    assert await run(found, "cat /root/file; hostname; echo $A") == "kept\nmine\n1"
    await engine.sandboxes.delete(found.id)
    await engine.saved.remove(name)


async def test_the_event_loop_runs_while_disks_are_cloned(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone first writes back what the host caches of the disk, which takes as long as the disk is slow."""
    sandbox, name = await engine.sandboxes.create(spec(), "base"), str(uuid.uuid4())
    async with slowed(files.clone) as slow:
        monkeypatch.setattr(files, "clone", slow)
        await engine.copies.snapshot(sandbox.id, name)
        copy = await engine.sandboxes.create_from(spec(), name)
        await engine.lifecycle.hibernate(sandbox.id)
    assert await run(copy, "echo here") == "here"
    for each in (copy.id, sandbox.id):
        await engine.sandboxes.delete(each)
    await engine.saved.remove(name)


async def test_a_restored_clock_is_right_however_long_it_slept(engine: Engine) -> None:
    sandbox = await engine.sandboxes.create(spec(), "base")
    await run(sandbox, "date -s '2001-01-01' >/dev/null; true")
    await engine.lifecycle.hibernate(sandbox.id)
    woken = await engine.lifecycle.wake(sandbox.id)
    import time

    before = time.time()
    guest = float(await run(woken, "date +%s.%N"))
    assert before - 0.1 <= guest <= time.time() + 0.1
    await engine.sandboxes.delete(sandbox.id)


async def test_sleepers_are_found_by_the_next_engine(place: Installation) -> None:
    name = spec()
    async with opened(place) as engine:
        sandbox = await engine.sandboxes.create(name, "base")
        await run(sandbox, "echo still here > /root/file")
        await engine.lifecycle.hibernate(sandbox.id)
    async with opened(place) as engine:
        assert [each.id for each in engine.registry.list()] == [name.sandbox]
        woken = await engine.lifecycle.wake(name.sandbox)
        assert await run(woken, "cat /root/file") == "still here"
        await engine.sandboxes.delete(name.sandbox)
        assert not list(engine.pool.machines.iterdir())


async def test_a_capture_that_finds_no_room_leaves_the_sandbox_running(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is really full, for the one file that is written last: a limit on the size of files."""
    import resource

    from pandastack.errors import PandastackError

    sandbox = await engine.sandboxes.create(spec(), "base")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, hard))
        with pytest.raises((PandastackError, OSError)):
            await engine.lifecycle.hibernate(sandbox.id)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert await run(sandbox, "echo still running") == "still running"
    assert engine.asleep.names() == []
    with anyio.fail_after(30):
        await engine.lifecycle.hibernate(sandbox.id)
    await engine.sandboxes.delete(sandbox.id)
