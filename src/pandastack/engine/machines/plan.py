"""Machine plans for the engine's purposes: pure functions that return a :class:`MachinePlan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pandastack.engine.layout import Layout
from pandastack.engine.machines.allocation import Allocation
from pandastack.engine.machines.names import machine_name
from pandastack.model.accelerator import Accelerator
from pandastack.snapshots.manifest import Snapshot
from pandastack.vmm.plan import Boot, Confinement, Disk, MachinePlan, Nic, Sockets


def sockets_in(directory: Path) -> Sockets:
    return Sockets(directory / "channel", directory / "control", directory / "console")


def restore_plan(layout: Layout, allocation: Allocation, image: Path, snapshot: Snapshot) -> MachinePlan:
    """A machine that ``snapshot`` will be loaded into. Its RAM is a private mapping of the snapshot's memory, its disks
    are in its own directory."""
    manifest, own = snapshot.manifest, Snapshot(allocation.directory, snapshot.manifest)
    return MachinePlan(
        name=machine_name(layout.tag, allocation.name),
        cpus=manifest.cpus,
        memory_mb=manifest.memory_mb,
        memory=snapshot.memory,
        disks=(Disk("image", image, readonly=True), *(Disk(each.name, each.path) for each in own.disks)),
        sockets=sockets_in(allocation.sockets),
        accelerator=Accelerator(manifest.accelerator),
        confinement=_confinement(layout, allocation),
    )


def _confinement(layout: Layout, allocation: Allocation) -> Confinement | None:
    uid = layout.uid(allocation.slot)
    return Confinement(uid, uid, allocation.network.netns, allocation.cgroups) if allocation.confinable else None


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
    nic: Nic | None = None
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
