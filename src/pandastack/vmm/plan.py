"""Machine plans, as data. A driver turns a plan into a process; nothing here touches the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pandastack.model.accelerator import Accelerator


@dataclass(frozen=True)
class Disk:
    """A raw disk image. Its device in the guest follows its place in the plan: ``/dev/vda``, ``/dev/vdb``, …"""

    name: str
    """Its name on the host and in the driver: ``image``, ``root``, later the volumes' names."""
    path: Path
    readonly: bool = False


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


Nic: TypeAlias = UserNic
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
    """

    name: str
    cpus: int
    memory_mb: int
    memory: Path
    disks: tuple[Disk, ...]
    sockets: Sockets
    accelerator: Accelerator
    boot: Boot | None = None
    memory_shared: bool = False
    nic: Nic | None = None
    confinement: Confinement | None = None
