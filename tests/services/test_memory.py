"""Sandboxes whose memory is lost: what the records say, and which are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

from pandastack.contract.events import MachineDied
from pandastack.errors import BadRequestError, ConflictError, NotFoundError
from pandastack.services import ControlPlane
from pandastack.services.records.memory import may_boot, outlives_machine
from pandastack.services.records.spec import LifecyclePatch, NewSandbox
from pandastack.store.sandboxes import SandboxRecord, Status
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.plane import BASE, CALLER, event_types, put, running, used

pytestmark = pytest.mark.anyio

KEPT = NewSandbox("base", persistent=True)
RECORD = SandboxRecord("id", "w", "base", Status.RUNNING, 60, 0.0, 0.0)


async def payloads(plane: ControlPlane, sandbox_id: str, kind: str) -> list[dict[str, Any]]:
    return [dict(each.payload) for each in await plane.events.latest(sandbox_id, None) if each.type == kind]


async def until_status(plane: ControlPlane, sandbox_id: str, status: str) -> None:
    with anyio.fail_after(20):
        async for _ in plane.events.follow(sandbox_id, None, lambda: True):
            if plane.sandboxes.get(CALLER, sandbox_id).status == status:
                return


@pytest.fixture
async def plane(engine: ScriptedEngine, url: str) -> AsyncIterator[ControlPlane]:
    async with running(engine, url) as plane:
        yield plane


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, False),
        ({"persistent": True}, True),
        ({"on_expire": "hibernate"}, True),
        ({"persistent": True, "on_memory_loss": "boot"}, True),
        ({"persistent": True, "on_memory_loss": "fail"}, False),
    ],
)
def test_which_sandboxes_outlive_their_machines(changes: dict[str, Any], kept: bool) -> None:
    record = replace(RECORD, **changes)
    assert outlives_machine(record) is kept
    assert may_boot(record) is (changes.get("on_memory_loss") != "fail")


async def test_a_machine_that_dies_leaves_a_hibernated_sandbox(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, KEPT)
    engine.lose(record.id, "killed by SIGKILL")
    await engine.announce(MachineDied(record.id, 7, "killed by SIGKILL", disks_kept=True))
    await until_status(plane, record.id, "hibernated")
    lost = plane.sandboxes.get(CALLER, record.id)
    assert (lost.memory_lost_reason, lost.reason) == ("killed by SIGKILL", None)
    await used(plane, record.id)
    woken = plane.sandboxes.get(CALLER, record.id)
    assert (woken.status, woken.boot_mode, woken.memory_lost_at) == ("running", "boot", lost.memory_lost_at)
    assert (await event_types(plane, record.id))[-3:] == ["vm.died", "sandbox.memory_lost", "sandbox.woken"]
    assert await payloads(plane, record.id, "vm.died") == [{"pid": 7, "reason": "killed by SIGKILL"}]


@pytest.mark.parametrize("wanted", [BASE, replace(KEPT, on_memory_loss="fail")])
async def test_the_disk_of_another_is_discarded(
    plane: ControlPlane, engine: ScriptedEngine, wanted: NewSandbox
) -> None:
    record, deleted = await plane.sandboxes.create(CALLER, wanted), anyio.Event()

    async def see(action: str, _: str) -> None:
        if action == "delete":
            deleted.set()

    engine.before = see
    engine.lose(record.id, "it died")
    await engine.announce(MachineDied(record.id, 7, "it died", disks_kept=True))
    await until_status(plane, record.id, "failed")
    with anyio.fail_after(20):
        await deleted.wait()
    assert plane.sandboxes.get(CALLER, record.id).memory_lost_at is None


async def test_a_restart_of_the_host_is_found_at_the_start(engine: ScriptedEngine, url: str) -> None:
    kept = await put(url, status="running", persistent=True)
    failed = await put(url, id="b" * 36, status="failed", reason="lost", persistent=True)
    plain = await put(url, id="c" * 36, status="paused")
    for each in (kept, failed, plain):
        engine.lose(each, "the host was restarted")
    async with running(engine, url) as plane:
        found = [plane.sandboxes.get(CALLER, each) for each in (kept, failed, plain)]
        assert [each.status for each in found] == ["hibernated", "hibernated", "failed"]
        assert found[0].memory_lost_reason == "the host was restarted"
        assert set(engine.machines) == {kept, failed}


async def test_a_memory_that_does_not_fit_is_told_at_the_wake(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    await plane.lifecycle.hibernate(CALLER, record.id)
    engine.lose(record.id, "another VMM")
    await used(plane, record.id)
    assert plane.sandboxes.get(CALLER, record.id).memory_lost_reason == "another VMM"
    assert await payloads(plane, record.id, "sandbox.memory_lost") == [{"reason": "another VMM"}]


async def test_its_owner_may_prefer_an_error(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, replace(BASE, on_memory_loss="fail"))
    await plane.lifecycle.hibernate(CALLER, record.id)
    engine.lose(record.id, "another VMM")
    with pytest.raises(ConflictError, match="no memory: another VMM"):
        await plane.lifecycle.wake(CALLER, record.id)
    await plane.sandboxes.set_lifecycle(CALLER, record.id, LifecyclePatch(on_memory_loss="boot"))
    await plane.lifecycle.wake(CALLER, record.id)
    assert plane.sandboxes.get(CALLER, record.id).boot_mode == "boot"


async def test_a_rewind_brings_the_memory_back(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    checkpoint = await plane.timeline.checkpoint(CALLER, record.id)
    await plane.lifecycle.hibernate(CALLER, record.id)
    engine.lose(record.id, "another VMM")
    await plane.lifecycle.wake(CALLER, record.id)
    await plane.timeline.rewind(CALLER, record.id, checkpoint.id)
    rewound = plane.sandboxes.get(CALLER, record.id)
    assert (rewound.memory_lost_at, rewound.memory_lost_reason) == (None, None)


async def test_a_process_of_before_is_said_to_have_ended(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    with pytest.raises(NotFoundError) as unknown:
        await plane.processes.get(CALLER, record.id, "7")
    assert "memory" not in str(unknown.value.hint)
    await plane.lifecycle.hibernate(CALLER, record.id)
    engine.lose(record.id, "another VMM")
    await plane.lifecycle.wake(CALLER, record.id)
    with pytest.raises(NotFoundError) as ended:
        await plane.processes.get(CALLER, record.id, "7")
    assert "ended with the sandbox's memory: another VMM" in str(ended.value.hint)


@pytest.mark.parametrize("value", ["", "Boot", "reboot"])
async def test_a_choice_that_there_is_not(plane: ControlPlane, value: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        await plane.sandboxes.create(CALLER, replace(BASE, on_memory_loss=value))
    assert refused.value.field == "on_memory_loss"
