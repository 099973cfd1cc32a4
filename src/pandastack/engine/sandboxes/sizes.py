"""The size of a new sandbox: what was asked for, within what its origin and the host allow. Pure.

A template is captured with the hardware of its largest size; what a sandbox does not get of it is out of use in the
guest, and beyond the limits of its control group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pandastack.contract.sandboxes import DEFAULT_SIZE, WantedSize
from pandastack.disks.overlay import SIZE_MAXIMUM
from pandastack.engine.origins.origin import Origin
from pandastack.errors import BadRequestError
from pandastack.model.size import MEMORY_BLOCK_MB, Size
from pandastack.snapshots.manifest import FORMAT, Manifest

DISK_MAXIMUM_GB = SIZE_MAXIMUM >> 30


@dataclass(frozen=True)
class HostSize:
    """What this host has in all; of storage, what it promises."""

    cpus: int
    memory_mb: int
    storage_mb: int


def sized(origin: Origin, wanted: WantedSize, host: HostSize) -> Origin:
    """``origin`` with the size that a sandbox made from it gets.

    Raises :class:`BadRequestError` that names the field which cannot be.
    """
    manifest = origin.snapshot.manifest
    if wanted == DEFAULT_SIZE or (manifest.format != FORMAT and not manifest.parent):  # it must be built again
        return origin
    size = choose(manifest, wanted, host)
    return origin if size == manifest.size else replace(origin, resized=size)


def choose(manifest: Manifest, wanted: WantedSize, host: HostSize) -> Size:
    """The size of a sandbox made from the snapshot of ``manifest``; memory is rounded up to whole blocks.

    A captured sandbox is in the middle of its work: of its copies only the disk may be another, and it never shrinks.
    """
    most_cpus, most_memory = min(manifest.max_cpus, host.cpus), min(manifest.max_memory_mb, host.memory_mb)
    cpus = manifest.cpus if wanted.cpu is None else _within("cpu", wanted.cpu, 1, most_cpus)
    memory_mb = manifest.memory_mb
    if wanted.memory_mb is not None:
        asked = _within("memory_mb", wanted.memory_mb, manifest.min_memory_mb, most_memory)
        memory_mb = min(-(-asked // MEMORY_BLOCK_MB) * MEMORY_BLOCK_MB, manifest.max_memory_mb)
    if manifest.parent:
        _refuse_change("cpu", cpus, manifest.cpus)
        _refuse_change("memory_mb", memory_mb, manifest.memory_mb)
    disk_mb = manifest.disk_mb
    if wanted.disk_gb is not None:
        most = min(DISK_MAXIMUM_GB, host.storage_mb >> 10)
        disk_mb = max(_within("disk_gb", wanted.disk_gb, disk_mb >> 10, most) << 10, disk_mb)
    return Size(cpus, memory_mb, disk_mb)


def _refuse_change(field: str, wanted: int, has: int) -> None:
    if wanted != has:
        raise BadRequestError(
            f"{field}: a sandbox from this snapshot has {has}", field=field, hint="only the disk of a copy may grow"
        )


def _within(field: str, wanted: int, least: int, most: int) -> int:
    if wanted > most:
        raise BadRequestError(f"{field}: at most {most} here, not {wanted}", field=field, hint=_HINT)
    if wanted < least:
        raise BadRequestError(f"{field}: at least {least} here, not {wanted}", field=field, hint=_HINT)
    return wanted


_HINT = "the template and the host set the limits: GET /v1/templates shows the template's"
