"""What the control plane asks of the engine, and what it remembers: against a scripted peer and a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pandastack.cluster import EngineClient, Engines
from pandastack.contract.events import MachineContinued, MachineDied, MachineStalled
from pandastack.errors import (
    AuthError,
    BadRequestError,
    CapacityError,
    ConflictError,
    NotFoundError,
    ServerError,
    UnavailableError,
)
from pandastack.model.caller import Caller, Role
from pandastack.services import ControlPlane, open_control_plane
from pandastack.services.records.spec import LifecyclePatch, NewSandbox
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.plane import (
    BASE,
    CALLER,
    OUTSIDER,
    QUICK,
    WORKSPACE,
    event_types,
    put,
    running,
    stored,
    until_removed,
    used,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def plane(engine: ScriptedEngine, url: str) -> AsyncIterator[ControlPlane]:
    async with running(engine, url) as opened:
        yield opened


async def test_the_record_is_written_before_the_engine_acts(engine: ScriptedEngine, url: str) -> None:
    seen: list[str] = []

    async def look(_sandbox_id: str) -> None:
        seen.extend(record.status for record in await stored(url))

    engine.before_answer = look
    async with running(engine, url) as plane:
        record = await plane.sandboxes.create(CALLER, NewSandbox("base", 60, True, {"a": "b", "workspace": "evil"}))
        assert seen == ["creating"]
        assert await stored(url) == [record]
        assert (record.status, record.cpu, record.boot_ms) == ("running", 2, 37)
        assert record.metadata == {"a": "b", "workspace": WORKSPACE}
        assert await event_types(plane, record.id) == ["sandbox.running"]


@pytest.mark.parametrize("error", [CapacityError("no compute capacity available"), BadRequestError("no")])
async def test_a_refusal_leaves_nothing(
    plane: ControlPlane, engine: ScriptedEngine, url: str, error: ServerError
) -> None:
    engine.refusals["create"] = error
    with pytest.raises(type(error), match=error.message):
        await plane.sandboxes.create(CALLER, BASE)
    assert plane.sandboxes.list(CALLER) == []
    assert await stored(url) == []
    assert [call.split()[0] for call in engine.calls] == ["create"]


async def test_a_failure_of_unknown_extent_is_cleaned_up_on_the_engine(
    plane: ControlPlane, engine: ScriptedEngine, url: str
) -> None:
    async def fail(_sandbox_id: str) -> None:
        raise ServerError("boot failed")

    engine.before_answer = fail
    with pytest.raises(ServerError, match="boot failed"):
        await plane.sandboxes.create(CALLER, BASE)
    assert engine.machines == {}
    assert await stored(url) == []


async def test_a_cancelled_create_is_cleaned_up(plane: ControlPlane, engine: ScriptedEngine, url: str) -> None:
    arrived = anyio.Event()

    async def hang(_sandbox_id: str) -> None:
        arrived.set()
        await anyio.sleep_forever()

    engine.before_answer = hang
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(plane.sandboxes.create, CALLER, BASE)
        await arrived.wait()
        tasks.cancel_scope.cancel()
    assert engine.machines == {}
    assert await stored(url) == []


async def test_an_unknown_template_is_a_bad_request(plane: ControlPlane, engine: ScriptedEngine) -> None:
    engine.refusals["create"] = NotFoundError("no template nope")
    with pytest.raises(BadRequestError, match="unknown template 'nope'") as caught:
        await plane.sandboxes.create(CALLER, NewSandbox("nope"))
    assert caught.value.field == "template"


@pytest.mark.parametrize("name", ["", "../etc", ".", "a b", "x" * 200, "ü"])
async def test_a_template_name_that_cannot_be_one_never_reaches_the_engine(
    plane: ControlPlane, engine: ScriptedEngine, name: str
) -> None:
    with pytest.raises(BadRequestError):
        await plane.sandboxes.create(CALLER, NewSandbox(name))
    assert engine.calls == []


async def test_other_workspaces_find_nothing(plane: ControlPlane) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    assert plane.sandboxes.list(OUTSIDER) == []
    with pytest.raises(NotFoundError):
        plane.sandboxes.get(OUTSIDER, record.id)
    with pytest.raises(NotFoundError):
        await plane.sandboxes.delete(OUTSIDER, record.id)


async def test_after_a_delete_it_is_not_found(plane: ControlPlane, engine: ScriptedEngine, url: str) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    await plane.sandboxes.delete(CALLER, record.id)
    with pytest.raises(NotFoundError):
        plane.sandboxes.get(CALLER, record.id)
    assert engine.machines == {}
    assert await stored(url) == []


async def test_a_delete_that_failed_is_tried_again(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, NewSandbox("base", persistent=True))
    engine.refusals["delete"] = ServerError("busy")
    with pytest.raises(ServerError, match="busy"):
        await plane.sandboxes.delete(CALLER, record.id)
    assert plane.sandboxes.get(CALLER, record.id).status == "stopping"
    with pytest.raises(ConflictError, match="being deleted"):
        await used(plane, record.id)
    del engine.refusals["delete"]
    await until_removed(plane, record.id)
    assert engine.machines == {}


async def test_an_idle_sandbox_is_deleted_but_not_one_in_use_or_persistent(plane: ControlPlane) -> None:
    kept = await plane.sandboxes.create(CALLER, NewSandbox("base", 0, persistent=True))
    used = await plane.sandboxes.create(CALLER, NewSandbox("base", 0))
    async with plane.sandboxes.use(CALLER, used.id):
        idle = await plane.sandboxes.create(CALLER, NewSandbox("base", 0))
        await until_removed(plane, idle.id)
        assert plane.sandboxes.get(CALLER, used.id).status == "running"
    await until_removed(plane, used.id)
    assert plane.sandboxes.list(CALLER) == [kept]


async def test_a_shorter_limit_takes_effect_at_once(plane: ControlPlane) -> None:
    record = await plane.sandboxes.create(CALLER, NewSandbox("base", 3600))
    await anyio.wait_all_tasks_blocked()
    changed = await plane.sandboxes.set_lifecycle(CALLER, record.id, LifecyclePatch(ttl_seconds=0))
    assert (changed.ttl_seconds, changed.persistent) == (0, False)
    await until_removed(plane, record.id)


@pytest.mark.parametrize("ttl", [-1, 2**31])
async def test_a_limit_out_of_range_is_refused(plane: ControlPlane, engine: ScriptedEngine, ttl: int) -> None:
    with pytest.raises(BadRequestError, match="ttl_seconds"):
        await plane.sandboxes.create(CALLER, NewSandbox("base", ttl))
    assert engine.calls == []


async def test_a_dead_machine_fails_its_sandbox_with_the_reason(plane: ControlPlane, engine: ScriptedEngine) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    await engine.announce(MachineDied(record.id, 7, "killed"))
    followed = plane.events.follow(record.id, None, lambda: True)
    assert (await anext(followed)).type == "sandbox.running"
    died = await anext(followed)
    assert (died.type, died.payload) == ("vm.died", {"pid": 7, "reason": "killed"})
    with pytest.raises(ConflictError, match="failed: killed"):
        await used(plane, record.id)
    await plane.sandboxes.delete(CALLER, record.id)


async def test_a_machine_that_stands_still_for_want_of_storage_is_told_of(
    plane: ControlPlane, engine: ScriptedEngine
) -> None:
    record = await plane.sandboxes.create(CALLER, BASE)
    for event in (MachineStalled("nobody"), MachineStalled(record.id), MachineContinued(record.id)):
        await engine.announce(event)
    followed = plane.events.follow(record.id, None, lambda: True)
    types = [(await anext(followed)).type for _ in range(3)]
    assert types == ["sandbox.running", "vm.stalled", "vm.continued"]
    assert plane.registry.get(record.id).status == "running"


async def test_a_machine_that_dies_while_it_is_created_fails_the_create(
    plane: ControlPlane, engine: ScriptedEngine, url: str
) -> None:
    async def die(sandbox_id: str) -> None:
        await engine.announce(MachineDied(sandbox_id, 7, "crash"))
        while (record := plane.registry.find(sandbox_id)) and record.reason is None:
            await anyio.lowlevel.checkpoint()

    engine.before_answer = die
    with pytest.raises(ServerError, match="died as it started"):
        await plane.sandboxes.create(CALLER, BASE)
    assert await stored(url) == []
    assert engine.machines == {}


async def test_a_start_fails_records_whose_machines_are_gone(engine: ScriptedEngine, url: str) -> None:
    sandbox_id = await put(url)
    async with running(engine, url) as plane:
        assert plane.sandboxes.get(CALLER, sandbox_id).status == "failed"
        assert await event_types(plane, sandbox_id) == ["recover.orphaned"]


async def test_a_start_keeps_records_whose_machines_live(engine: ScriptedEngine, url: str) -> None:
    sandbox_id = await put(url, ttl_seconds=77, persistent=True)
    engine.put(sandbox_id)
    async with running(engine, url) as plane:
        record = plane.sandboxes.get(CALLER, sandbox_id)
        assert (record.status, record.ttl_seconds, record.persistent) == ("running", 77, True)


@pytest.mark.parametrize("status", ["creating", "stopping"])
async def test_a_start_finishes_what_was_half_done(engine: ScriptedEngine, url: str, status: str) -> None:
    sandbox_id = await put(url, status=status)
    engine.put(sandbox_id)
    async with running(engine, url) as plane:
        assert plane.sandboxes.list(CALLER) == []
        assert engine.machines == {}


async def test_a_start_ends_machines_that_nobody_can_reach(engine: ScriptedEngine, url: str) -> None:
    engine.put("stranger")
    async with running(engine, url):
        assert engine.machines == {}


async def test_the_idle_clock_survives_a_restart(engine: ScriptedEngine, url: str) -> None:
    sandbox_id = await put(url, last_active_at=1000.0, persistent=True)
    engine.put(sandbox_id)
    async with running(engine, url) as plane:
        assert plane.sandboxes.idle_seconds(plane.sandboxes.get(CALLER, sandbox_id)) > 1_000_000
        async with plane.sandboxes.use(CALLER, sandbox_id):
            pass
    async with running(engine, url) as plane:
        assert plane.sandboxes.idle_seconds(plane.sandboxes.get(CALLER, sandbox_id)) < 100


async def test_the_control_plane_starts_without_its_engine_and_says_so(url: str, tmp_path: Path) -> None:
    absent = EngineClient.connect(f"unix:{tmp_path}/nothing.sock")
    async with open_control_plane(Engines.local(absent), url, QUICK) as plane:
        health = await plane.health()
        assert health["status"] == "unhealthy"
        assert health["checks"]["store"] == {"status": "ok"}
        with pytest.raises(UnavailableError):
            await plane.templates.list(CALLER)


async def test_tokens_live_until_revoked(plane: ControlPlane) -> None:
    text, record = await plane.access.create(CALLER, "laptop", None)
    assert await plane.access.identify(text) == Caller(WORKSPACE, WORKSPACE, Role.OWNER, record.prefix)
    assert text.startswith(record.prefix)
    assert text not in record.token_hash
    with pytest.raises(NotFoundError):
        await plane.access.revoke(OUTSIDER, record.prefix)
    await plane.access.revoke(CALLER, record.prefix)
    with pytest.raises(AuthError, match="invalid"):
        await plane.access.identify(text)


async def test_a_token_ends_when_it_expires(plane: ControlPlane) -> None:
    text, _ = await plane.access.create(CALLER, "old", -1)
    with pytest.raises(AuthError, match="expired"):
        await plane.access.identify(text)


async def test_the_first_token_is_made_once_and_only_if_it_can_be_delivered(plane: ControlPlane) -> None:
    def broken(_text: str) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await plane.access.first_token(broken)
    delivered: list[str] = []
    await plane.access.first_token(delivered.append)
    await plane.access.first_token(delivered.append)
    assert len(delivered) == 1
    await plane.access.identify(delivered[0])
