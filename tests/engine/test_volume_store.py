"""Volumes without machines: their files, and origins that sandboxes with volumes begin from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandastack.disks.pool import RESERVE
from pandastack.engine import origins
from pandastack.engine.origins.origin import BootOrigin
from pandastack.engine.origins.start import Host, plan_start
from pandastack.engine.origins.volumes import LEAST_MB, MIB, VolumeStore, format_new
from pandastack.engine.sandboxes.admission import find_volume_refusal
from pandastack.engine.spec import Attachment, SandboxSpec
from pandastack.errors import ConflictError, NotFoundError, ServerError
from pandastack.host.files import allocated_bytes
from pandastack.host.processes.run import run
from pandastack.model.accelerator import Accelerator
from pandastack.snapshots.manifest import Manifest, volume_name
from tests.support.manifests import HERE, MANIFEST
from tests.support.origins import captured

GIB = 1024**3
ONE, TWO = Attachment("one", "/mnt/one", 0), Attachment("two", "/mnt/two", 1, read_only=True)


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    return VolumeStore(tmp_path / "volumes")


async def add(store: VolumeStore, volume: str, data: bytes = b"data") -> None:
    async with store.adding(volume) as path:
        path.write_bytes(data)


@pytest.mark.anyio
async def test_a_volume_appears_as_a_whole_and_goes(store: VolumeStore) -> None:
    async with store.adding("a") as path:
        path.write_bytes(b"12345")
        assert store.ids() == [] and not store.has("a")
    assert store.ids() == ["a"] and store.size("a") == 5
    store.remove("a")
    with pytest.raises(NotFoundError) as gone:
        store.remove("a")
    assert gone.value.field == "id"
    with pytest.raises(NotFoundError):
        store.size("a")


@pytest.mark.anyio
async def test_of_two_volumes_with_one_id_the_first_stays(store: VolumeStore, tmp_path: Path) -> None:
    with pytest.raises(ConflictError) as second:
        async with store.adding("a") as path:
            path.write_bytes(b"second")
            await add(store, "a", b"first")
    assert second.value.field == "volume" and store.path("a").read_bytes() == b"first"
    assert len(list((tmp_path / "volumes").iterdir())) == 1


@pytest.mark.anyio
async def test_a_volume_that_could_not_be_made_leaves_nothing(store: VolumeStore, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        async with store.adding("a") as path:
            path.write_bytes(b"12345")
            raise RuntimeError
    assert list((tmp_path / "volumes").iterdir()) == []


@pytest.mark.anyio
async def test_what_a_killed_engine_did_not_finish_is_swept(store: VolumeStore, tmp_path: Path) -> None:
    await add(store, "a")
    (tmp_path / "volumes" / ".new-b").write_bytes(b"half")
    assert VolumeStore(tmp_path / "volumes").ids() == ["a"]
    assert len(list((tmp_path / "volumes").iterdir())) == 1


@pytest.mark.anyio
async def test_a_machines_disk_becomes_the_volume(store: VolumeStore, tmp_path: Path) -> None:
    await add(store, "a", b"old")
    disk = tmp_path / "disk"
    disk.write_bytes(b"newer")
    for _ in range(2):  # the second time it is already
        await store.settle("a", disk)
        assert disk.samefile(store.path("a"))
    disk.write_bytes(b"even newer")
    assert store.path("a").read_bytes() == b"even newer"
    disk.unlink()
    assert store.size("a") == 10 and len(list((tmp_path / "volumes").iterdir())) == 1
    with pytest.raises(ServerError):  # the machine is gone
        await store.settle("a", disk)
    assert store.size("a") == 10


@pytest.mark.anyio
async def test_a_volume_grows_and_never_shrinks(store: VolumeStore) -> None:
    await add(store, "a", bytes(8))
    store.grow("a", 5 * MIB)
    store.grow("a", MIB)
    assert store.size("a") == 5 * MIB and store.total_mb() == 5


@pytest.mark.anyio
@pytest.mark.parametrize("size_mb", [LEAST_MB, 1024, 64 * 1024, 1024 * 1024])
async def test_a_new_volume_takes_little_of_the_hosts_disk(tmp_path: Path, size_mb: int) -> None:
    path = tmp_path / "disk"
    await format_new(path, size_mb * MIB)
    assert path.stat().st_size == size_mb * MIB
    assert allocated_bytes(path) < 2 * MIB + size_mb * 20
    told = (await run(["dumpe2fs", "-h", path])).text
    assert "has_journal" in told and f"Block count:              {size_mb * 256}" in told


def test_a_sandbox_with_volumes_begins_with_clones_of_them(tmp_path: Path) -> None:
    contents = [tmp_path / "one", tmp_path / "two"]
    for number, path in enumerate(contents):
        path.write_bytes(bytes([number]) * 4096)
    origin = origins.attach(captured(tmp_path / "template"), [ONE, TWO], contents)
    assert origin.manifest.disks == ("root", "volume0", "volume1")
    assert (origin.manifest.mounts, origin.manifest.read_only) == (("/mnt/one", "/mnt/two"), ("volume1",))
    assert Manifest.from_json(origin.manifest.to_json()) == origin.manifest
    machine = tmp_path / "machine"
    machine.mkdir()
    blank = origins.link_base(origin, machine)
    assert [each.path.stat().st_size for each in blank.snapshot.disks[1:]] == [4096, 4096]
    assert not origins.fits(captured(tmp_path / "other"), origin)
    own = origins.copy_state(origin, machine)
    for disk, path in zip(own.snapshot.disks[1:], contents, strict=True):
        assert disk.path.read_bytes() == path.read_bytes() and not disk.path.samefile(path)
    assert own.attached == ()  # what the machine has, it has: its captures attach nothing
    assert origins.load(machine).manifest.mounts == ("/mnt/one", "/mnt/two")


def test_a_template_boots_with_volumes_where_its_memory_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 4096)
    origin = origins.attach(captured(tmp_path / "template"), [ONE], [tmp_path / "one"])
    host = Host("another", {Accelerator.TCG: MANIFEST.cpu_flags}, Accelerator.TCG)
    start = plan_start(origin, host, boot=True)
    assert isinstance(start, BootOrigin) and start.attached == (tmp_path / "one",)
    machine = tmp_path / "machine"
    machine.mkdir()
    own = origins.copy_disks(start, machine)
    assert own.snapshot.disks[1].path.read_bytes() == b"x" * 4096
    (tmp_path / "one").unlink()
    with pytest.raises(ConflictError):
        plan_start(origin, host, boot=True)


def test_only_a_template_without_volumes_is_attached_to_nothing(tmp_path: Path) -> None:
    origin = captured(tmp_path / "template")
    assert [each.path for each in origins.sources(origin)] == [origin.snapshot.root]
    assert origin.snapshot.find_obstacle(HERE) is None
    with_one = origins.attach(origin, [ONE], [tmp_path / "one"])
    assert with_one.snapshot.find_obstacle(HERE) is None, "the stamp of the root disk still counts, and only that"


def test_a_sandbox_that_sleeps_remembers_its_volumes(tmp_path: Path) -> None:
    spec = SandboxSpec("id", "name", {"A": "1"}, volumes=(ONE, TWO))
    origins.write_spec(tmp_path, spec)
    assert origins.read_spec(tmp_path) == spec
    assert spec.written == {0: "one"}
    assert volume_name(1) == "volume1"


@pytest.mark.parametrize(
    ("asked", "promised", "free", "reason"),
    [
        (100, 0, 5 * GIB, None),
        (10 * 1024, 10 * 1024, 5 * GIB, None),
        (10 * 1024 + 1, 10 * 1024, 5 * GIB, "provisioned"),
        (1, 0, RESERVE - 1, "free_space"),
    ],
)
def test_room_for_volumes(asked: int, promised: int, free: int, reason: str | None) -> None:
    refusal = find_volume_refusal(asked, promised, (10 * GIB, free), 2.0)
    assert (refusal.detail["reason"] if refusal else None) == reason
    if refusal:
        assert refusal.status_code == 507 and "volume" in refusal.message and refusal.hint
        assert set(refusal.detail) == {
            *("reason", "provisioned_bytes", "fs_size_bytes", "fs_free_bytes", "oversub_factor", "free_reserve_bytes")
        }
