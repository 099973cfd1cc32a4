"""Volumes of a workspace: against a scripted engine and a real database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest

from pandastack.contract.volumes import AttachVolume, MountRef, OwnVolume, VolumeInfo, VolumeRef
from pandastack.errors import (
    BadRequestError,
    ConflictError,
    GuestError,
    NotFoundError,
    PandastackError,
    QuotaError,
    ServerError,
    StorageFullError,
    UnavailableError,
)
from pandastack.model.caller import Caller
from pandastack.services import ControlPlane
from pandastack.services.records.spec import WantedVolume
from pandastack.services.sandboxes.placement import place
from pandastack.services.volumes.spec import LARGEST_MB, NewVolume, OfMount, OfVolume, checked_mounts
from pandastack.store import volumes as table
from pandastack.store.sandboxes import SandboxRecord, Status
from pandastack.store.volumes import SNAPSHOT, VolumeRecord, VolumeState, VolumeUse
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.plane import BASE, CALLER, OUTSIDER, QUICK, WORKSPACE, add_workspace, event_types, running

pytestmark = pytest.mark.anyio

DATA = NewVolume("data", 512)


async def sandbox(
    plane: ControlPlane, *names: str, read_only: bool = False, caller: Caller = CALLER, **more: Any
) -> SandboxRecord:
    volumes = tuple(WantedVolume(each, read_only) for each in names)
    return await plane.sandboxes.create(caller, replace(BASE, volumes=volumes, **more))


async def stored(plane: ControlPlane) -> list[VolumeRecord]:
    async with plane.store.read() as connection:
        return await table.of_node(connection, "local")


async def put(
    plane: ControlPlane, name: str, state: VolumeState, volume_id: str = "a" * 8 + "-0000-4000-8000-" + "0" * 12
) -> str:
    async with plane.store.write() as connection:
        await table.add(connection, VolumeRecord(volume_id, WORKSPACE, name, 512, "volume", state, 1.0))
    return volume_id


async def test_the_life_of_a_volume(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        made = await plane.volumes.create(CALLER, DATA)
        assert (made.record.name, made.record.size_mb, made.record.state, made.size_bytes) == (
            "data",
            512,
            "ready",
            4096,
        )
        assert engine.volumes.disks[made.record.id].size_mb == 512
        assert await plane.volumes.list(CALLER) == [made] == [await plane.volumes.get(CALLER, "data")]
        with pytest.raises(ConflictError, match="data exists already"):
            await plane.volumes.create(CALLER, DATA)
        await plane.volumes.delete(CALLER, "data")
        assert (await plane.volumes.list(CALLER), engine.volumes.disks) == ([], {})
        with pytest.raises(NotFoundError):
            await plane.volumes.delete(CALLER, "data")


async def test_a_volume_has_a_default_size(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        assert (await plane.volumes.create(CALLER, NewVolume("data"))).record.size_mb == 256


async def test_volumes_of_another_workspace_are_not_found(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await add_workspace(plane, "other")
        made = await plane.volumes.create(CALLER, DATA)
        assert await plane.volumes.list(OUTSIDER) == []
        for call in (
            plane.volumes.get(OUTSIDER, "data"),
            plane.volumes.by_id(OUTSIDER, made.record.id),
            plane.volumes.grow(OUTSIDER, "data", 1024),
            plane.volumes.delete(OUTSIDER, "data"),
            plane.volumes.create(OUTSIDER, NewVolume("copy", source=OfVolume("data"))),
        ):
            with pytest.raises(NotFoundError):
                await call
        with pytest.raises(BadRequestError, match="unknown volume 'data'"):
            await sandbox(plane, "data", caller=OUTSIDER)
        theirs = await plane.volumes.create(OUTSIDER, DATA)
        assert theirs.record.id != made.record.id
        holder = await sandbox(plane, "data")
        with pytest.raises(NotFoundError, match="sandbox not found"):
            await plane.volumes.create(OUTSIDER, NewVolume("copy", source=OfMount(holder.id, "/mnt/data")))


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (NewVolume(""), "name"),
        (NewVolume("a b"), "name"),
        (NewVolume("a\n"), "name"),
        (NewVolume(".."), "name"),
        (NewVolume("."), "name"),
        (NewVolume("a/b"), "name"),
        (NewVolume("x" * 65), "name"),
        (NewVolume("data", 0), "size_mb"),
        (NewVolume("data", -1), "size_mb"),
        (NewVolume("data", LARGEST_MB + 1), "size_mb"),
        (NewVolume("data", kind="disk"), "kind"),
        (NewVolume("data", kind=SNAPSHOT), "from"),
        (NewVolume("data", source=OfVolume("../x")), "from.volume"),
        (NewVolume("data", source=OfMount("id", "mnt")), "from.mount"),
        (NewVolume("data", source=OfMount("id", "/mnt/../etc")), "from.mount"),
    ],
)
async def test_bad_volumes_are_refused_before_anything_is_made(
    engine: ScriptedEngine, url: str, wanted: NewVolume, field: str
) -> None:
    async with running(engine, url) as plane:
        with pytest.raises(BadRequestError) as raised:
            await plane.volumes.create(CALLER, wanted)
        assert raised.value.field == field
        assert (engine.volumes.disks, await stored(plane)) == ({}, [])


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ([WantedVolume("..")], "volumes.0.name"),
        ([WantedVolume("a"), WantedVolume("b", path="data")], "volumes.1.path"),
        ([WantedVolume("a", path="/")], "volumes.0.path"),
        ([WantedVolume("a", path="/mnt/")], "volumes.0.path"),
        ([WantedVolume("a", path="/mnt/../etc")], "volumes.0.path"),
        ([WantedVolume("a", path="/mnt\0")], "volumes.0.path"),
        ([WantedVolume("a", path="/" + "x" * 300)], "volumes.0.path"),
        ([WantedVolume("a", path="/proc/self")], "volumes.0.path"),
        ([WantedVolume("a", path="/dev")], "volumes.0.path"),
        ([WantedVolume("a"), WantedVolume("a", path="/b")], "volumes.1.name"),
        ([WantedVolume("a"), WantedVolume("a", True, "/b")], "volumes.1.name"),
        ([WantedVolume("a", path="/x"), WantedVolume("b", path="/x")], "volumes.1.path"),
        ([WantedVolume("a", path="/x"), WantedVolume("b", path="/x/y")], "volumes.1.path"),
        ([WantedVolume("a", path="/x/y"), WantedVolume("b", path="/x")], "volumes.1.path"),
        ([WantedVolume(f"v{n}") for n in range(15)], "volumes"),
    ],
)
def test_mounts_that_cannot_be(wanted: list[WantedVolume], field: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        checked_mounts(wanted)
    assert raised.value.field == field


def test_mounts_are_below_mnt_unless_they_say_otherwise() -> None:
    uses = checked_mounts([WantedVolume("a"), WantedVolume("b", True, "/srv/b"), WantedVolume("c", path="/devices")])
    assert [(use.name, use.path, use.read_only) for use in uses] == [
        ("a", "/mnt/a", False),
        ("b", "/srv/b", True),
        ("c", "/devices", False),
    ]
    assert len(checked_mounts([WantedVolume(f"v{n}") for n in range(14)])) == 14


def test_a_sandbox_goes_where_its_volumes_are() -> None:
    assert place(["one", "two"], None) == "one"
    assert place(["one", "two"], None, "two") == "two"


async def test_a_sandbox_gets_its_volumes_in_order(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        ids = [(await plane.volumes.create(CALLER, NewVolume(name))).record.id for name in ("a", "b")]
        wanted = (WantedVolume("b"), WantedVolume("a", True, "/srv/a"))
        made = await plane.sandboxes.create(CALLER, replace(BASE, volumes=wanted))
        expected = AttachVolume(ids[1], "/mnt/b"), AttachVolume(ids[0], "/srv/a", True)
        assert engine.volumes.attached[made.id] == expected
        assert made.volumes == (VolumeUse("/mnt/b", False, ids[1], "b"), VolumeUse("/srv/a", True, ids[0], "a"))
        assert (await event_types(plane, made.id)).count("volume.attached") == 2
        [a, b] = await plane.volumes.list(CALLER)
        assert [(each.sandbox_id, each.path, each.read_only) for each in a.holders] == [(made.id, "/srv/a", True)]
        assert [(each.sandbox_id, each.path, each.read_only) for each in b.holders] == [(made.id, "/mnt/b", False)]


async def test_one_writes_and_others_read(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        writer = await sandbox(plane, "data")
        readers = [await sandbox(plane, "data", read_only=True) for _ in range(2)]
        before = list(engine.calls)
        with pytest.raises(ConflictError, match=writer.id) as raised:
            await sandbox(plane, "data")
        assert raised.value.field == "volumes.0.name"
        assert raised.value.detail == {"sandbox_ids": [writer.id]}
        assert engine.calls == before, "the engine is not asked"
        assert len(plane.registry.all()) == 3, "no record of it is left"
        with pytest.raises(ConflictError, match="and 2 more"):
            await plane.volumes.delete(CALLER, "data")
        for each in readers:
            await plane.sandboxes.delete(CALLER, each.id)
        with pytest.raises(ConflictError, match=writer.id):
            await plane.volumes.delete(CALLER, "data")
        await plane.sandboxes.delete(CALLER, writer.id)
        second = await sandbox(plane, "data")
        await plane.sandboxes.delete(CALLER, second.id)
        await plane.volumes.delete(CALLER, "data")


async def test_of_two_creates_at_once_one_writes(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        outcomes: list[str] = []

        async def create() -> None:
            try:
                outcomes.append((await sandbox(plane, "data")).status)
            except ConflictError:
                outcomes.append("refused")

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(create)
        assert sorted(outcomes) == ["refused"] * 3 + ["running"]


async def test_a_hibernated_sandbox_has_its_volume_still(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        holder = await sandbox(plane, "data")
        await plane.lifecycle.hibernate(CALLER, holder.id)
        with pytest.raises(ConflictError, match=holder.id):
            await sandbox(plane, "data")
        with pytest.raises(ConflictError, match=holder.id):
            await plane.volumes.delete(CALLER, "data")


async def test_a_failed_sandbox_has_it_only_while_a_checkpoint_can_restore_it(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        first = await sandbox(plane, "data")
        del engine.machines[first.id]
        await plane.registry.move(plane.registry.get(first.id), Status.FAILED, reason="test")
        assert (await plane.volumes.get(CALLER, "data")).holders == ()
        second = await sandbox(plane, "data")
        await plane.timeline.checkpoint(CALLER, second.id, "now")
        del engine.machines[second.id]
        await plane.registry.move(plane.registry.get(second.id), Status.FAILED, reason="test")
        with pytest.raises(ConflictError, match=second.id):
            await sandbox(plane, "data")
        await plane.sandboxes.delete(CALLER, second.id)
        await plane.volumes.delete(CALLER, "data")


async def test_a_failed_create_leaves_its_volume_free(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        engine.refusals["create"] = ServerError("no")
        with pytest.raises(ServerError):
            await sandbox(plane, "data")
        engine.refusals.clear()
        assert (await plane.volumes.get(CALLER, "data")).holders == ()
        await sandbox(plane, "data")


async def test_what_the_engine_refuses_has_names_and_our_fields(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        made = (await plane.volumes.create(CALLER, DATA)).record
        busy, detail = f"volume {made.id} is attached to sandbox x", {"holder": "x"}
        for action in ("create", "create_volume", "grow_volume", "delete_volume"):
            field = {"create": "volumes[0].volume", "create_volume": "start_from.id"}.get(action, "id")
            engine.refusals[action] = ConflictError(busy, field=field, hint="wake it", detail=detail)
        calls = {
            "volumes.0.name": lambda: sandbox(plane, "data"),
            "from.volume": lambda: plane.volumes.create(CALLER, NewVolume("copy", source=OfVolume("data"))),
            "grow": lambda: plane.volumes.grow(CALLER, "data", 1024),
            "delete": lambda: plane.volumes.delete(CALLER, "data"),
        }
        for field, call in calls.items():
            with pytest.raises(ConflictError, match="volume data is attached to sandbox x") as raised:
                await call()
            assert raised.value.field == (field if "." in field else None)
            assert (raised.value.hint, raised.value.detail) == ("wake it", detail)
        engine.refusals = {
            "create": BadRequestError("volumes: a sandbox of template base has places for 4", field="volumes")
        }
        with pytest.raises(BadRequestError, match="has places for 4") as refused:
            await sandbox(plane, "data")
        assert refused.value.field == "volumes"
        engine.refusals = {"create": BadRequestError("a file is there", field="volumes[0]")}
        with pytest.raises(BadRequestError, match="a file is there") as refused:
            await sandbox(plane, "data")
        assert refused.value.field == "volumes.0.path"


async def test_a_disk_that_is_missing_is_not_mistaken_for_a_template(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        engine.volumes.disks.clear()
        with pytest.raises(ConflictError, match="missing") as raised:
            await sandbox(plane, "data")
        assert raised.value.field == "volumes"
        with pytest.raises(ConflictError, match="missing"):
            await plane.volumes.create(CALLER, NewVolume("copy", source=OfVolume("data")))
        with pytest.raises(ConflictError, match="missing"):
            await plane.volumes.grow(CALLER, "data", 1024)
        assert [each.name for each in await stored(plane)] == ["data"]
        assert (await plane.volumes.get(CALLER, "data")).record.size_mb == 512


async def test_growing(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        made = await plane.volumes.create(CALLER, DATA)
        holder = await sandbox(plane, "data")
        grown = await plane.volumes.grow(CALLER, "data", 1024)
        assert (grown.record.size_mb, engine.volumes.disks[made.record.id].size_mb) == (1024, 1024)
        assert (await plane.volumes.grow(CALLER, "data", 1024)).record.size_mb == 1024
        assert (await event_types(plane, holder.id)).count("volume.grown") == 1
        with pytest.raises(BadRequestError, match="does not shrink"):
            await plane.volumes.grow(CALLER, "data", 512)
        for size in (0, LARGEST_MB + 1):
            with pytest.raises(BadRequestError, match="size_mb"):
                await plane.volumes.grow(CALLER, "data", size)


async def test_the_size_is_that_of_the_disk(engine: ScriptedEngine, url: str) -> None:
    """A rewind goes back to a time before a volume grew."""
    async with running(engine, url) as plane:
        made = (await plane.volumes.create(CALLER, DATA)).record
        await plane.volumes.grow(CALLER, "data", 1024)
        engine.volumes.disks[made.id] = replace(engine.volumes.disks[made.id], size_mb=512)
        assert (await plane.volumes.grow(CALLER, "data", 768)).record.size_mb == 768
        engine.volumes.disks[made.id] = replace(engine.volumes.disks[made.id], size_mb=512)
        assert [each.record.size_mb for each in await plane.volumes.list(CALLER)] == [512]
        assert [each.size_mb for each in await stored(plane)] == [512]


@pytest.mark.parametrize("error", [StorageFullError("full"), UnavailableError("gone"), BadRequestError("too small")])
async def test_what_the_engine_does_not_grow_has_its_former_size(
    engine: ScriptedEngine, url: str, error: PandastackError
) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        engine.refusals["grow_volume"] = error
        with pytest.raises(type(error)):
            await plane.volumes.grow(CALLER, "data", 1024)
        assert [each.size_mb for each in await stored(plane)] == [512]


@pytest.mark.parametrize("error", [StorageFullError("full"), BadRequestError("too small", field="size_mb")])
async def test_what_the_engine_does_not_make_leaves_no_record(
    engine: ScriptedEngine, url: str, error: PandastackError
) -> None:
    async with running(engine, url) as plane:
        engine.refusals["create_volume"] = error
        with pytest.raises(type(error)):
            await plane.volumes.create(CALLER, DATA)
        assert await stored(plane) == []


async def test_clones_and_snapshots(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        data = (await plane.volumes.create(CALLER, DATA)).record
        copy = (await plane.volumes.create(CALLER, NewVolume("copy", 1024, OfVolume("data")))).record
        kept = (await plane.volumes.create(CALLER, NewVolume("kept", None, OfVolume("data"), SNAPSHOT))).record
        assert engine.volumes.sources[copy.id] == engine.volumes.sources[kept.id] == VolumeRef(data.id)
        assert (copy.size_mb, kept.size_mb, kept.kind) == (1024, 512, SNAPSHOT)
        with pytest.raises(BadRequestError, match="not smaller"):
            await plane.volumes.create(CALLER, NewVolume("small", 256, OfVolume("data")))
        with pytest.raises(NotFoundError) as raised:
            await plane.volumes.create(CALLER, NewVolume("more", None, OfVolume("none")))
        assert raised.value.field == "from.volume"
        with pytest.raises(BadRequestError, match="read_only"):
            await sandbox(plane, "kept")
        await sandbox(plane, "kept", read_only=True)
        with pytest.raises(ConflictError, match="snapshot"):
            await plane.volumes.grow(CALLER, "kept", 1024)
        again = (await plane.volumes.create(CALLER, NewVolume("again", None, OfVolume("kept")))).record
        assert (again.kind, engine.volumes.sources[again.id]) == ("volume", VolumeRef(kept.id))


async def test_copies_of_a_sandbox_have_clones_of_their_own(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        parent = await sandbox(plane, "data")
        await plane.volumes.grow(CALLER, "data", 1024)
        [child] = (await plane.forks.fork(CALLER, parent.id, {})).children
        assert child.volumes == (VolumeUse("/mnt/data", size_mb=1024),)
        snapshot = await plane.timeline.snapshot(CALLER, parent.id, "now")
        restored = await plane.sandboxes.create(CALLER, replace(BASE, snapshot=snapshot.id))
        assert restored.volumes == child.volumes
        assert engine.volumes.attached[restored.id] == (), "the engine restores what the snapshot has"
        [data] = await plane.volumes.list(CALLER)
        assert [each.sandbox_id for each in data.holders] == [parent.id]
        kept = (await plane.volumes.create(CALLER, NewVolume("kept", None, OfMount(child.id, "/mnt/data")))).record
        assert (kept.size_mb, engine.volumes.sources[kept.id]) == (1024, MountRef(child.id, "/mnt/data"))
        assert "volume.kept" in await event_types(plane, child.id)
        with pytest.raises(NotFoundError, match="no volume mounted at /mnt/none") as raised:
            await plane.volumes.create(CALLER, NewVolume("none", None, OfMount(child.id, "/mnt/none")))
        assert raised.value.field == "from.mount"
        brought = OfMount(child.id, "/var/lib/of-the-template")
        assert (await plane.volumes.create(CALLER, NewVolume("brought", 2048, brought))).record.size_mb == 2048
        assert {each.name for each in await stored(plane)} == {"data", "kept", "brought"}


async def test_quotas(engine: ScriptedEngine, url: str) -> None:
    settings = replace(QUICK, max_volumes=2, max_volume_mb=1536)
    async with running(engine, url, settings) as plane:
        await add_workspace(plane, "other")
        await plane.volumes.create(CALLER, DATA)
        with pytest.raises(QuotaError, match="1536 MiB") as raised:
            await plane.volumes.create(CALLER, NewVolume("large", 1025))
        assert raised.value.detail == {"used_mb": 512, "wanted_mb": 1025, "max_mb": 1536}
        await plane.volumes.create(OUTSIDER, NewVolume("large", 1536))
        parent = await sandbox(plane, "data")
        with pytest.raises(QuotaError):
            await plane.forks.fork(CALLER, parent.id, {}, 3)
        assert len(plane.registry.all()) == 1
        [child] = (await plane.forks.fork(CALLER, parent.id, {})).children
        with pytest.raises(QuotaError):
            await plane.volumes.grow(CALLER, "data", 1025)
        snapshot = await plane.timeline.snapshot(CALLER, parent.id, "now")
        await plane.volumes.grow(CALLER, "data", 1024)
        with pytest.raises(QuotaError):
            await plane.sandboxes.create(CALLER, replace(BASE, snapshot=snapshot.id))
        await plane.sandboxes.delete(CALLER, child.id)
        await plane.sandboxes.create(CALLER, replace(BASE, snapshot=snapshot.id))
        await plane.volumes.delete(OUTSIDER, "large")
        await plane.volumes.create(OUTSIDER, NewVolume("a", 1))
        await plane.volumes.create(OUTSIDER, NewVolume("b", 1))
        with pytest.raises(QuotaError, match="at most 2 volumes"):
            await plane.volumes.create(OUTSIDER, NewVolume("c", 1))


async def test_volumes_that_a_template_brings_count_as_clones(engine: ScriptedEngine, url: str) -> None:
    engine.template_volumes = (OwnVolume("/var/lib/own", 512),)
    async with running(engine, url, replace(QUICK, max_volume_mb=1536)) as plane:
        await plane.volumes.create(CALLER, DATA)
        parent = await sandbox(plane, "data")
        assert [(each.path, each.name, each.size_mb) for each in parent.volumes] == [
            ("/var/lib/own", None, 512),
            ("/mnt/data", "data", 0),
        ]
        with pytest.raises(QuotaError) as raised:  # it has clones of both
            await plane.forks.fork(CALLER, parent.id, {})
        assert raised.value.detail == {"used_mb": 1024, "wanted_mb": 1024, "max_mb": 1536}
        second = await plane.sandboxes.create(CALLER, BASE)
        with pytest.raises(QuotaError):
            await plane.sandboxes.create(CALLER, BASE)
        assert {each.id for each in plane.registry.all()} == {parent.id, second.id} == engine.machines.keys()
        kept = OfMount(second.id, "/var/lib/own")
        with pytest.raises(QuotaError):
            await plane.volumes.create(CALLER, NewVolume("kept", None, kept))
        await plane.sandboxes.delete(CALLER, parent.id)
        assert (await plane.volumes.create(CALLER, NewVolume("kept", None, kept))).record.size_mb == 512


async def test_a_volume_of_a_sandboxs_own_grows(engine: ScriptedEngine, url: str) -> None:
    own = "/var/lib/own"
    engine.template_volumes = (OwnVolume(own, 512),)
    async with running(engine, url, replace(QUICK, max_volume_mb=2048)) as plane:
        await plane.volumes.create(CALLER, DATA)
        made = await sandbox(plane, "data")
        await plane.lifecycle.hibernate(CALLER, made.id)
        engine.calls.clear()
        for path, size_mb, error in (
            (own, 511, BadRequestError),
            (own, 1537, QuotaError),
            ("/mnt/data", 1024, ConflictError),
        ):
            with pytest.raises(error):
                await plane.own_volumes.grow(CALLER, made.id, path, size_mb)
        with pytest.raises(NotFoundError):
            await plane.own_volumes.grow(OUTSIDER, made.id, own, 1024)
        assert engine.calls == [], "what is refused wakes nothing"
        await plane.own_volumes.grow(CALLER, made.id, own, 1024)
        assert engine.calls == [f"wake {made.id}", f"grow_own {made.id}"]
        assert engine.volumes.grown[made.id] == OwnVolume(own, 1024)
        record = plane.registry.get(made.id)
        assert record.volumes == (VolumeUse(own, size_mb=1024), made.volumes[1])
        assert (await event_types(plane, made.id)).count("volume.grown") == 1
        await plane.own_volumes.grow(CALLER, made.id, own, 1024)
        assert (await event_types(plane, made.id)).count("volume.grown") == 1
        await plane.volumes.grow(CALLER, "data", 1024)
        with pytest.raises(QuotaError) as raised:
            await plane.own_volumes.grow(CALLER, made.id, own, 1025)
        assert raised.value.detail == {"used_mb": 2048, "wanted_mb": 1, "max_mb": 2048}


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (StorageFullError("full"), 512),
        (NotFoundError("no"), 512),
        (UnavailableError("?"), 1024),
        (GuestError("?"), 1024),
    ],
)
async def test_a_growth_that_fails_can_be_repeated(
    engine: ScriptedEngine, url: str, error: PandastackError, kept: int
) -> None:
    own = "/var/lib/own"
    engine.template_volumes = (OwnVolume(own, 512),)
    async with running(engine, url) as plane:
        made = await plane.sandboxes.create(CALLER, BASE)
        engine.refusals["grow_own"] = error
        with pytest.raises(type(error)):
            await plane.own_volumes.grow(CALLER, made.id, own, 1024)
        assert plane.registry.get(made.id).volumes == (VolumeUse(own, size_mb=kept),)
    engine.refusals.clear()
    async with running(engine, url) as plane:
        await plane.own_volumes.grow(CALLER, made.id, own, 1024)
        assert plane.registry.get(made.id).volumes == (VolumeUse(own, size_mb=1024),)
        assert engine.volumes.grown[made.id] == OwnVolume(own, 1024)


async def test_a_start_finishes_what_was_interrupted(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        half = await put(plane, "half", VolumeState.CREATING)
        engine.volumes.disks[half] = VolumeInfo(half, 512, 0)
        going = await put(plane, "going", VolumeState.DELETING, "b" * 8 + half[8:])
        assert [each.record.name for each in await plane.volumes.list(CALLER)] == ["data"]
        with pytest.raises(NotFoundError):
            await plane.volumes.get(CALLER, "half")
        with pytest.raises(BadRequestError, match="unknown volume"):
            await sandbox(plane, "going")
    async with running(engine, url) as plane:
        assert [each.name for each in await stored(plane)] == ["data"]
        assert half not in engine.volumes.disks and going not in engine.volumes.disks


async def test_a_record_without_a_disk_is_lost_until_the_disk_is_back(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        made = (await plane.volumes.create(CALLER, DATA)).record
    disk = engine.volumes.disks.pop(made.id)
    async with running(engine, url) as plane:
        assert (await plane.volumes.get(CALLER, "data")).record.state is VolumeState.LOST
        with pytest.raises(ConflictError, match="missing"):
            await sandbox(plane, "data")
        with pytest.raises(ConflictError, match="missing"):
            await plane.volumes.grow(CALLER, "data", 1024)
        with pytest.raises(ConflictError, match="missing"):
            await plane.volumes.create(CALLER, NewVolume("copy", source=OfVolume("data")))
    engine.volumes.disks[made.id] = replace(disk, size_mb=640)
    async with running(engine, url) as plane:
        found = (await plane.volumes.get(CALLER, "data")).record
        assert (found.state, found.size_mb) == (VolumeState.READY, 640)
    engine.volumes.disks.clear()
    async with running(engine, url) as plane:
        await plane.volumes.delete(CALLER, "data")
        assert await stored(plane) == []


async def test_a_disk_without_a_record_is_left_alone(engine: ScriptedEngine, url: str) -> None:
    unknown = "c" * 8 + "-0000-4000-8000-" + "0" * 12
    engine.volumes.disks[unknown] = VolumeInfo(unknown, 512, 4096)
    async with running(engine, url) as plane:
        assert await plane.volumes.list(CALLER) == []
    assert unknown in engine.volumes.disks


async def test_a_deletion_that_fails_is_repeated(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        engine.refusals["delete_volume"] = UnavailableError("gone")
        with pytest.raises(UnavailableError):
            await plane.volumes.delete(CALLER, "data")
        with pytest.raises(NotFoundError):
            await plane.volumes.get(CALLER, "data")
        engine.refusals["delete_volume"] = ConflictError("sandbox x has the volume")
        with pytest.raises(ConflictError):
            await plane.volumes.delete(CALLER, "data")
        assert (await plane.volumes.get(CALLER, "data")).record.state is VolumeState.READY
        engine.refusals.clear()
        await plane.volumes.delete(CALLER, "data")
        assert engine.volumes.disks == {}


async def test_leases_are_there_after_a_restart(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        holder = await sandbox(plane, "data")
    engine.put(holder.id)
    async with running(engine, url) as plane:
        assert plane.registry.get(holder.id).volumes == holder.volumes
        with pytest.raises(ConflictError, match=holder.id):
            await sandbox(plane, "data")


async def test_volumes_are_listed_while_their_engine_is_away(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        await plane.volumes.create(CALLER, DATA)
        engine.app.routes[:] = [each for each in engine.app.routes if each not in engine.volumes.routes]
        [found] = await plane.volumes.list(CALLER)
        assert (found.record.size_mb, found.size_bytes) == (512, None)
        assert (await plane.volumes.get(CALLER, "data")).size_bytes is None
