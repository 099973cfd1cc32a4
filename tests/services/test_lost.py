"""Sandboxes whose machines were lost, and what can be had of them: against a scripted peer and a real database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pandastack.errors import ConflictError, NotFoundError, ServerError
from pandastack.services import ControlPlane
from pandastack.services.records.spec import NewSandbox
from pandastack.store.snapshots import SnapshotRecord
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.plane import BASE, CALLER, QUICK, event_types, put, running, used

pytestmark = pytest.mark.anyio


async def lost(engine: ScriptedEngine, url: str, wanted: NewSandbox = BASE) -> tuple[str, list[SnapshotRecord]]:
    """A sandbox with two checkpoints, whose machine a reboot has ended."""
    async with running(engine, url) as plane:
        record = await plane.sandboxes.create(CALLER, wanted)
        taken = [await plane.timeline.checkpoint(CALLER, record.id, name) for name in ("first", "last")]
    del engine.machines[record.id]
    return record.id, taken


async def rewound_to(plane: ControlPlane, sandbox_id: str) -> list[str]:
    events = await plane.events.latest(sandbox_id, None)
    return [event.payload["label"] for event in events if event.type == "sandbox.rewound"]


async def test_a_failed_sandbox_is_not_restored_by_using_it_and_the_refusal_says_how(
    engine: ScriptedEngine, url: str
) -> None:
    sandbox_id, (_, last) = await lost(engine, url)
    async with running(engine, url) as plane:
        record = plane.sandboxes.get(CALLER, sandbox_id)
        assert (record.status, record.reason) == (
            "failed",
            "its machine did not survive a restart of the host or the engine",
        )
        for use in (used(plane, sandbox_id), plane.lifecycle.hibernate(CALLER, sandbox_id)):
            with pytest.raises(ConflictError, match="did not survive") as refused:
                await use
            assert refused.value.detail["checkpoint"] == last.id
            assert "wake restores its checkpoint of 20" in str(refused.value.hint)


async def test_wake_restores_the_last_checkpoint_of_a_failed_sandbox(engine: ScriptedEngine, url: str) -> None:
    sandbox_id, _ = await lost(engine, url)
    async with running(engine, url) as plane:
        await plane.lifecycle.wake(CALLER, sandbox_id)
        await used(plane, sandbox_id)
        record = plane.sandboxes.get(CALLER, sandbox_id)
        assert (record.status, record.reason) == ("running", None)
        assert await rewound_to(plane, sandbox_id) == ["last"]
    assert list(engine.machines) == [sandbox_id]


async def test_a_failed_sandbox_is_rewound_to_any_checkpoint(engine: ScriptedEngine, url: str) -> None:
    sandbox_id, (first, _) = await lost(engine, url)
    async with running(engine, url) as plane:
        assert (await plane.timeline.rewind(CALLER, sandbox_id, first.id)).status == "running"
        await used(plane, sandbox_id)
        assert await rewound_to(plane, sandbox_id) == ["first"]


async def test_without_a_checkpoint_a_failed_sandbox_stays_failed(engine: ScriptedEngine, url: str) -> None:
    sandbox_id = await put(url, status="running")
    async with running(engine, url) as plane:
        with pytest.raises(ConflictError) as refused:
            await plane.lifecycle.wake(CALLER, sandbox_id)
        assert refused.value.hint == "create a new sandbox"
        assert plane.sandboxes.get(CALLER, sandbox_id).status == "failed"


async def test_a_restore_that_fails_can_be_tried_again(engine: ScriptedEngine, url: str) -> None:
    sandbox_id, _ = await lost(engine, url)
    async with running(engine, url) as plane:
        engine.refusals["rewind"] = ServerError("not now")
        with pytest.raises(ServerError, match="not now"):
            await plane.lifecycle.wake(CALLER, sandbox_id)
        assert plane.sandboxes.get(CALLER, sandbox_id).status == "failed"
        del engine.refusals["rewind"]
        await plane.lifecycle.wake(CALLER, sandbox_id)
        await used(plane, sandbox_id)


async def test_a_checkpoint_that_the_engine_has_lost_is_named(engine: ScriptedEngine, url: str) -> None:
    sandbox_id, taken = await lost(engine, url)
    async with running(engine, url) as plane:
        engine.snapshots.clear()
        with pytest.raises(NotFoundError, match=f"checkpoint not found: {taken[-1].id}"):
            await plane.lifecycle.wake(CALLER, sandbox_id)


async def test_a_machine_that_is_alive_makes_its_failed_record_true(engine: ScriptedEngine, url: str) -> None:
    """The server was killed between the restore and its record."""
    sandbox_id = await put(url, status="failed", reason="lost")
    engine.put(sandbox_id)
    async with running(engine, url) as plane:
        record = plane.sandboxes.get(CALLER, sandbox_id)
        assert (record.status, record.reason) == ("running", None)
        assert await event_types(plane, sandbox_id) == []


async def test_a_failed_sandbox_that_is_to_be_kept_is_not_deleted_at_its_limit(
    engine: ScriptedEngine, url: str
) -> None:
    sandbox_id, _ = await lost(engine, url, NewSandbox("base", 1, on_expire="hibernate"))
    async with running(engine, url, replace(QUICK, idle_after=0)) as plane:
        assert plane.deadlines.expires_at(plane.sandboxes.get(CALLER, sandbox_id)) is None
