"""Machine plans for the engine's purposes: pure functions that return a :class:`MachinePlan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pandastack.engine.layout import Layout
from pandastack.engine.machines.allocation import Allocation
from pandastack.engine.machines.boot import kernel_parameters, size_parameters
from pandastack.engine.machines.names import machine_name
from pandastack.model.accelerator import Accelerator
from pandastack.model.template import Template
from pandastack.snapshots.manifest import ROOT, Snapshot
from pandastack.vmm.plan import (
    BASE,
    MODULES,
    Blank,
    Boot,
    Confinement,
    Disk,
    DiskRate,
    MachinePlan,
    Nic,
    Sockets,
    TapNic,
)

UNLIMITED = DiskRate()


def sockets_in(directory: Path) -> Sockets:
    return Sockets(directory / "channel", directory / "control", directory / "console")


def restore_plan(
    layout: Layout, allocation: Allocation, snapshot: Snapshot, disk_rate: DiskRate = UNLIMITED
) -> MachinePlan:
    """A machine that ``snapshot`` will be loaded into. Its RAM is a private mapping of the snapshot's memory, its root
    disk is an overlay on the snapshot's base; what it writes is in its own directory."""
    manifest, own = snapshot.manifest, Snapshot(allocation.directory, snapshot.manifest)
    pairs = zip(own.disks, snapshot.disks, strict=True)
    writable = [Disk(each.name, each.path, captured.base, durable=each.name != ROOT) for each, captured in pairs]
    return MachinePlan(
        name=machine_name(layout.tag, allocation.name),
        cpus=manifest.max_cpus,
        memory_mb=manifest.max_memory_mb,
        memory=snapshot.memory,
        disks=(
            *disks_with(writable, manifest.volumes, own.modules),
            *([Disk(BASE, own.base, readonly=True)] if manifest.base_disk else ()),
        ),
        sockets=sockets_in(allocation.sockets),
        accelerator=Accelerator(manifest.accelerator),
        nested=manifest.nested,
        nic=TapNic(manifest.mtu, allocation.cable.slot.tap),
        confinement=_confinement(layout, allocation),
        disk_rate=disk_rate,
    )


def booted_plan(
    layout: Layout, allocation: Allocation, snapshot: Snapshot, disk_rate: DiskRate = UNLIMITED
) -> MachinePlan:
    """The machine of :func:`restore_plan`, which boots from its disks instead, in the size of its manifest."""
    plan, manifest = restore_plan(layout, allocation, snapshot, disk_rate), snapshot.manifest
    parameters = f"{kernel_parameters(plan.accelerator)} {size_parameters(manifest, manifest.memory_mb)}"
    return replace(plan, boot=Boot(snapshot.kernel, snapshot.initramfs, parameters.strip()))


def disk_rate_of(template: Template, default: DiskRate) -> DiskRate:
    """What the disks of a template's sandboxes may do; what the template does not say is the host's default."""
    return DiskRate(
        template.disk_mb_per_second * 1024 * 1024 or default.bytes_per_second,
        template.disk_operations_per_second or default.operations_per_second,
    )


def disks_with(writable: Sequence[Disk], volumes: int, modules: Path) -> tuple[Disk | Blank, ...]:
    """All disks of a sandbox: its root disk, its volumes, blank disks in the other places of ``volumes``, modules."""
    used = len(writable) - 1
    blanks = (Blank(f"blank{place}") for place in range(used, volumes))
    return (*writable, *blanks, Disk(MODULES, modules, readonly=True))


def _confinement(layout: Layout, allocation: Allocation) -> Confinement | None:
    uid = layout.uid(allocation.slot)
    return Confinement(uid, uid, allocation.netns, allocation.cgroups) if allocation.confinable else None


@dataclass(frozen=True)
class BootSpec:
    """A machine that starts from a kernel: to bake a template, to build an image or to try an accelerator."""

    name: str
    boot: Boot
    cpus: int
    memory_mb: int
    memory: Path
    disks: tuple[Disk | Blank, ...]
    sockets: Path
    accelerator: Accelerator
    keep_memory: bool = False
    nested: bool = False
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
        nested=spec.nested,
        nic=spec.nic,
        confinement=spec.confinement,
    )
