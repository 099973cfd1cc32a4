"""Two engines behind one control plane: every operation goes to the engine that has the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
import pytest

from pandastack.cluster import EngineClient, Engines
from pandastack.contract.events import MachineDied
from pandastack.errors import BadRequestError, ConflictError, StorageFullError, UnavailableError
from pandastack.model.node import LOCAL_NODE
from pandastack.services import ControlPlane, open_control_plane
from pandastack.services.records.spec import NewSandbox, WantedVolume
from pandastack.services.sandboxes.placement import place
from pandastack.services.volumes.spec import NewVolume, OfMount
from pandastack.store import volumes
from tests.cluster.scripted_engine import ScriptedEngine, sandbox_info
from tests.support.plane import BASE, CALLER, QUICK, put, stored, used

pytestmark = pytest.mark.anyio

FAR = "far"
STRANGER = "c" * 36
VOLUME = "d" * 8 + "-0000-4000-8000-" + "0" * 12


def client(engine: ScriptedEngine) -> EngineClient:
    return EngineClient.in_process(engine.app)


@pytest.fixture
def near() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def far() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def elsewhere(far: ScriptedEngine, url: str) -> str:
    """A sandbox on the far node."""
    sandbox_id = await put(url, node=FAR, persistent=True)
    far.machines[sandbox_id] = sandbox_info(sandbox_id)
    return sandbox_id


@pytest.fixture
async def plane(near: ScriptedEngine, far: ScriptedEngine, elsewhere: str, url: str) -> AsyncIterator[ControlPlane]:
    engines = Engines({LOCAL_NODE: client(near), FAR: client(far)})
    async with open_control_plane(engines, url, replace(QUICK, max_checkpoints=1)) as opened:
        with anyio.fail_after(20):
            yield opened


async def test_operations_go_to_the_node_of_the_sandbox(
    plane: ControlPlane, near: ScriptedEngine, far: ScriptedEngine, elsewhere: str
) -> None:
    await plane.lifecycle.hibernate(CALLER, elsewhere)
    await used(plane, elsewhere)
    assert (await plane.commands.run(CALLER, elsewhere, plane.commands.plan("true", None))).exit_code == 0
    (child,) = (await plane.forks.fork(CALLER, elsewhere, {})).children
    assert child.node == FAR
    taken = [await plane.timeline.checkpoint(CALLER, elsewhere) for _ in range(2)]
    assert {each.node for each in taken} == {FAR}
    assert list(far.snapshots) == [taken[1].id]
    await plane.timeline.rewind(CALLER, elsewhere, taken[1].id)
    await plane.sandboxes.delete(CALLER, elsewhere)
    assert far.snapshots == {}
    assert list(far.machines) == [child.id]
    assert (near.machines, near.snapshots, near.calls) == ({}, {}, [])


async def test_a_sandbox_is_made_where_its_snapshot_is(
    plane: ControlPlane, near: ScriptedEngine, far: ScriptedEngine, elsewhere: str
) -> None:
    snapshot = await plane.timeline.snapshot(CALLER, elsewhere)
    copy = await plane.sandboxes.create(CALLER, NewSandbox(snapshot=snapshot.id))
    other = await plane.sandboxes.create(CALLER, BASE)
    assert (copy.node, other.node) == (FAR, LOCAL_NODE)
    assert (copy.id in far.machines, list(near.machines)) == (True, [other.id])
    assert place([LOCAL_NODE, FAR], None) == LOCAL_NODE
    with pytest.raises(BadRequestError, match="another node"):
        await plane.diffs.diff(CALLER, other.id, "now", copy.id, False)


async def test_each_node_is_held_against_its_own_records(
    near: ScriptedEngine, far: ScriptedEngine, elsewhere: str, url: str
) -> None:
    near.machines[elsewhere] = sandbox_info(elsewhere)  # on a node that its record does not name
    far.machines[STRANGER] = sandbox_info(STRANGER)
    async with open_control_plane(Engines({LOCAL_NODE: client(near), FAR: client(far)}), url, QUICK) as plane:
        assert plane.registry.get(elsewhere).status == "running"
        assert (near.machines, list(far.machines)) == ({}, [elsewhere])


async def test_only_the_node_of_a_sandbox_can_report_its_death(
    plane: ControlPlane, near: ScriptedEngine, far: ScriptedEngine, elsewhere: str
) -> None:
    mine = await plane.sandboxes.create(CALLER, BASE)
    await near.announce(MachineDied(elsewhere, 1, "a lie"))
    await near.announce(MachineDied(mine.id, 1, "killed"))
    async for event in plane.events.follow(mine.id, None, lambda: True):
        if event.type == "vm.died":
            break
    assert plane.registry.get(elsewhere).status == "running"
    await far.announce(MachineDied(elsewhere, 1, "killed"))
    async for event in plane.events.follow(elsewhere, None, lambda: True):
        if event.type == "vm.died":
            break
    with pytest.raises(ConflictError, match="killed"):
        await used(plane, elsewhere)


async def test_storage_is_freed_on_the_node_that_needs_it(
    plane: ControlPlane, near: ScriptedEngine, far: ScriptedEngine, elsewhere: str
) -> None:
    other = await plane.sandboxes.create(CALLER, BASE)
    for record in (plane.registry.get(elsewhere), other):
        await plane.timeline.take(record, None, automatic=True)
    far.refusals["hibernate"] = StorageFullError("full")
    with pytest.raises(StorageFullError):
        await plane.lifecycle.hibernate(CALLER, elsewhere)
    assert (len(near.snapshots), len(far.snapshots)) == (1, 0)


async def test_an_engine_that_is_away_takes_no_other_with_it(
    near: ScriptedEngine, elsewhere: str, url: str, tmp_path: object
) -> None:
    absent = EngineClient.connect(f"unix:{tmp_path}/nothing.sock")
    async with open_control_plane(Engines({FAR: absent, LOCAL_NODE: client(near)}), url, QUICK) as plane:
        health = await plane.health()
        assert (health["status"], health["checks"]["engine"]["status"]) == ("unhealthy", "ok")
        assert health["checks"]["engine far"]["status"] == "unhealthy"
        near.machines.clear()
        assert plane.registry.get(elsewhere).status == "running"  # nobody knows better


async def test_a_sandbox_on_a_node_that_has_left_is_unavailable(near: ScriptedEngine, elsewhere: str, url: str) -> None:
    async with open_control_plane(Engines.local(client(near)), url, QUICK) as plane:
        with pytest.raises(UnavailableError, match="node far"):
            await plane.commands.run(CALLER, elsewhere, plane.commands.plan("true", None))
    assert [record.id for record in await stored(url)] == [elsewhere]


async def test_a_sandbox_is_made_where_its_volumes_are(
    plane: ControlPlane, near: ScriptedEngine, far: ScriptedEngine, elsewhere: str
) -> None:
    here = (await plane.volumes.create(CALLER, NewVolume("here"))).record
    async with plane.store.write() as connection:
        await volumes.add(connection, replace(here, id=VOLUME, name="there", node=FAR))
    far.volumes.disks[VOLUME] = replace(near.volumes.disks[here.id], id=VOLUME)
    made = await plane.sandboxes.create(CALLER, replace(BASE, volumes=(WantedVolume("there"),)))
    assert (made.node, list(far.volumes.attached)) == (FAR, [made.id])
    copy = (await plane.volumes.create(CALLER, NewVolume("copy", source=OfMount(made.id, "/mnt/there")))).record
    assert (copy.node, copy.id in far.volumes.disks) == (FAR, True)
    with pytest.raises(BadRequestError, match=r"here is on node .*, copy on far") as raised:
        await plane.sandboxes.create(CALLER, replace(BASE, volumes=(WantedVolume("here"), WantedVolume("copy"))))
    assert raised.value.field == "volumes"
    assert {each.record.name: each.size_bytes for each in await plane.volumes.list(CALLER)} == {
        "copy": 4096,
        "here": 4096,
        "there": 4096,
    }
