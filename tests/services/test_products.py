"""Sandboxes that are the machines of products: what members may do with them, and what only the product may."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import anyio
import pytest

from pandastack.contract.records import STDOUT, Output
from pandastack.errors import BadRequestError, ConflictError, GuestError, NotFoundError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.model.network import Egress, NetworkPolicy
from pandastack.services import ControlPlane
from pandastack.services.processes.spec import Command
from pandastack.services.records.spec import LifecyclePatch
from pandastack.services.volumes.spec import NewVolume, OfMount
from pandastack.store.sandboxes import SandboxRecord, Status
from tests.cluster.scripted_engine import ScriptedEngine, result
from tests.support.plane import BASE, CALLER, OUTSIDER, QUICK, WORKSPACE, running

pytestmark = pytest.mark.anyio

SERVER = Caller.server(WORKSPACE)
MACHINE = replace(BASE, product="database", persistent=True)
ANOTHER = "11111111-0000-4000-8000-000000000000"


async def machine(plane: ControlPlane, **more: object) -> SandboxRecord:
    return await plane.sandboxes.create(SERVER, replace(MACHINE, **more))  # type: ignore[arg-type]


async def execute(plane: ControlPlane, caller: Caller, sandbox_id: str) -> None:
    async with plane.commands.stream(caller, sandbox_id, Command("true", 5)) as records:
        async for _ in records:
            pass


async def asleep(plane: ControlPlane, sandbox_id: str) -> None:
    async for event in plane.events.follow(sandbox_id, None, lambda: True):
        if event.type == "sandbox.hibernated":
            return


USES: dict[str, Callable[[ControlPlane, Caller, str], Awaitable[object]]] = {
    "delete": lambda plane, caller, key: plane.sandboxes.delete(caller, key),
    "exec": execute,
    "fork": lambda plane, caller, key: plane.forks.fork(caller, key, {}),
    "fork_tree": lambda plane, caller, key: plane.forks.fork_tree(caller, key, {}, 1),
    "snapshot": lambda plane, caller, key: plane.timeline.snapshot(caller, key),
    "checkpoint": lambda plane, caller, key: plane.timeline.checkpoint(caller, key),
    "pause": lambda plane, caller, key: plane.lifecycle.pause(caller, key),
    "hibernate": lambda plane, caller, key: plane.lifecycle.hibernate(caller, key),
    "wake": lambda plane, caller, key: plane.lifecycle.wake(caller, key),
    "set_lifecycle": lambda plane, caller, key: plane.sandboxes.set_lifecycle(caller, key, LifecyclePatch(60)),
    "files": lambda plane, caller, key: plane.file_operations.mkdir(caller, key, "/x", None),
    "network": lambda plane, caller, key: plane.networks.set(caller, key, NetworkPolicy(Egress.NONE)),
    "volume": lambda plane, caller, key: plane.volumes.create(caller, NewVolume("v", source=OfMount(key, "/mnt"))),
    "port": lambda plane, caller, key: plane.ports.add(caller, key, 80, None),
    "preview": lambda plane, caller, key: plane.previews.create_token(caller, key, 80, None, ()),
}


@pytest.mark.parametrize("use", USES)
async def test_a_member_cannot_use_the_machine_of_a_product(engine: ScriptedEngine, url: str, use: str) -> None:
    async with running(engine, url) as plane:
        made = await machine(plane)
        calls = len(engine.calls)
        with pytest.raises(ConflictError, match="is the machine of a database") as refused:
            await USES[use](plane, CALLER, made.id)
        assert refused.value.hint == f"use /v1/databases/{made.id} instead"
        with pytest.raises(NotFoundError):
            await USES[use](plane, OUTSIDER, made.id)
        assert engine.calls[calls:] == []
        assert plane.sandboxes.get(CALLER, made.id).status is Status.RUNNING
        assert [each.id for each in plane.sandboxes.list(CALLER)] == [made.id]


async def test_there_are_no_previews_and_no_ssh_to_it(engine: ScriptedEngine, url: str) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqLMAS7sTHTHfSvBxZQvlIcVOkyJ3+eMVDgEu9tOeOS"
    async with running(engine, url) as plane:
        mine, own = await machine(plane), await plane.sandboxes.create(CALLER, BASE)
        fingerprint = (await plane.ssh.add(CALLER, key, "k")).fingerprint
        assert await plane.ssh.allows(own.id, fingerprint) and not await plane.ssh.allows(mine.id, fingerprint)
        with pytest.raises(NotFoundError):
            await plane.previews.route(mine.id, 80, None, checked=True)
        await plane.previews.route(own.id, 80, None, checked=True)
        plane.sandboxes.service_kinds.check_one(WORKSPACE, f"sandbox:{own.id}:80", "services")
        with pytest.raises(BadRequestError):
            plane.sandboxes.service_kinds.check_one(WORKSPACE, f"sandbox:{mine.id}:80", "services")


async def test_a_copy_is_a_machine_of_the_product_too(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        made = await machine(plane, always_on=True)
        copy = await plane.forks.copy(SERVER, made.id, ANOTHER, {"a": "b"})
        assert (copy.id, copy.product, copy.persistent, copy.always_on) == (ANOTHER, "database", True, False)
        assert (copy.metadata["a"], copy.metadata["fork_parent_id"], copy.status) == ("b", made.id, "running")
        with pytest.raises(ConflictError, match="is the machine of a database"):
            await plane.forks.copy(CALLER, made.id, ANOTHER, {})


async def test_what_is_always_on_is_not_hibernated(engine: ScriptedEngine, url: str) -> None:
    settings = replace(QUICK, idle_after=0.05)
    async with running(engine, url, settings) as plane:
        awake, other = await machine(plane, always_on=True), await machine(plane)
        await asleep(plane, other.id)
        assert plane.registry.get(awake.id).status is Status.RUNNING
        await plane.sandboxes.set_lifecycle(SERVER, awake.id, LifecyclePatch(always_on=False))
        await asleep(plane, awake.id)


async def test_a_machine_at_work_is_hibernated_when_that_has_ended(engine: ScriptedEngine, url: str) -> None:
    asked, ended = list[str](), anyio.Event()

    async def is_at_work(record: SandboxRecord) -> bool:
        asked.append(record.id)
        was_over = ended.is_set()
        if len(asked) == 3:
            ended.set()
        return not was_over

    async with running(engine, url, replace(QUICK, idle_after=0.05)) as plane:
        plane.lifecycle.at_work["database"] = is_at_work
        made = await machine(plane)
        await ended.wait()
        assert plane.registry.get(made.id).status is Status.RUNNING
        await asleep(plane, made.id)
        assert set(asked) == {made.id}


async def test_a_look_inside_neither_wakes_nor_counts_as_use(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        made = await machine(plane)
        plane.activity.start(made.id, at=1.0)
        assert await plane.interior.output(SERVER, made.id, "x", 5, look=True) == b"hello\n"
        assert plane.activity.last_active(made.id) == 1.0
        await plane.lifecycle.hibernate(SERVER, made.id)
        with pytest.raises(UnavailableError, match="is hibernated"):
            await plane.interior.output(SERVER, made.id, "x", 5, look=True)
        with pytest.raises(UnavailableError, match="is hibernated"):
            async with plane.interior.connect(SERVER, made.id, "/run/x", look=True):
                pass
        assert await plane.interior.output(SERVER, made.id, "x", 5) == b"hello\n"
        assert plane.registry.get(made.id).status is Status.RUNNING


async def test_a_program_that_fails_inside_is_an_error(engine: ScriptedEngine, url: str) -> None:
    async def fails(_spec: object) -> AsyncIterator[object]:
        yield Output(STDOUT, b"half")
        yield result(3)

    async with running(engine, url) as plane:
        made = await machine(plane)
        engine.exec_records = fails  # type: ignore[assignment]
        with pytest.raises(GuestError) as failed:
            await plane.interior.output(SERVER, made.id, "x", 5)
        assert failed.value.detail == {"exit_code": 3}
