"""The command line of QEMU, as data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.model.accelerator import Accelerator
from pandastack.vmm.plan import Boot, Confinement, Disk, MachinePlan, UserNic
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
        *("-accel", "tcg,tb-size=64", "-cpu", "max,erms=off", "-smp", "2"),
        *("-m", "256M"),
        *("-object", "memory-backend-file,id=mem,size=256M,mem-path=/pool/memory,share=off,reserve=off"),
        *("-global", "migration.send-configuration=off"),
        *("-chardev", "socket,id=control,fd=8,server=on,wait=off", "-mon", "chardev=control,mode=control"),
        *("-chardev", "socket,id=console,fd=9,server=on,wait=off", "-serial", "chardev:console"),
        *("-device", "virtio-serial-device,max_ports=2"),
        *("-chardev", "socket,id=channel,fd=7,server=on,wait=off"),
        *("-device", "virtserialport,chardev=channel,name=agent"),
        "-drive",
        "if=none,id=d0,file=/pool/root.erofs,format=raw,readonly=on,auto-read-only=off,cache=unsafe",
        *("-device", "virtio-blk-device,drive=d0"),
        "-drive",
        "if=none,id=d1,file=/pool/disk.img,format=raw,readonly=off,auto-read-only=off,cache=unsafe",
        *("-device", "virtio-blk-device,drive=d1"),
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
    plan = replace(PLAN, boot=replace(BOOT, cmdline="tsc_early_khz=2100000"), nic=UserNic(1400))
    (cmdline,) = values("-append", plan)
    assert cmdline == f"{KERNEL_CMDLINE} pandastack.nic=user pandastack.mtu=1400 tsc_early_khz=2100000"


def test_a_bake_writes_its_memory_into_the_file() -> None:
    assert "share=on" in values("-object", replace(PLAN, memory_shared=True))[0]


def test_hardware_virtualization() -> None:
    plan = replace(PLAN, accelerator=Accelerator.KVM)
    assert (values("-accel", plan), values("-cpu", plan)) == (["kvm"], ["host,migratable=on"])


def test_only_a_build_machine_has_a_network() -> None:
    assert values("-netdev") == []
    plan = replace(PLAN, nic=UserNic(1400))
    assert values("-netdev", plan) == ["user,id=n0,ipv6=off"]
    assert values("-device", plan)[-1] == "virtio-net-device,netdev=n0,host_mtu=1400"


def test_a_confined_machine_has_a_user_and_a_namespace() -> None:
    words = argv(replace(PLAN, confinement=Confinement(1000, 1001, NETNS)))
    assert words[:4] == ["nsenter", "--net=/run/netns/pandastack-none", "--", str(QEMU)]
    assert words[-2:] == ["-runas", "1000:1001"]
    without = argv(replace(PLAN, confinement=Confinement(1000, 1001)))
    assert without[0] == str(QEMU) and without[-2:] == ["-runas", "1000:1001"]


def test_a_comma_in_a_path_is_no_option() -> None:
    plan = replace(PLAN, memory=Path("/a,share=on"), disks=(Disk("image", Path("/b,readonly=off"), readonly=True),))
    assert "mem-path=/a,,share=on,share=off" in values("-object", plan)[0]
    assert values("-drive", plan)[0].startswith("if=none,id=d0,file=/b,,readonly=off,format=raw,readonly=on")


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
