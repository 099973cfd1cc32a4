"""Layout, slots, plans and image sizes: what the engine computes without touching the host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.engine.build.install import shipped_recipes
from pandastack.engine.engine import open_engine
from pandastack.engine.layout import FIRST_UID, MACHINES, SLOTS, Layout
from pandastack.engine.machines.allocation import Allocation
from pandastack.engine.machines.boot import kernel_parameters, size_parameters
from pandastack.engine.machines.cable import Cable
from pandastack.engine.machines.plan import BootSpec, boot_plan, booted_plan, disk_rate_of, restore_plan
from pandastack.engine.machines.slots import Slots
from pandastack.errors import CapacityError, ServerError
from pandastack.host.lock import FileLock
from pandastack.model.accelerator import Accelerator
from pandastack.network.slot import NetworkSlot
from pandastack.snapshots.manifest import Snapshot
from pandastack.vmm.plan import Blank, Boot, Confinement, Disk, DiskRate, TapNic, UserNic
from tests.support.manifests import MANIFEST, TEMPLATE

LAYOUT = Layout(Path("/data"), Path("/cache"))
SNAPSHOT = Snapshot(Path("/pool/snapshots/0123"), MANIFEST)
NETNS = Path("/run/netns/none")


def allocation(*, confinable: bool) -> Allocation:
    return Allocation("beef", 7, Path("/pool/machines/beef"), Path("/run/x/beef"), NETNS, GROUPS, confinable)


GROUPS = (Path("/sys/fs/cgroup/x"),)


def test_a_restored_machine_has_the_hardware_of_its_snapshot() -> None:
    plan = restore_plan(LAYOUT, allocation(confinable=True), SNAPSHOT)
    assert plan.name == f"pandastack-{LAYOUT.tag}-beef"
    assert (plan.cpus, plan.memory_mb, plan.accelerator) == (4, 2048, Accelerator.TCG)
    assert plan.boot is None and not plan.memory_shared and plan.nic == TapNic(1400)
    assert plan.memory == SNAPSHOT.memory
    assert plan.disks == (
        Disk("root", Path("/pool/machines/beef/root.qcow2"), base=Path("/pool/snapshots/0123/base.img")),
        Blank("blank0"),
        Blank("blank1"),
        Disk("modules", Path("/pool/machines/beef/modules.img"), readonly=True),
    )
    assert plan.confinement == Confinement(LAYOUT.uid(7), LAYOUT.uid(7), NETNS, GROUPS)


def test_a_machine_has_the_disks_of_its_snapshot_in_its_own_directory() -> None:
    snapshot = Snapshot(SNAPSHOT.directory, replace(MANIFEST, disks=("root", "data")))
    plan = restore_plan(LAYOUT, allocation(confinable=False), snapshot)
    assert plan.disks == (
        Disk("root", Path("/pool/machines/beef/root.qcow2"), base=snapshot.base),
        Disk("data", Path("/pool/machines/beef/disk-data.img"), durable=True),
        Blank("blank1"),
        Disk("modules", Path("/pool/machines/beef/modules.img"), readonly=True),
    )


def test_a_machine_whose_slot_has_a_tap_is_connected_to_it() -> None:
    connected = replace(allocation(confinable=False), cable=Cable(NetworkSlot(3, "ps-x", NETNS, tap=12)))
    assert restore_plan(LAYOUT, connected, SNAPSHOT).nic == TapNic(1400, fd=12)


def test_a_templates_disk_rate_comes_before_the_hosts() -> None:
    default = DiskRate(5 << 20, 700)
    assert disk_rate_of(TEMPLATE, default) == default
    assert disk_rate_of(replace(TEMPLATE, disk_mb_per_second=9), default) == DiskRate(9 << 20, 700)
    plan = restore_plan(LAYOUT, allocation(confinable=False), SNAPSHOT, default)
    assert plan.disk_rate == default and restore_plan(LAYOUT, allocation(confinable=False), SNAPSHOT) != plan


def test_a_machine_that_boots_can_be_restored_as_any_other() -> None:
    """Its devices are those of a machine without a guest: what is captured of the one is loaded into the other."""
    snapshot = Snapshot(SNAPSHOT.directory, replace(MANIFEST, base_disk=True))
    booted = booted_plan(LAYOUT, allocation(confinable=True), snapshot)
    parameters = f"{kernel_parameters(Accelerator.TCG)} maxcpus=2 movable_node pandastack.memory=512"
    assert booted.boot == Boot(snapshot.kernel, snapshot.initramfs, parameters)
    assert not booted.memory_shared
    assert replace(booted, boot=None) == restore_plan(LAYOUT, allocation(confinable=True), snapshot)
    assert booted.disks[-1] == Disk("base", Path("/pool/machines/beef/base.img"), readonly=True)


def test_what_a_guest_does_not_get_of_its_hardware_is_out_of_use_from_the_boot() -> None:
    assert size_parameters(MANIFEST, 256) == "maxcpus=2 movable_node pandastack.memory=256"
    assert size_parameters(replace(MANIFEST, cpus=4), 2048) == ""


def test_without_root_nothing_is_confined() -> None:
    assert restore_plan(LAYOUT, allocation(confinable=False), SNAPSHOT).confinement is None


def test_a_booted_machine() -> None:
    spec = BootSpec(
        name="n",
        boot=Boot(Path("/k"), Path("/i")),
        cpus=1,
        memory_mb=128,
        memory=Path("/m"),
        disks=(Disk("root", Path("/a")),),
        sockets=Path("/s"),
        accelerator=Accelerator.KVM,
        keep_memory=True,
        nic=UserNic(1400),
    )
    plan = boot_plan(spec)
    assert plan.disks == (Disk("root", Path("/a")),)
    assert (plan.boot, plan.memory_shared, plan.nic) == (spec.boot, True, UserNic(1400))
    assert plan.sockets.channel == Path("/s/channel")


def test_engines_on_one_host_share_no_user() -> None:
    one, other = Layout(Path("/a"), Path("/c")), Layout(Path("/b"), Path("/c"))
    assert one.tag != other.tag and one.tag == Layout(Path("/a/../a"), Path("/elsewhere")).tag
    assert {one.uid(slot) for slot in (0, SLOTS - 1)}.isdisjoint({other.uid(slot) for slot in (0, SLOTS - 1)})
    special = {one.build_uid, one.egress_uid, one.broker_uid, one.gateway_uid}
    assert len(special) == 4 and special.isdisjoint({one.uid(slot) for slot in range(MACHINES)})
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


def test_the_recipes_that_come_along() -> None:
    databases = ["postgres", "postgres-16g", "postgres-4g"]
    assert list(shipped_recipes()) == ["agent", "base", "code-interpreter", "docker", *databases]


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
