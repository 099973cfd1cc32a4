"""Machine plans, as data. A driver turns a plan into a process; nothing here touches the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pandastack.model.accelerator import Accelerator

MODULES = "modules"
"""The name of the disk with the kernel's modules; the agent in the guest finds it by that."""

BASE = "base"
"""The name of the template's own disk in a machine that has it beside the root: the agent finds it by that, too."""

GUEST_MAC = "52:54:00:12:34:56"
"""The hardware address of every guest: a restored one has what it was captured with."""


@dataclass(frozen=True)
class Disk:
    """A disk of a guest. Its device in the guest follows its place in the plan: ``/dev/vda``, ``/dev/vdb``, …

    ``path`` is a raw file, or with ``base`` an overlay (:mod:`pandastack.disks.overlay`) of what differs from the raw
    file ``base``, which is only read and may be shared by any number of machines. A ``readonly`` disk has no base.
    """

    name: str
    """Its name on the host and in the driver: ``root``, or that of a volume's place."""
    path: Path
    base: Path | None = None
    readonly: bool = False
    durable: bool = False
    """Whether a flush of the guest reaches the physical disk. What outlives a crash of the host needs it."""


@dataclass(frozen=True)
class Blank:
    """A disk of 512 bytes that keeps nothing: a place for a volume.

    A machine restored from a capture with a blank disk may have a :class:`Disk` in its place. Once loaded, it learns
    the size by :meth:`~pandastack.vmm.driver.Machine.resize_disk`.
    """

    name: str


@dataclass(frozen=True)
class DiskRate:
    """What the writable disks of a machine may transfer together, reads and writes; 0: no limit."""

    bytes_per_second: int = 0
    operations_per_second: int = 0


@dataclass(frozen=True)
class Boot:
    """Start from a kernel (PVH entry of an uncompressed ELF ``vmlinux``)."""

    kernel: Path
    initramfs: Path
    cmdline: str = ""


@dataclass(frozen=True)
class UserNic:
    """QEMU's user-mode network: build machines only. Addresses are those of its documentation (10.0.2.0/24)."""

    mtu: int


@dataclass(frozen=True)
class TapNic:
    """The device of sandboxes. Its other end is a tap device (without virtio headers), or nothing.

    Both are one device to a guest, so a captured state can be restored with either. Whether the link is up belongs to
    that state: :meth:`~pandastack.vmm.driver.Machine.set_link` changes it.
    """

    mtu: int
    fd: int | None = None
    """The open tap device; the VMM gets a copy of the descriptor."""


Nic: TypeAlias = UserNic | TapNic
"""A network device. Each kind is a class of its own; a driver's capabilities list the kinds that it can make."""


@dataclass(frozen=True)
class Confinement:
    """The user and the network namespace that the VMM's process has once it has opened its files.

    ``netns`` is ``None`` for a machine with user-mode network, which reaches the world through the host's network.
    ``cgroups`` are the directories of the control groups that limit it: one of version 2, several of version 1.
    """

    uid: int
    gid: int
    netns: Path | None = None
    cgroups: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Sockets:
    """Unix sockets the VMM listens on. The host binds them before it starts the VMM, so a connect never races."""

    channel: Path
    control: Path
    console: Path


@dataclass(frozen=True)
class MachinePlan:
    """One virtual machine.

    ``memory`` is the file behind the guest's RAM: with ``memory_shared`` the guest writes to it (a bake), else it is
    mapped privately and never changes. ``boot`` is ``None`` for a machine into which a captured state will be loaded.
    ``nested`` gives the guest's CPU the extensions for virtual machines, where the host's has them or it is emulated.
    """

    name: str
    cpus: int
    memory_mb: int
    memory: Path
    disks: tuple[Disk | Blank, ...]
    sockets: Sockets
    accelerator: Accelerator
    boot: Boot | None = None
    memory_shared: bool = False
    nested: bool = False
    nic: Nic | None = None
    confinement: Confinement | None = None
    disk_rate: DiskRate = DiskRate()

    @property
    def root(self) -> Disk:
        """The disk with the guest's own files: the first."""
        first = self.disks[0]
        assert isinstance(first, Disk)
        return first
