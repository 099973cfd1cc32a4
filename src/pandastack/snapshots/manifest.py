"""The manifest of a snapshot: what it was made with, and so where it can be restored.

A snapshot is a directory: ``memory`` (the guest's RAM, one byte for one byte, sparse), if need be ``pages`` (what
differs from that; :mod:`pandastack.snapshots.pages`), ``devices`` (CPU and device state, without RAM, in QEMU's
migration format), ``base.img`` (the root disk of the template, raw), ``root.qcow2`` (what differs from that;
:mod:`pandastack.disks.overlay`), ``disk-NAME.img`` for each further disk, ``modules.img`` (the kernel's modules),
``kernel`` and ``initramfs`` (what its machine boots from when the memory may not be restored), and ``manifest.json``.
It is named by the hash of what it was made from, so two builds of the same thing share one.

Memory and disks of a snapshot were captured at one moment, and the manifest has a :func:`stamp` of each. Where the
disks outlived their machine there is no memory at all: ``memory_lost`` says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pandastack.errors import ConflictError, ServerError
from pandastack.host.files import map_error
from pandastack.model.size import Size

FORMAT = 3
"""Increment it whenever older snapshots can no longer be restored."""


ROOT = "root"
"""The name of the disk with a guest's own files, which every guest has."""

_RESERVED = frozenset({"modules", "base"})
"""Names of disks that machines have besides: the agent finds them by these."""


def volume_name(place: int) -> str:
    """The name of the disk in a place for volumes. Place 0 is ``/dev/vdb``."""
    return f"volume{place}"


_DISK_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class Manifest:
    """Everything that must be the same at a restore, and what the template was made from."""

    key: str
    format: int
    accelerator: str
    vmm: str
    cpu_flags: str
    cpus: int
    memory_mb: int
    disk_mb: int
    image: str
    kernel_release: str
    kernel_version: str
    kernel_sha256: str
    at_frame_boundary: bool = field(metadata={"key": "quiet"})
    """Whether the guest's end of the channel was at a frame boundary when it was captured."""
    built_at: str
    bake_seconds: float = 0.0
    """How long the bake of the template took, from the boot to the capture."""
    boot_id_at: int = 0
    """Where the guest's kernel has its boot id in the memory: every copy gets another; 0 if that is not known."""
    modules: str = ""
    """The SHA-256 of the disk with the kernel's modules; empty if it has none."""
    nested: bool = False
    """Whether the guest's CPU has the extensions for virtual machines."""
    parent: str = ""
    """The snapshot that the captured machine was restored from; empty for a template's."""
    memory_stamp: str = ""
    """The :func:`stamp` of the file ``memory`` when it was made; empty if that was not recorded."""
    max_cpus: int = 0
    max_memory_mb: int = 0
    """The virtual hardware. Of it, ``cpus`` and ``memory_mb`` are in use; the rest is offline in the guest."""
    min_memory_mb: int = 0
    """The smallest memory that a sandbox made from it may have."""
    mtu: int = 0
    """Of the guest's network device."""
    volumes: int = 0
    """How many places for volumes it has: blank disks, unless ``disks`` has a volume there."""
    disks: tuple[str, ...] = (ROOT,)
    """The names of the writable disks in the order of the devices: ``root``, then volumes."""
    mounts: tuple[str, ...] = ()
    """Where its guest mounts the volumes of ``disks``, in their order."""
    read_only: tuple[str, ...] = ()
    """The names of those that it only reads."""
    disk_stamps: tuple[str, ...] = ()
    """The :func:`stamp` of each of ``disks`` at the capture; empty if that was not recorded."""
    protocol: int = 3
    """The version of the channel's protocol that the guest's agent speaks."""
    base_disk: bool = False
    """Whether the machine has the template's disk beside its own, as one that has booted: there its agent reads what
    the template's files were, which others remember."""
    memory_lost: str = ""
    """Why there are only disks; empty for a snapshot with its memory."""

    def __post_init__(self) -> None:
        names = self.disks
        if names[:1] != (ROOT,) or len(set(names)) < len(names) or not all(map(_DISK_NAME.fullmatch, names)):
            raise ValueError(f"disks: {names!r} are not distinct names that begin with {ROOT!r}")
        if reserved := _RESERVED.intersection(names):
            raise ValueError(f"disks: {min(reserved)} is the name of another disk")

    @property
    def size(self) -> Size:
        """The size of the captured sandbox."""
        return Size(self.cpus, self.memory_mb, self.disk_mb)

    def with_size(self, size: Size) -> Manifest:
        return replace(self, cpus=size.cpus, memory_mb=size.memory_mb, disk_mb=size.disk_mb)

    def to_json(self) -> bytes:
        values = {_key(each): getattr(self, each.name) for each in fields(self)}
        return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest. Raises :class:`ServerError` when a field is missing.

        A machine of a former format had no other hardware than it used.
        """
        try:
            read: dict[str, Any] = json.loads(data)
            used = {"max_cpus": read["cpus"], "max_memory_mb": read["memory_mb"], "min_memory_mb": read["memory_mb"]}
            values = {**used, **read}
            known = [each for each in fields(cls) if _key(each) in values or each.default is MISSING]
            return cls(**{each.name: _value(values[_key(each)]) for each in known})
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"a snapshot's manifest cannot be read: {error}") from error


def _value(value: Any) -> Any:
    """Convert lists from JSON to tuples."""
    return tuple(value) if isinstance(value, list) else value


def _key(each: Field[Any]) -> str:
    """The field's name in JSON."""
    return str(each.metadata.get("key", each.name))


