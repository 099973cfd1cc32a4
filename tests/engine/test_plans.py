"""Layout, slots, plans and image sizes: what the engine computes without touching the host."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.engine.build.host import kernel_parameters, with_disks
from pandastack.engine.build.install import recipe_folders, shipped_recipes
from pandastack.engine.build.pack import image_size
from pandastack.engine.engine import open_engine
from pandastack.engine.layout import FIRST_UID, SLOTS, Layout
from pandastack.engine.machines.allocation import Allocation
from pandastack.engine.machines.plan import BootSpec, boot_plan, restore_plan
from pandastack.engine.machines.slots import Slots
from pandastack.errors import BuildError, CapacityError, NotFoundError, ServerError
from pandastack.host.lock import FileLock
from pandastack.model.accelerator import Accelerator
from pandastack.network.slot import NetworkSlot
from pandastack.snapshots.manifest import Snapshot
from pandastack.vmm.plan import Boot, Confinement, Disk, UserNic
from tests.support.manifests import MANIFEST

LAYOUT = Layout(Path("/data"), Path("/cache"))
SNAPSHOT = Snapshot(Path("/pool/snapshots/0123"), MANIFEST)
NETNS = Path("/run/netns/none")


def allocation(*, confinable: bool) -> Allocation:
    return Allocation(
        "beef", 7, Path("/pool/machines/beef"), Path("/run/x/beef"), NetworkSlot(NETNS), GROUPS, confinable
    )


GROUPS = (Path("/sys/fs/cgroup/x"),)


def test_a_restored_machine_is_what_its_snapshot_says() -> None:
    plan = restore_plan(LAYOUT, allocation(confinable=True), Path("/pool/images/a.erofs"), SNAPSHOT)
    assert plan.name == f"pandastack-{LAYOUT.tag}-beef"
    assert (plan.cpus, plan.memory_mb, plan.accelerator) == (2, 512, Accelerator.TCG)
    assert plan.boot is None and not plan.memory_shared and plan.nic is None
    assert plan.memory == SNAPSHOT.memory
    assert plan.disks == (
        Disk("image", Path("/pool/images/a.erofs"), readonly=True),
        Disk("root", Path("/pool/machines/beef/disk.img")),
    )
    assert plan.confinement == Confinement(LAYOUT.uid(7), LAYOUT.uid(7), NETNS, GROUPS)


def test_a_machine_has_the_disks_of_its_snapshot_in_its_own_directory() -> None:
    snapshot = Snapshot(SNAPSHOT.directory, replace(MANIFEST, disks=("root", "data")))
    plan = restore_plan(LAYOUT, allocation(confinable=False), Path("/i"), snapshot)
    assert [(disk.name, str(disk.path)) for disk in plan.disks[1:]] == [
        ("root", "/pool/machines/beef/disk.img"),
        ("data", "/pool/machines/beef/disk-data.img"),
    ]


def test_without_root_nothing_is_confined() -> None:
    assert restore_plan(LAYOUT, allocation(confinable=False), Path("/i"), SNAPSHOT).confinement is None


def test_a_booted_machine() -> None:
    spec = BootSpec(
        name="n",
        boot=Boot(Path("/k"), Path("/i")),
        cpus=1,
        memory_mb=128,
        memory=Path("/m"),
        disks=(Disk("image", Path("/a"), readonly=True),),
        sockets=Path("/s"),
        accelerator=Accelerator.KVM,
        keep_memory=True,
        nic=UserNic(1400),
    )
    plan = boot_plan(with_disks(spec, readonly=(Path("/b"),), writable=(Path("/c"),)))
    assert plan.disks == (
        Disk("image", Path("/a"), True),
        Disk("extra0", Path("/b"), True),
        Disk("extra1", Path("/c"), False),
    )
    assert (plan.boot, plan.memory_shared, plan.nic) == (spec.boot, True, UserNic(1400))
    assert plan.sockets.channel == Path("/s/channel")


def test_engines_on_one_host_share_no_user() -> None:
    one, other = Layout(Path("/a"), Path("/c")), Layout(Path("/b"), Path("/c"))
    assert one.tag != other.tag and one.tag == Layout(Path("/a/../a"), Path("/elsewhere")).tag
    assert {one.uid(slot) for slot in (0, SLOTS - 2)}.isdisjoint({other.uid(slot) for slot in (0, SLOTS - 2)})
    assert one.build_uid not in {one.uid(slot) for slot in range(SLOTS - 1)}
    for layout in (one, other):
        assert FIRST_UID <= layout.uid(0) < layout.build_uid < 2**32 - 2


def test_sockets_have_room_for_their_names() -> None:
    deep = Layout(Path("/" + "x" * 200), Path("/c"))
    assert len(str(deep.sockets / "0123456789ab" / "channel")) < 108


def test_slots_are_the_lowest_free_and_come_back() -> None:
    slots = Slots(2)
    with slots.take() as first:
        with slots.take() as second:
            assert (first, second) == (0, 1)
            with pytest.raises(CapacityError, match="no compute capacity"), slots.take():
                raise AssertionError("there is none")
        with slots.take() as again:
            assert again == 1
    with pytest.raises(KeyError), slots.take():
        raise KeyError
    with slots.take() as last:
        assert last == 0


def erofs(path: Path, *, magic: int = 0xE0F5E1E2, bits: int = 12, blocks: int = 3, size: int = 4 * 4096) -> Path:
    """A file with an EROFS superblock: magic, checksum, features, block size bits, …, blocks at offset 36."""
    block = bytearray(128)
    struct.pack_into("<I", block, 0, magic)
    struct.pack_into("<B", block, 12, bits)
    struct.pack_into("<I", block, 36, blocks)
    path.write_bytes(bytes(1024) + block)
    with path.open("r+b") as file:
        file.truncate(size)
    return path


def test_the_size_of_an_image(tmp_path: Path) -> None:
    assert image_size(erofs(tmp_path / "i")) == 3 * 4096
    assert image_size(erofs(tmp_path / "whole", blocks=4)) == 4 * 4096
    assert image_size(erofs(tmp_path / "small", bits=9, blocks=10)) == 5120


@pytest.mark.parametrize(
    "lie", [{"magic": 1}, {"blocks": 0}, {"blocks": 5}, {"blocks": 2**32 - 1}, {"bits": 0}, {"bits": 60}, {"bits": 255}]
)
def test_an_image_that_lies_is_refused(tmp_path: Path, lie: dict[str, int]) -> None:
    """The disk comes from a guest: what it says of itself is checked before the host cuts a file by it."""
    with pytest.raises(BuildError):
        image_size(erofs(tmp_path / "i", **lie))


def test_a_disk_that_is_too_short_for_an_image(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"x" * 1030)
    with pytest.raises(BuildError):
        image_size(tmp_path / "short")


def test_the_recipes_that_come_along() -> None:
    shipped = shipped_recipes()
    assert list(shipped) == ["base", "code-interpreter"]
    assert recipe_folders([], shipped) == list(shipped.values())
    assert recipe_folders(["base"], shipped) == [shipped["base"]]


def test_a_folder_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "Dockerfile").write_text("FROM base\n")
    monkeypatch.chdir(tmp_path)
    assert recipe_folders(["base"], shipped_recipes()) == [Path("base")]
    with pytest.raises(NotFoundError) as unknown:
        recipe_folders(["base", "nothing"], {"one": Path("/one")})
    assert "one" in (unknown.value.hint or "")


def test_only_an_emulated_guest_is_told_its_clocks_rate_and_to_keep_addresses_fixed() -> None:
    assert kernel_parameters(Accelerator.KVM) == ""
    assert kernel_parameters(Accelerator.TCG).split(" tsc_early_khz=")[0] == "norandmaps"


@pytest.mark.anyio
async def test_a_data_directory_has_one_engine(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path / "cache")
    with FileLock(layout.engine / "engine.lock") as lock:
        assert lock.try_exclusive()
        with pytest.raises(ServerError, match=f"another engine already uses {tmp_path}"):
            async with open_engine(layout):
                raise AssertionError("the directory is taken")
    assert not (layout.engine / "pool").exists()
