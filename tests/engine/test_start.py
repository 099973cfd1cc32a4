"""Whether a machine is restored or boots: decided by manifests and host alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.engine import origins
from pandastack.engine.origins.origin import BootOrigin
from pandastack.engine.origins.start import Host, plan_start
from pandastack.errors import ConflictError, PandastackError
from pandastack.guest.keys import VERSION
from pandastack.model.accelerator import Accelerator
from pandastack.snapshots.manifest import FORMAT, Manifest
from tests.support.manifests import MANIFEST, TEMPLATE
from tests.support.origins import captured

TCG, KVM = Accelerator.TCG, Accelerator.KVM
HOST = Host(MANIFEST.vmm, {TCG: MANIFEST.cpu_flags}, TCG)


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


OBSTACLES = {
    "another VMM": {"vmm": "qemu 99"},
    "another CPU": {"cpu_flags": "max:ffff"},
    "an accelerator that is not here": {"accelerator": "kvm", "cpu_flags": "host:0011"},
    "another format": {"format": FORMAT + 1},
    "another agent": {"protocol": VERSION + 1},
    "no memory": {"memory_lost": "the host was restarted"},
}


def test_what_fits_is_restored(tmp_path: Path) -> None:
    origin = captured(tmp_path / "one")
    assert plan_start(origin, HOST, boot=True) is origin
    assert plan_start(origin, HOST, boot=False) is origin


@pytest.mark.parametrize("change", OBSTACLES.values(), ids=OBSTACLES)
def test_what_does_not_fit_boots_or_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    origin = captured(tmp_path / "one", replace(MANIFEST, **change))  # type: ignore[arg-type]
    current = captured(tmp_path / "two", replace(MANIFEST, key="now", kernel_release="6.1.1", modules="m2"))
    start = plan_start(origin, HOST, boot=True, current=current)
    assert isinstance(start, BootOrigin)
    made = start.snapshot.manifest
    assert (made.vmm, made.cpu_flags, made.accelerator, made.format) == (HOST.vmm, HOST.cpus[TCG], "tcg", FORMAT)
    assert (made.protocol, made.memory_lost, made.parent) == (VERSION, "", origin.key)
    assert start.reason == (change.get("memory_lost") or start.reason) and origin.key[:12] not in made.key
    with pytest.raises(ConflictError) as refused:
        plan_start(origin, HOST, boot=False, current=current)
    assert start.reason in refused.value.message


@pytest.mark.parametrize("changed", ["memory", "root.qcow2"])
def test_memory_is_never_put_over_other_disks_than_its_own(tmp_path: Path, changed: str) -> None:
    """An older disk under newer memory, or the reverse: the guest's kernel would write to places that moved."""
    origin = captured(tmp_path / "one")
    touched(origin.snapshot.directory / changed)
    with pytest.raises(ConflictError, match="was changed after it was"):
        plan_start(origin, HOST, boot=False)
    start = plan_start(origin, HOST, boot=True)
    assert isinstance(start, BootOrigin) and "was changed after it was" in start.reason


def test_the_kernel_is_that_of_the_disks_unless_its_agent_is_not_understood(tmp_path: Path) -> None:
    current = captured(tmp_path / "now", replace(MANIFEST, key="now", kernel_release="6.1.99"))
    for protocol, release in ((VERSION, MANIFEST.kernel_release), (VERSION + 1, "6.1.99")):
        origin = captured(tmp_path / str(protocol), replace(MANIFEST, vmm="another", protocol=protocol))
        start = plan_start(origin, HOST, boot=True, current=current)
        assert isinstance(start, BootOrigin)
        assert start.snapshot.manifest.kernel_release == release
        assert start.starter.directory == (origin if protocol == VERSION else current).snapshot.directory


def test_without_a_kernel_nothing_boots(tmp_path: Path) -> None:
    origin = captured(tmp_path / "one", replace(MANIFEST, vmm="another"), bootable=False)
    with pytest.raises(ConflictError, match="was made with vmm another"):
        plan_start(origin, HOST, boot=True)


def test_disks_of_the_first_format_do_not_boot(tmp_path: Path) -> None:
    """They had no base, and another name."""
    origin = captured(tmp_path / "one", replace(MANIFEST, format=1))
    origin.snapshot.base.unlink()
    with pytest.raises(ConflictError, match="was made with format 1"):
        plan_start(origin, HOST, boot=True, current=captured(tmp_path / "two"))