def stamp(path: Path) -> str:
    """The size of a file in bytes and the time of its last write, which change when the file is modified.

    Many machines map one memory image, so a write to it would reach them all. A process that has the file open can
    write to it, but only the file's owner can reset the time.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise map_error(error, path) from error
    return f"{found.st_size}:{found.st_mtime_ns}"


def _disk_file(name: str) -> str:
    return "root.qcow2" if name == ROOT else f"disk-{name}.img"


@dataclass(frozen=True)
class SnapshotDisk:
    """A writable disk of a snapshot: raw, or with ``base`` an overlay on it."""

    name: str
    path: Path
    base: Path | None = None


@dataclass(frozen=True)
class Here:
    """What this host runs guests with: a memory made with anything else may not be restored.

    ``cpu_flags`` are those of the snapshot's accelerator, ``None`` where this host does not have it; ``protocols`` are
    the versions of the channel that are spoken here.
    """

    vmm: str
    cpu_flags: str | None
    protocols: Collection[int]


@dataclass(frozen=True)
class Snapshot:
    """A complete snapshot on disk, or the disks that outlived a machine."""

    directory: Path
    manifest: Manifest

    @property
    def memory(self) -> Path:
        return self.directory / "memory"

    @property
    def pages(self) -> Path:
        return self.directory / "pages"

    @property
    def devices(self) -> Path:
        return self.directory / "devices"

    @property
    def disks(self) -> tuple[SnapshotDisk, ...]:
        """The writable disks, the root disk first."""
        bases = {ROOT: self.base}
        return tuple(
            SnapshotDisk(name, self.directory / _disk_file(name), bases.get(name)) for name in self.manifest.disks
        )

    @property
    def base(self) -> Path:
        """The root disk as the template has it. Like ``memory`` it is shared and never written again."""
        return self.directory / "base.img"

    @property
    def modules(self) -> Path:
        """The disk with the kernel's modules. Like ``memory`` it is shared and never written again."""
        return self.directory / "modules.img"

    @property
    def kernel(self) -> Path:
        """The kernel that the machine booted. It and ``initramfs`` are shared and never written again."""
        return self.directory / "kernel"

    @property
    def initramfs(self) -> Path:
        """The first file system of a boot, with a check of the root disk."""
        return self.directory / "initramfs"

    @property
    def root(self) -> Path:
        return self.disks[0].path

    @property
    def bootable(self) -> bool:
        """Whether its disks can be booted: snapshots of older releases have no kernel."""
        return self.kernel.exists() and self.initramfs.exists()

    def check(self, here: Here) -> None:
        """Raise :class:`ConflictError` naming the first reason why its memory cannot, or must not, be restored here."""
        if problem := self.find_obstacle(here):
            raise ConflictError(problem, hint=self._remedy())
        self.check_memory()

    def find_obstacle(self, here: Here) -> str | None:
        """Why the memory may not be restored on this host, or onto these disks; ``None`` if it may.

        Memory is restored only with the disks that it was captured with: older or newer ones would differ from what the
        guest's kernel has cached of them.
        """
        made, name = self.manifest, f"snapshot {self.manifest.key[:12]}"
        if made.memory_lost:
            return f"{name} has no memory: {made.memory_lost}"
        if here.cpu_flags is None:
            return f"{name} was made with accelerator {made.accelerator}, this host does not have it"
        for field_name, wanted in (("format", FORMAT), ("vmm", here.vmm), ("cpu_flags", here.cpu_flags)):
            if (found := getattr(made, field_name)) != wanted:
                return f"{name} was made with {field_name} {found}, this host has {wanted}"
        if made.protocol not in here.protocols:
            return f"{name} has an agent that speaks version {made.protocol} of the channel's protocol"
        for disk, recorded in zip(self.disks, made.disk_stamps, strict=False):
            if stamp(disk.path) != recorded:
                return f"the disk {disk.name} of {name} was changed after it was captured"
        return None

    def check_memory(self) -> None:
        """Raise :class:`ConflictError` when the file ``memory`` was modified after it was made."""
        if problem := self.find_change():
            raise ConflictError(
                problem,
                hint="delete it"
                if self.manifest.parent
                else "end the sandboxes of this template and build it again: `pandastack template build`",
            )

    def find_change(self) -> str | None:
        """Why the file ``memory`` is not what was captured; ``None`` if it is."""
        made = self.manifest.memory_stamp
        if made and stamp(self.memory) != made:
            return f"the memory image of snapshot {self.manifest.key[:12]} was changed after it was made"
        return None

    def _remedy(self) -> str:
        if self.manifest.memory_lost:
            return "its disks can be booted: wake the sandbox with `on_memory_loss` at `boot`"
        if self.manifest.parent:
            return "its programs need the VMM and CPU of its capture: restore it on such a host, or delete it"
        return "build the template again: `pandastack template build`"


def load(directory: Path) -> Snapshot:
    """The snapshot in ``directory``."""
    return Snapshot(directory, Manifest.from_json((directory / "manifest.json").read_bytes()))
