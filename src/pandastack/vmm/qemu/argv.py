"""The command line of QEMU for a plan: a pure function.

Sources: qemu-system-x86_64(1), docs/system/i386/microvm.rst and docs/interop/qmp-spec.rst of QEMU 7.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pandastack.model.accelerator import Accelerator
from pandastack.vmm.plan import GUEST_MAC, Blank, Boot, Confinement, Disk, DiskRate, MachinePlan, Nic, TapNic, UserNic

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


BLANK_BYTES = 512
_SERIAL_MAX = 20  # characters of a disk's name; virtio 1.2, 5.2.6.1


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
        *("-accel", _accelerator(plan.accelerator), "-cpu", _cpu(plan), "-smp", str(plan.cpus)),
        *("-m", f"{plan.memory_mb}M", "-object", _memory(plan)),
        *("-global", "migration.send-configuration=off", "-global", "migration.announce-rounds=0"),
        *_chardev("control", listeners.control),
        *("-mon", "chardev=control,mode=control"),
        *_chardev("console", listeners.console),
        *("-serial", "chardev:console"),
        *("-device", "virtio-serial-device,max_ports=2"),
        *_chardev("channel", listeners.channel),
        *("-device", "virtserialport,chardev=channel,name=agent"),
        *_rate(plan.disk_rate),
        *_disks(plan),
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


CPUID_MAX = 0x80000008


def cpu_model(accelerator: Accelerator) -> str:
    """The CPU that a guest sees, with its properties.

    Emulated string instructions move one word at a time; a guest that believes them to be fast (``erms``) has them move
    single bytes.
    """
    return "host,migratable=on" if accelerator is Accelerator.KVM else "max,erms=off"


def _cpu(plan: MachinePlan) -> str:
    """Without ``svm`` QEMU would leave out the higher leaves of CPUID, and with them the sizes of caches."""
    model = cpu_model(plan.accelerator)
    return model if plan.nested else f"{model},vmx=off,svm=off,min-xlevel={CPUID_MAX:#x}"


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


def drive_node(plan: MachinePlan, index: int) -> str:
    """QEMU's name for the node that the device of a disk uses: the topmost."""
    disk = plan.disks[index]
    limited = plan.disk_rate != DiskRate() and isinstance(disk, Disk) and not disk.readonly
    return f"{drive_id(index)}-rate" if limited else drive_id(index)


def _rate(rate: DiskRate) -> Sequence[str]:
    """A bucket that all disks draw from (docs/throttle.txt of QEMU); one that is used less fills for a tenth second."""
    limits = {"bps-total": rate.bytes_per_second, "iops-total": rate.operations_per_second}
    if rate == DiskRate():
        return ()
    return ("-object", json.dumps({"qom-type": "throttle-group", "id": "rate", "limits": limits}))


def _disks(plan: MachinePlan) -> list[str]:
    words: list[str] = []
    for index, disk in enumerate(plan.disks):
        name = drive_id(index)
        if isinstance(disk, Blank):
            words += _node({"node-name": name, "driver": "null-co", "size": BLANK_BYTES, "read-zeroes": True})
        elif disk.base is None:
            words += _node(_file(name, disk.path, readonly=disk.readonly, durable=disk.durable))
        else:
            words += _node(_file(f"{name}-base", disk.base, readonly=True))
            words += _node(_file(f"{name}-file", disk.path))
            words += _node(overlay_node(name))
        drive = drive_node(plan, index)
        if drive != name:
            words += _node({"node-name": drive, "driver": "throttle", "throttle-group": "rate", "file": name})
        words += ("-device", f"virtio-blk-device,drive={drive},serial={disk.name[:_SERIAL_MAX]}")
    return words


def _node(options: Mapping[str, object]) -> Sequence[str]:
    return ("-blockdev", json.dumps(options))


def _file(name: str, path: Path, *, readonly: bool = False, durable: bool = False) -> Mapping[str, object]:
    """A raw file. A sandbox does not survive a host crash, so its guest's syncs need not reach the physical disk; what
    is ``durable`` survives one. Each file is open in one machine, or nobody writes it: there is nothing to lock."""
    return {
        "node-name": name,
        "driver": "file",
        "filename": str(path),
        "read-only": readonly,
        "auto-read-only": False,
        "locking": "off",
        "discard": "unmap",
        "cache": {"no-flush": not durable},
    }


def overlay_node(name: str) -> Mapping[str, object]:
    """The qcow2 disk ``name`` in the node of its file, over that of its base: the header has no word in this."""
    return {
        "node-name": name,
        "driver": "qcow2",
        "file": f"{name}-file",
        "backing": f"{name}-base",
        "discard": "unmap",
        "cache": {"no-flush": True},
    }


NETDEV = "n0"
"""QEMU's id for what the network device is connected to."""

UNCONNECTED = "warning: hub 0 is not connected to host network"
"""What QEMU prints about a :class:`TapNic` without a tap."""


def _nic(nic: Nic | None) -> Sequence[str]:
    """The network device. A hub without another port saves as little state as a tap does; user-mode network saves more.

    The host's end of a tap knows the guest's address, so a restored guest need not announce it.
    """
    device = "virtio-net-device,netdev=n0"
    match nic:
        case None:
            return ()
        case UserNic(mtu):
            return ("-netdev", f"user,id={NETDEV},ipv6=off", "-device", f"{device},host_mtu={mtu}")
        case TapNic(mtu, fd):
            netdev = f"hubport,id={NETDEV},hubid=0" if fd is None else f"tap,id={NETDEV},fd={fd}"
            return ("-netdev", netdev, "-device", f"{device},host_mtu={mtu},mac={GUEST_MAC},guest_announce=off")


def _start(boot: Boot | None, nic: Nic | None) -> Sequence[str]:
    if boot is None:
        return ("-incoming", "defer")
    kind = "user" if isinstance(nic, UserNic) else "tap"
    network = f"pandastack.nic={kind} pandastack.mtu={nic.mtu}" if nic else ""
    cmdline = " ".join(part for part in (KERNEL_CMDLINE, network, boot.cmdline) if part)
    return ("-kernel", str(boot.kernel), "-initrd", str(boot.initramfs), "-append", cmdline)


def _confine(confinement: Confinement | None) -> Sequence[str]:
    if confinement is None:
        return ()
    return ("-runas", f"{confinement.uid}:{confinement.gid}")


def _escape(path: Path) -> str:
    """QEMU's option parser reads a doubled comma as one comma of the value."""
    return str(path).replace(",", ",,")
