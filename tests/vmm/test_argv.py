"""The command line of QEMU, as data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.model.accelerator import Accelerator
from pandastack.vmm.plan import Blank, Boot, Confinement, Disk, DiskRate, MachinePlan, TapNic, UserNic
from pandastack.vmm.qemu.argv import KERNEL_CMDLINE, Listeners, qemu_argv
from pandastack.vmm.qemu.driver import cpus_on
from tests.support.plans import PLAN

QEMU = Path("/usr/bin/qemu-system-x86_64")
BOOT = Boot(Path("/k/vmlinux"), Path("/k/initramfs"))
NETNS = Path("/run/netns/pandastack-none")


def argv(plan: MachinePlan = PLAN) -> list[str]:
    return qemu_argv(QEMU, plan, Listeners(channel=7, control=8, console=9))


def values(option: str, plan: MachinePlan = PLAN) -> list[str]:
    """Every value that ``option`` is given."""
    words = argv(plan)
    return [words[index + 1] for index, word in enumerate(words) if word == option]


def test_a_restored_machine_as_a_whole() -> None:
    """The recipe: a change here is a change of the virtual hardware, and no snapshot of before can be restored."""
    assert argv() == [
        "/usr/bin/qemu-system-x86_64",
        *("-name", "pandastack-0123-4567"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        "-M",
        "microvm,acpi=on,pcie=off,rtc=on,pit=on,pic=on,x-option-roms=off,isa-serial=on,suppress-vmdesc=on,"
        "memory-backend=mem",
        *("-accel", "tcg,tb-size=64", "-cpu", "max,erms=off,vmx=off,svm=off,min-xlevel=0x80000008", "-smp", "2"),
        *("-m", "256M"),
        *("-object", "memory-backend-file,id=mem,size=256M,mem-path=/pool/memory,share=off,reserve=off"),
        *("-global", "migration.send-configuration=off", "-global", "migration.announce-rounds=0"),
        *("-chardev", "socket,id=control,fd=8,server=on,wait=off", "-mon", "chardev=control,mode=control"),
        *("-chardev", "socket,id=console,fd=9,server=on,wait=off", "-serial", "chardev:console"),
        *("-device", "virtio-serial-device,max_ports=2"),
        *("-chardev", "socket,id=channel,fd=7,server=on,wait=off"),
        *("-device", "virtserialport,chardev=channel,name=agent"),
        "-blockdev",
        '{"node-name": "d0-base", "driver": "file", "filename": "/pool/base.img", "read-only": true, '
        '"auto-read-only": false, "locking": "off", "discard": "unmap", "cache": {"no-flush": true}}',
        "-blockdev",
        '{"node-name": "d0-file", "driver": "file", "filename": "/pool/root.qcow2", "read-only": false, '
        '"auto-read-only": false, "locking": "off", "discard": "unmap", "cache": {"no-flush": true}}',
        "-blockdev",
        '{"node-name": "d0", "driver": "qcow2", "file": "d0-file", "backing": "d0-base", "discard": "unmap", '
        '"cache": {"no-flush": true}}',
        *("-device", "virtio-blk-device,drive=d0,serial=root"),
        "-blockdev",
        '{"node-name": "d1", "driver": "file", "filename": "/pool/data.img", "read-only": false, '
        '"auto-read-only": false, "locking": "off", "discard": "unmap", "cache": {"no-flush": true}}',
        *("-device", "virtio-blk-device,drive=d1,serial=data"),
        *("-incoming", "defer"),
        *("-sandbox", "on,obsolete=deny,spawn=deny,resourcecontrol=deny"),
    ]


def test_a_booting_machine_differs_only_in_how_it_starts() -> None:
    restored, booted = argv(), argv(replace(PLAN, boot=BOOT))
    start = restored.index("-incoming")
    assert booted[:start] == restored[:start]
    assert booted[start : start + 6] == [
        *("-kernel", "/k/vmlinux", "-initrd", "/k/initramfs"),
        *("-append", KERNEL_CMDLINE),
    ]
    assert booted[start + 6 :] == restored[start + 2 :]


def test_the_kernels_command_line_is_added_to() -> None:
    boot = replace(BOOT, cmdline="tsc_early_khz=2100000")
    (cmdline,) = values("-append", replace(PLAN, boot=boot, nic=UserNic(1400)))
    assert cmdline == f"{KERNEL_CMDLINE} pandastack.nic=user pandastack.mtu=1400 tsc_early_khz=2100000"
    (cmdline,) = values("-append", replace(PLAN, boot=boot, nic=TapNic(1400)))
    assert cmdline == f"{KERNEL_CMDLINE} pandastack.nic=tap pandastack.mtu=1400 tsc_early_khz=2100000"


def test_a_bake_writes_its_memory_into_the_file() -> None:
    assert "share=on" in values("-object", replace(PLAN, memory_shared=True))[0]


def test_hardware_virtualization() -> None:
    plan = replace(PLAN, accelerator=Accelerator.KVM)
    assert (values("-accel", plan), values("-cpu", plan)) == (
        ["kvm"],
        ["host,migratable=on,vmx=off,svm=off,min-xlevel=0x80000008"],
    )


@pytest.mark.parametrize(
    ("accelerator", "model"), [(Accelerator.KVM, "host,migratable=on"), (Accelerator.TCG, "max,erms=off")]
)
def test_only_a_nested_machine_can_run_machines(accelerator: Accelerator, model: str) -> None:
    assert values("-cpu", replace(PLAN, accelerator=accelerator, nested=True)) == [model]


def test_a_build_machine_has_the_hosts_network() -> None:
    assert values("-netdev") == []
    plan = replace(PLAN, nic=UserNic(1400))
    assert values("-netdev", plan) == ["user,id=n0,ipv6=off"]
    assert values("-device", plan)[-1] == "virtio-net-device,netdev=n0,host_mtu=1400"


def test_a_sandbox_has_the_same_network_device_with_a_tap_and_without() -> None:
    alone, connected = replace(PLAN, nic=TapNic(1400)), replace(PLAN, nic=TapNic(1400, fd=12))
    assert values("-netdev", alone) == ["hubport,id=n0,hubid=0"]
    assert values("-netdev", connected) == ["tap,id=n0,fd=12"]
    assert values("-device", alone) == values("-device", connected)
    assert values("-device", alone)[-1].endswith(",host_mtu=1400,mac=52:54:00:12:34:56,guest_announce=off")


def test_only_the_syncs_of_a_durable_disk_reach_the_physical_one() -> None:
    for durable in (False, True):
        plan = replace(PLAN, disks=(PLAN.disks[0], Disk("data", Path("/v"), durable=durable)))
        root, _, _, data = (json.loads(each)["cache"] for each in values("-blockdev", plan) if "cache" in each)
        assert root == {"no-flush": True} and data == {"no-flush": not durable}


def test_a_blank_disk_has_no_file_and_can_be_replaced_by_one_that_has() -> None:
    """The device stays the same but for its serial number, which is no part of a captured state."""
    root = PLAN.disks[0]
    blank, volume = (replace(PLAN, disks=(root, each)) for each in (Blank("blank0"), Disk("data", Path("/v"))))
    assert json.loads(values("-blockdev", blank)[-1]) == {
        "node-name": "d1",
        "driver": "null-co",
        "size": 512,
        "read-zeroes": True,
    }
    assert json.loads(values("-blockdev", volume)[-1])["filename"] == "/v"
    assert values("-device", blank)[-1] == "virtio-blk-device,drive=d1,serial=blank0"
    assert values("-device", volume)[-1] == "virtio-blk-device,drive=d1,serial=data"


def test_a_limited_rate_is_that_of_all_writable_disks_together() -> None:
    modules = Disk("modules", Path("/m"), readonly=True)
    plan = replace(PLAN, disks=(*PLAN.disks, Blank("blank1"), modules), disk_rate=DiskRate(1 << 20, 500))
    group = json.loads(values("-object", plan)[-1])
    assert group["limits"] == {"bps-total": 1 << 20, "iops-total": 500}
    drives = [each.split(",")[1] for each in values("-device", plan) if each.startswith("virtio-blk")]
    assert drives == ["drive=d0-rate", "drive=d1-rate", "drive=d2", "drive=d3"]
    filters = [each for each in map(json.loads, values("-blockdev", plan)) if each["driver"] == "throttle"]
    assert [(each["file"], each["throttle-group"]) for each in filters] == [("d0", group["id"]), ("d1", group["id"])]


def test_a_confined_machine_has_a_user_and_a_namespace() -> None:
    words = argv(replace(PLAN, confinement=Confinement(1000, 1001, NETNS)))
    assert words[:4] == ["nsenter", "--net=/run/netns/pandastack-none", "--", str(QEMU)]
    assert words[-2:] == ["-runas", "1000:1001"]
    without = argv(replace(PLAN, confinement=Confinement(1000, 1001)))
    assert without[0] == str(QEMU) and without[-2:] == ["-runas", "1000:1001"]


def test_a_comma_in_a_path_is_no_option() -> None:
    plan = replace(PLAN, memory=Path("/a,share=on"), disks=(Disk("root", Path('/b","read-only":false,')),))
    assert "mem-path=/a,,share=on,share=off" in values("-object", plan)[0]
    assert json.loads(values("-blockdev", plan)[0])["filename"] == '/b","read-only":false,'


@pytest.mark.parametrize("accelerator", list(Accelerator))
def test_the_isolation_is_named_honestly(accelerator: Accelerator) -> None:
    assert ("not hardware isolation" in accelerator.isolation) == (accelerator is Accelerator.TCG)


def test_the_cpu_is_that_of_the_command_line() -> None:
    """A captured state is tied to it, on hosts with the same CPU."""
    cpus = cpus_on("0011")
    assert cpus == {Accelerator.TCG: "max:0011", Accelerator.KVM: "host:0011"}
    for accelerator in Accelerator:
        (model,) = values("-cpu", replace(PLAN, accelerator=accelerator))
        assert model.split(",")[0] == cpus[accelerator].split(":")[0]