def test_a_new_guest_gets_the_accelerator_that_was_tried_here(tmp_path: Path) -> None:
    origin = captured(tmp_path / "one", replace(MANIFEST, vmm="another"))
    host = Host(MANIFEST.vmm, {TCG: MANIFEST.cpu_flags, KVM: "host:0011"}, KVM)
    start = plan_start(origin, host, boot=True)
    assert (start.snapshot.manifest.accelerator, start.snapshot.manifest.cpu_flags) == ("kvm", "host:0011")


def test_a_machine_that_boots_has_the_disks_and_an_empty_memory(tmp_path: Path) -> None:
    origin = captured(tmp_path / "one", replace(MANIFEST, vmm="another", memory_mb=2, max_memory_mb=4))
    start = plan_start(origin, HOST, boot=True)
    assert isinstance(start, BootOrigin)
    (tmp_path / "machine").mkdir()
    own = origins.copy_disks(start, tmp_path / "machine")
    assert own.snapshot.root.read_bytes() == origin.snapshot.root.read_bytes()
    assert own.snapshot.memory.read_bytes() == bytes(4 * 2**20)  # all of its hardware's
    for name in ("base.img", "modules.img", "kernel", "initramfs"):
        assert (tmp_path / "machine" / name).samefile(tmp_path / "one" / name)
    own.snapshot.check_memory()
    assert origins.load(tmp_path / "machine").snapshot == own.snapshot
    assert not (tmp_path / "machine" / "devices").exists()


def test_a_machine_that_boots_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    """Its disk grows once its VMM runs; the manifest, which a capture or another engine reads, has the size at once."""
    origin = captured(tmp_path / "one", replace(MANIFEST, vmm="another", max_memory_mb=512))
    wanted = replace(origin, resized=replace(origin.size, disk_mb=2048))
    start = plan_start(wanted, HOST, boot=True)
    assert isinstance(start, BootOrigin) and start.size == wanted.size
    (tmp_path / "machine").mkdir()
    assert origins.copy_disks(start, tmp_path / "machine").size == wanted.size
    assert origins.load(tmp_path / "machine").size == wanted.size


def test_a_machine_of_a_former_format_boots_with_what_it_had_and_the_devices_of_today(tmp_path: Path) -> None:
    later = ("max_cpus", "max_memory_mb", "min_memory_mb", "mtu", "volumes", "disk_stamps", "base_disk")
    written = json.loads(replace(MANIFEST, format=2, parent="p").to_json())
    read = Manifest.from_json(json.dumps({key: value for key, value in written.items() if key not in later}).encode())
    origin = captured(tmp_path / "one", read, bootable=False)
    start = plan_start(origin, HOST, boot=True, current=captured(tmp_path / "two"))
    assert isinstance(start, BootOrigin) and "was made with format 2" in start.reason
    made = start.snapshot.manifest
    assert (made.size, made.max_cpus, made.max_memory_mb) == (MANIFEST.size, MANIFEST.cpus, MANIFEST.memory_mb)
    assert (made.mtu, made.volumes, made.base_disk) == (MANIFEST.mtu, MANIFEST.volumes, True)


def test_kept_disks_have_no_memory(tmp_path: Path) -> None:
    machine = captured(tmp_path / "machine")
    (tmp_path / "machine" / "template.json").write_text(json.dumps(TEMPLATE.to_json()))
    (tmp_path / "machine" / "manifest.json").write_bytes(machine.snapshot.manifest.to_json())
    (tmp_path / "kept").mkdir()
    origins.keep_disks(tmp_path / "machine", tmp_path / "kept", "its VMM was killed")
    kept = origins.load(tmp_path / "kept")
    assert kept.snapshot.manifest.memory_lost == "its VMM was killed"
    assert not kept.snapshot.memory.exists() and not kept.snapshot.devices.exists()
    start = plan_start(kept, HOST, boot=True)
    assert isinstance(start, BootOrigin) and start.reason == "its VMM was killed"
    (tmp_path / "broken").mkdir()
    machine.snapshot.root.write_bytes(b"torn")
    with pytest.raises(PandastackError):
        origins.keep_disks(tmp_path / "machine", tmp_path / "broken", "a crash")
