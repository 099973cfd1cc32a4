"""Plans of machines for the engine's purposes: pure functions from what is to run to :class:`MachinePlan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pandastack.engine.layout import Layout
from pandastack.engine.sweep import machine_name
from pandastack.snapshots.manifest import Snapshot
from pandastack.vmm.plan import Accelerator, Boot, Confinement, Disk, MachinePlan, Sockets, UserNic


@dataclass(frozen=True)
class Berth:
    """What one machine has of its host: its name, its directories, its user, its network namespace."""

    name: str
    slot: int
    directory: Path
    sockets: Path
    netns: Path | None
    confinable: bool
    """Whether this engine may change users (it runs as root)."""


def sockets_in(directory: Path) -> Sockets:
    return Sockets(directory / "channel", directory / "control", directory / "console")


def restore_plan(layout: Layout, berth: Berth, image: Path, snapshot: Snapshot) -> MachinePlan:
    """A machine that will be given ``snapshot``. Its RAM is a private view of the snapshot's memory."""
    manifest = snapshot.manifest
    return MachinePlan(
        name=machine_name(layout.tag, berth.name),
        cpus=manifest.cpus,
        memory_mb=manifest.memory_mb,
        memory=snapshot.memory,
        disks=(Disk(image, readonly=True), Disk(berth.directory / "disk.img")),
        sockets=sockets_in(berth.sockets),
        accelerator=Accelerator(manifest.accelerator),
        confinement=Confinement(layout.uid(berth.slot), layout.uid(berth.slot), berth.netns)
        if berth.confinable
        else None,
    )


@dataclass(frozen=True)
class BootSpec:
    """A machine that starts from a kernel: to bake a template, to build an image or to try an accelerator."""

    name: str
    boot: Boot
    cpus: int
    memory_mb: int
    memory: Path
    disks: tuple[Disk, ...]
    sockets: Path
    accelerator: Accelerator
    keep_memory: bool = False
    nic: UserNic | None = None
    confinement: Confinement | None = None


def boot_plan(spec: BootSpec) -> MachinePlan:
    """A machine that boots. With ``keep_memory`` the guest's RAM ends up in the file ``memory``."""
    return MachinePlan(
        name=spec.name,
        cpus=spec.cpus,
        memory_mb=spec.memory_mb,
        memory=spec.memory,
        disks=spec.disks,
        sockets=sockets_in(spec.sockets),
        accelerator=spec.accelerator,
        boot=spec.boot,
        memory_shared=spec.keep_memory,
        nic=spec.nic,
        confinement=spec.confinement,
    )
