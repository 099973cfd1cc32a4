"""Transitions, idle time, recovery and the timeline: against a scripted peer and a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
import pytest

from pandastack.errors import ConflictError, ServerError, StorageFullError
from pandastack.services import ControlPlane, Settings
from pandastack.services.records import command_log
from pandastack.services.records.spec import LifecyclePatch, NewSandbox
from pandastack.services.sandboxes.restarts import AT_ONCE
from tests.cluster.scripted_engine import ScriptedEngine, Taken
from tests.support.plane import (
    BASE,
    CALLER,
    QUICK,
    event_types,
    put,
    running,
    until_removed,
    used,
)

pytestmark = pytest.mark.anyio

STRANGER = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def plane(engine: ScriptedEngine, url: str) -> AsyncIterator[ControlPlane]:
    async with running(engine, url, replace(QUICK, max_checkpoints=2)) as opened:
        yield opened


async def until(plane: ControlPlane, sandbox_id: str, type: str) -> None:
    async for event in plane.events.follow(sandbox_id, None, lambda: True):
        if event.type == type:
            return


def named(engine: ScriptedEngine, action: str) -> list[str]:
    return [call for call in engine.calls if call.split()[0] == action]


async def test_many_requests_wake_once(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    await plane.lifecycle.hibernate(CALLER, record.id)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(used, plane, record.id)
    assert len(named(engine, "wake")) == 1
    assert (await event_types(plane, record.id))[1:] == ["sandbox.hibernated", "sandbox.woken"]


async def test_a_request_waits_for_a_hibernation_and_then_wakes(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    begun, go_on = anyio.Event(), anyio.Event()

    async def hold(action: str, _sandbox_id: str) -> None:
        if action == "hibernate":
            begun.set()
            await go_on.wait()

    engine.before = hold
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(plane.lifecycle.hibernate, CALLER, record.id)
        await begun.wait()
        tasks.start_soon(used, plane, record.id)
        await anyio.wait_all_tasks_blocked()
        assert named(engine, "wake") == []
        go_on.set()
    assert plane.sandboxes.get(CALLER, record.id).status == "running"


async def test_a_wake_goes_on_when_its_caller_leaves(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    await plane.lifecycle.hibernate(CALLER, record.id)
    begun, go_on = anyio.Event(), anyio.Event()

    async def hold(_action: str, _sandbox_id: str) -> None:
        begun.set()
        await go_on.wait()

    engine.before = hold
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(used, plane, record.id)
        await begun.wait()
        tasks.cancel_scope.cancel()
        go_on.set()
    assert plane.sandboxes.get(CALLER, record.id).status == "running"


async def test_a_hibernation_that_fails_leaves_it_running(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    engine.refusals["hibernate"] = StorageFullError("full")
    with pytest.raises(StorageFullError):
        await plane.lifecycle.hibernate(CALLER, record.id)
    await used(plane, record.id)


async def test_a_lost_hibernated_copy_fails_the_sandbox(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    await plane.lifecycle.hibernate(CALLER, record.id)
    del engine.machines[record.id]
    with pytest.raises(ConflictError, match="is gone"):
        await used(plane, record.id)
    assert plane.sandboxes.get(CALLER, record.id).status == "failed"


async def test_at_the_idle_limit_it_may_hibernate_and_is_kept(plane: ControlPlane) -> None:
    record = await plane.sandboxes.create(CALLER, NewSandbox("base", 0, on_expire="hibernate"))
    await until(plane, record.id, "sandbox.hibernated")
    kept = plane.sandboxes.get(CALLER, record.id)
    assert (kept.status, plane.deadlines.expires_at(kept)) == ("hibernated", None)
    await plane.sandboxes.set_lifecycle(CALLER, record.id, LifecyclePatch(on_expire="delete"))
    await until_removed(plane, record.id)


async def test_a_hibernated_sandbox_is_deleted_at_its_limit(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    await plane.lifecycle.hibernate(CALLER, record.id)
    await plane.sandboxes.set_lifecycle(CALLER, record.id, LifecyclePatch(ttl_seconds=0))
    await until_removed(plane, record.id)
    assert engine.machines == {}


async def test_a_persistent_sandbox_hibernates_when_idle(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url, replace(QUICK, idle_after=0.05)) as plane:
        record = await plane.sandboxes.create(CALLER, NewSandbox("base", persistent=True))
        async with plane.sandboxes.use(CALLER, record.id):
            other = await plane.sandboxes.create(CALLER, NewSandbox("base", persistent=True))
            await until(plane, other.id, "sandbox.hibernated")
            assert plane.sandboxes.get(CALLER, record.id).status == "running"
        await until(plane, record.id, "sandbox.hibernated")


async def test_a_stop_hibernates_what_is_to_be_found_again(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        used_last, paused, plain = [
            (await plane.sandboxes.create(CALLER, NewSandbox("base", **settings))).id
            for settings in ({"persistent": True}, {"on_expire": "hibernate"}, {})
        ]
        await plane.lifecycle.pause(CALLER, paused)
    assert sorted(named(engine, "hibernate")) == sorted([f"hibernate {used_last}", f"hibernate {paused}"])
    async with running(engine, url) as plane:
        await until(plane, used_last, "sandbox.woken")
        assert plane.registry.get(used_last).status == "running"
        assert not plane.registry.get(used_last).wake_at_start
        assert plane.registry.get(paused).status == "hibernated"
        assert plane.registry.get(plain).status == "running"  # this engine has outlived the control plane
    assert named(engine, "wake") == [f"wake {used_last}"]


async def test_a_stop_that_takes_too_long_ends_without_the_rest(engine: ScriptedEngine, url: str) -> None:
    async def slow(action: str, _: str) -> None:
        if action == "hibernate":
            await anyio.sleep(2)

    async with running(engine, url, replace(QUICK, stop_seconds=1)) as plane:
        for _ in range(5 * AT_ONCE):
            await plane.sandboxes.create(CALLER, NewSandbox("base", persistent=True))
        engine.before = slow
    assert len(named(engine, "hibernate")) == AT_ONCE


async def test_a_life_that_is_over_ends_a_sandbox_in_use(plane: ControlPlane) -> None:
    wanted = NewSandbox("base", persistent=True, max_lifetime_seconds=1)
    record = await plane.sandboxes.create(CALLER, wanted)
    assert plane.deadlines.expires_at(record) == record.created_at + 1
    with plane.activity.hold(record.id), anyio.fail_after(20):
        await until_removed(plane, record.id)


def test_never_is_a_choice_for_idle_persistent_sandboxes() -> None:
    assert Settings.from_env({"PANDASTACK_IDLE_AFTER": "0"}).idle_after == 0


@pytest.mark.parametrize("state", ["running", "paused", "hibernated"])
@pytest.mark.parametrize("status", ["running", "hibernated"])
async def test_a_start_believes_the_engine(engine: ScriptedEngine, url: str, status: str, state: str) -> None:
    sandbox_id = await put(url, status=status, persistent=True)
    engine.put(sandbox_id, state)
    async with running(engine, url, replace(QUICK, idle_after=0)) as plane:
        assert plane.sandboxes.get(CALLER, sandbox_id).status == state
        found = "recover.hibernated" in await event_types(plane, sandbox_id)
        assert found == (state == "hibernated" != status)


async def test_a_start_fails_what_was_hibernated_and_is_gone(engine: ScriptedEngine, url: str) -> None:
    sandbox_id = await put(url, status="hibernated")
    async with running(engine, url) as plane:
        assert plane.sandboxes.get(CALLER, sandbox_id).status == "failed"


async def test_a_start_deletes_snapshots_that_have_no_record(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        record = await plane.sandboxes.create(CALLER, BASE)
        kept = await plane.timeline.snapshot(CALLER, record.id)
    engine.snapshots[STRANGER] = Taken()
    async with running(engine, url):
        assert list(engine.snapshots) == [kept.id]


async def test_a_snapshot_that_is_half_deleted_is_not_offered(engine: ScriptedEngine, url: str) -> None:
    """Whatever comes between forgetting it and freeing its data: it is never listed without data."""
    async with running(engine, url) as plane:
        record = await plane.sandboxes.create(CALLER, BASE)
        taken = await plane.timeline.snapshot(CALLER, record.id)
        engine.refusals["delete_snapshot"] = ServerError("killed")
        with pytest.raises(ServerError):
            await plane.snapshots.delete(taken)
        assert await plane.snapshots.page(CALLER) == ([], None)
        assert list(engine.snapshots) == [taken.id]
    del engine.refusals["delete_snapshot"]
    async with running(engine, url):
        assert list(engine.snapshots) == []


async def test_a_cancelled_fork_leaves_no_children(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    arrived, go_on = anyio.Event(), anyio.Event()

    async def hang(action: str, _sandbox_id: str) -> None:
        if action == "fork":
            assert [child.status for child in plane.registry.all()] == ["creating", "creating", "running"]
            arrived.set()
            await go_on.wait()

    engine.before = hang
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(plane.forks.fork, CALLER, record.id, {}, 2)
        await arrived.wait()
        tasks.cancel_scope.cancel()
        go_on.set()
    assert list(engine.machines) == [record.id]
    assert plane.sandboxes.list(CALLER) == [plane.sandboxes.get(CALLER, record.id)]


async def test_a_failed_snapshot_leaves_nothing(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    engine.refusals["snapshot"] = ServerError("broken")
    with pytest.raises(ServerError, match="broken"):
        await plane.timeline.snapshot(CALLER, record.id)
    assert await plane.snapshots.page(CALLER) == ([], None)
    assert len(named(engine, "delete_snapshot")) == 1


async def test_the_oldest_checkpoint_makes_room(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    taken = [await plane.timeline.checkpoint(CALLER, record.id) for _ in range(3)]
    assert await plane.timeline.checkpoints(CALLER, record.id) == taken[1:]


async def test_automatic_checkpoints_need_activity_and_never_wake(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, NewSandbox("base", checkpoint_every=1))
    old = replace(record, created_at=record.created_at - 100)
    plane.registry._records[record.id] = old
    await plane.automatic.look()
    assert len(await plane.timeline.checkpoints(CALLER, record.id)) == 1
    log = plane.activity.command_log._logs[record.id]
    log.attempted_at -= 100
    plane.activity.start(record.id, log.attempted_at)
    await plane.automatic.look()
    assert len(named(engine, "snapshot")) == 1
    await plane.lifecycle.hibernate(CALLER, record.id)
    await plane.automatic.look()
    assert len(named(engine, "snapshot")) == 1
    assert named(engine, "wake") == []


async def test_an_idle_sandbox_is_looked_at_again_when_it_is_used(plane: ControlPlane) -> None:
    record = await plane.sandboxes.create(CALLER, NewSandbox("base", checkpoint_every=1))
    plane.registry._records[record.id] = replace(record, created_at=record.created_at + 100)
    plane.activity.start(record.id, record.created_at)
    assert plane.automatic._next() == float("inf")
    plane.registry._records[record.id] = replace(record, created_at=record.created_at - 100)
    await used(plane, record.id)
    await until(plane, record.id, "checkpoint.taken")


async def execute(plane: ControlPlane, sandbox_id: str, *commands: str) -> None:
    for command in commands:
        await plane.commands.run(CALLER, sandbox_id, plane.commands.plan(command, None))


async def test_commands_in_quick_succession_become_one_checkpoint(
    plane: ControlPlane, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_log, "SETTLE_SECONDS", 10.0)  # no host is so slow that this is no quick succession
    record = await plane.sandboxes.create(CALLER, NewSandbox("base", checkpoint_after_exec=True))
    await execute(plane, record.id, "one", "two\nlines", "three")
    await plane.automatic.look()
    assert named(engine, "snapshot") == []
    monkeypatch.setattr(command_log, "SETTLE_SECONDS", 0.0)
    await plane.automatic.look()
    await until(plane, record.id, "checkpoint.taken")
    (checkpoint,) = await plane.timeline.checkpoints(CALLER, record.id)
    assert (checkpoint.label, checkpoint.automatic) == ("three", True)
    assert (list(checkpoint.commands), checkpoint.command_count) == (["one", "two\\nlines", "three"], 3)
    await plane.automatic.look()
    assert len(named(engine, "snapshot")) == 1


async def test_a_checkpoint_that_hangs_or_fails_is_no_matter_of_the_command(
    plane: ControlPlane, engine: ScriptedEngine
) -> None:
    slow = await plane.sandboxes.create(CALLER, NewSandbox("base", checkpoint_after_exec=True))
    other = await plane.sandboxes.create(CALLER, NewSandbox("base", checkpoint_after_exec=True))
    arrived, go_on = anyio.Event(), anyio.Event()

    async def hang(action: str, sandbox_id: str) -> None:
        if action == "snapshot" and sandbox_id == slow.id and not go_on.is_set():
            arrived.set()
            await go_on.wait()
            raise ServerError("broken")

    engine.before = hang
    await execute(plane, slow.id, "one")
    await arrived.wait()
    await execute(plane, slow.id, "two")
    await execute(plane, other.id, "elsewhere")
    await until(plane, other.id, "checkpoint.taken")
    go_on.set()
    await until(plane, slow.id, "checkpoint.taken")
    (checkpoint,) = await plane.timeline.checkpoints(CALLER, slow.id)
    assert list(checkpoint.commands) == ["one", "two"]


async def test_checkpoints_after_commands_are_switched_on_and_off(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    await plane.sandboxes.set_lifecycle(CALLER, record.id, LifecyclePatch(checkpoint_after_exec=True))
    await execute(plane, record.id, "one")
    await until(plane, record.id, "checkpoint.taken")
    await plane.sandboxes.set_lifecycle(CALLER, record.id, LifecyclePatch(checkpoint_after_exec=False))
    await execute(plane, record.id, "two")
    assert plane.automatic._due_at(plane.registry.get(record.id)) is None


async def test_what_was_asked_for_outlives_what_was_not(plane: ControlPlane) -> None:
    record = await plane.sandboxes.create(CALLER, NewSandbox("base", checkpoint_after_exec=True))
    kept = await plane.timeline.checkpoint(CALLER, record.id, "kept")
    for command in ("one", "two", "three"):
        await execute(plane, record.id, command)
        plane.activity.command_log._logs[record.id].last_end -= 1
        await plane.automatic.look()
        if plane.automatic._in_progress:  # the plane's own look was faster
            async with plane.lifecycle.lock(record.id):
                pass
    found = await plane.timeline.checkpoints(CALLER, record.id)
    assert [each.label for each in found] == ["kept", "three"]
    assert found[0] == kept


async def test_a_machine_lost_in_a_rewind_fails_its_sandbox(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    checkpoint = await plane.timeline.checkpoint(CALLER, record.id)

    async def lose(action: str, sandbox_id: str) -> None:
        if action == "rewind":
            engine.put(sandbox_id, "failed")
            raise ServerError("no such luck")

    engine.before = lose
    with pytest.raises(ServerError, match="no such luck"):
        await plane.timeline.rewind(CALLER, record.id, checkpoint.id)
    assert plane.sandboxes.get(CALLER, record.id).status == "failed"
