"""The command line of QEMU for a plan: a pure function.

Sources: qemu-system-x86_64(1), docs/system/i386/microvm.rst and docs/interop/qmp-spec.rst of QEMU 7.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pandastack.model.accelerator import Accelerator
from pandastack.vmm.plan import Boot, Confinement, Disk, MachinePlan, UserNic

KERNEL_CMDLINE = "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable"
"""Every guest's kernel parameters. ``panic=-1`` ends the machine at once; the driver runs QEMU with ``-no-reboot``."""

TRANSLATION_CACHE_MB = 64
"""Memory for translated code under software emulation: reserved, but used only as the guest runs new code."""

_MACHINE = (
    "microvm,acpi=on,pcie=off,rtc=on,pit=on,pic=on,x-option-roms=off,isa-serial=on,"
    "suppress-vmdesc=on,memory-backend=mem"
)

# `elevateprivileges` stays at its default: denying it would forbid QEMU to drop root after it has opened its files, and
# once it has, without capabilities and with `spawn=deny`, there is nothing left to gain privileges by.
_SECCOMP = "on,obsolete=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class Listeners:
    """Numbers of the inherited file descriptors of bound, listening sockets."""

    channel: int
    control: int
    console: int


def qemu_argv(binary: Path, plan: MachinePlan, listeners: Listeners) -> list[str]:
    """The whole command line, network namespace included."""
    return [
        *_enter_netns(plan.confinement),
        str(binary),
        *("-name", plan.name),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-M", _MACHINE),
        *("-accel", _accelerator(plan.accelerator), "-cpu", cpu_model(plan.accelerator), "-smp", str(plan.cpus)),
        *("-m", f"{plan.memory_mb}M", "-object", _memory(plan)),
        *("-global", "migration.send-configuration=off"),
        *_chardev("control", listeners.control),
        *("-mon", "chardev=control,mode=control"),
        *_chardev("console", listeners.console),
        *("-serial", "chardev:console"),
        *("-device", "virtio-serial-device,max_ports=2"),
        *_chardev("channel", listeners.channel),
        *("-device", "virtserialport,chardev=channel,name=agent"),
        *_disks(plan.disks),
        *_nic(plan.nic),
        *_start(plan.boot, plan.nic),
        *("-sandbox", _SECCOMP),
        *_confine(plan.confinement),
    ]


def _enter_netns(confinement: Confinement | None) -> Sequence[str]:
    if confinement is None or confinement.netns is None:
        return ()
    return ("nsenter", f"--net={confinement.netns}", "--")


def _accelerator(accelerator: Accelerator) -> str:
    return "kvm" if accelerator is Accelerator.KVM else f"tcg,tb-size={TRANSLATION_CACHE_MB}"


def cpu_model(accelerator: Accelerator) -> str:
    """The CPU that a guest sees, with its properties.

    Emulated string instructions move one word at a time; a guest that believes them to be fast (``erms``) has them move
    single bytes.
    """
    return "host,migratable=on" if accelerator is Accelerator.KVM else "max,erms=off"


def _memory(plan: MachinePlan) -> str:
    share = "on" if plan.memory_shared else "off"
    return (
        f"memory-backend-file,id=mem,size={plan.memory_mb}M,mem-path={_escape(plan.memory)},share={share},reserve=off"
    )


def _chardev(name: str, fd: int) -> Sequence[str]:
    return ("-chardev", f"socket,id={name},fd={fd},server=on,wait=off")


def drive_id(index: int) -> str:
    """QEMU's id for the disk at a place in the plan."""
    return f"d{index}"


def _disks(disks: Sequence[Disk]) -> list[str]:
    words: list[str] = []
    for index, disk in enumerate(disks):
        mode = "on" if disk.readonly else "off"
        # A sandbox does not survive a host crash, so the guest's syncs need not reach the physical disk.
        words += (
            "-drive",
            f"if=none,id={drive_id(index)},file={_escape(disk.path)},format=raw,readonly={mode},auto-read-only=off,cache=unsafe",
        )
        words += ("-device", f"virtio-blk-device,drive={drive_id(index)}")
    return words


def _nic(nic: UserNic | None) -> Sequence[str]:
    if nic is None:
        return ()
    return ("-netdev", "user,id=n0,ipv6=off", "-device", f"virtio-net-device,netdev=n0,host_mtu={nic.mtu}")


def _start(boot: Boot | None, nic: UserNic | None) -> Sequence[str]:
    if boot is None:
        return ("-incoming", "defer")
    network = f"pandastack.nic=user pandastack.mtu={nic.mtu}" if nic else ""
    cmdline = " ".join(part for part in (KERNEL_CMDLINE, network, boot.cmdline) if part)
    return ("-kernel", str(boot.kernel), "-initrd", str(boot.initramfs), "-append", cmdline)


def _confine(confinement: Confinement | None) -> Sequence[str]:
    if confinement is None:
        return ()
    return ("-runas", f"{confinement.uid}:{confinement.gid}")


def _escape(path: Path) -> str:
    """QEMU's option parser reads a doubled comma as one comma of the value."""
    return str(path).replace(",", ",,")
