"""Whether a machine is restored from an origin or boots from its disks, decided from manifest and host alone."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pandastack.engine.origins.origin import BootOrigin, Origin, sources
from pandastack.guest.keys import SUPPORTED
from pandastack.model.accelerator import Accelerator
from pandastack.snapshots.manifest import FORMAT, Here, Manifest, Snapshot


@dataclass(frozen=True)
class Host:
    """What guests run with here. ``cpus`` has this host's accelerators; a guest that boots gets ``boots_with``."""

    vmm: str
    cpus: Mapping[Accelerator, str]
    boots_with: Accelerator


def plan_start(origin: Origin, host: Host, *, boot: bool, current: Origin | None = None) -> Origin | BootOrigin:
    """``origin`` itself if its memory may be restored on ``host``, else its disks if a ``boot`` is wanted.

    ``current`` is the template that is installed under the origin's name: its kernel and agent boot disks whose own
    agent speaks another protocol. Raises :class:`ConflictError`, with the reason, when nothing can begin.
    """
    here = Here(host.vmm, host.cpus.get(Accelerator(origin.snapshot.manifest.accelerator)), SUPPORTED)
    problem = origin.snapshot.find_obstacle(here) or origin.snapshot.find_change()
    starter = _find_starter(origin, current) if boot and problem else None
    if problem is None or starter is None:
        origin.snapshot.check(here)
        return origin
    snapshot = replace(origin.snapshot, manifest=_booted(origin.snapshot.manifest, host, starter.manifest))
    reason = origin.snapshot.manifest.memory_lost or problem
    return BootOrigin(origin.template, snapshot, starter, reason, origin.resized, origin.attached)


def _find_starter(origin: Origin, current: Origin | None) -> Snapshot | None:
    """The snapshot whose kernel, modules and agent boot the disks: their own, if this release speaks its protocol."""
    if not origin.snapshot.base.exists() or not all(disk.path.exists() for disk in sources(origin)):
        return None
    candidates = [each.snapshot for each in (origin, current) if each is not None]
    return next((each for each in candidates if each.bootable and each.manifest.protocol in SUPPORTED), None)


def _booted(former: Manifest, host: Host, starter: Manifest) -> Manifest:
    """The manifest of the machine that boots: size and disks of the former one, all else as it is made now.

    One of a former format has none of the devices that came later; they are those of the starter.
    """
    return replace(
        former,
        key=hashlib.sha256(f"{former.key} {secrets.token_hex(16)}".encode()).hexdigest(),
        parent=former.key,
        format=FORMAT,
        accelerator=host.boots_with.value,
        vmm=host.vmm,
        cpu_flags=host.cpus[host.boots_with],
        kernel_release=starter.kernel_release,
        kernel_version=starter.kernel_version,
        kernel_sha256=starter.kernel_sha256,
        modules=starter.modules,
        mtu=former.mtu or starter.mtu,
        volumes=former.volumes or starter.volumes,
        protocol=starter.protocol,
        base_disk=True,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        at_frame_boundary=True,
        boot_id_at=starter.boot_id_at,  # the kernel is where it was: without its decompressor it is never moved
        memory_stamp="",
        memory_lost="",
        disk_stamps=(),
    )
