"""The manifest of a snapshot: what it was made with, and so where it can be restored.

A snapshot is a directory: ``memory`` (the guest's RAM, one byte for one byte, sparse), if need be ``pages`` (what
differs from that; :mod:`pandastack.snapshots.pages`), ``devices`` (CPU and device state, without RAM, in QEMU's
migration format), ``disk.img`` (the writable root disk), ``disk-NAME.img`` for each further disk, and
``manifest.json``. It is named by the hash of what it was made
from, so two builds of the same thing share one.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from pandastack.errors import ConflictError, ServerError
from pandastack.host.files import map_error

FORMAT = 1
"""Increment it whenever older snapshots can no longer be restored."""


ROOT = "root"
"""The name of the disk with a guest's own files, which every guest has."""

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
    parent: str = ""
    """The snapshot that the captured machine was restored from; empty for a template's."""
    memory_stamp: str = ""
    """The :func:`stamp` of the file ``memory`` when it was made; empty if that was not recorded."""
    disks: tuple[str, ...] = (ROOT,)
    """The names of the writable disks in the order of the devices: ``root``, then volumes."""

    def __post_init__(self) -> None:
        names = self.disks
        if names[:1] != (ROOT,) or len(set(names)) < len(names) or not all(map(_DISK_NAME.fullmatch, names)):
            raise ValueError(f"disks: {names!r} are not distinct names that begin with {ROOT!r}")

    def to_json(self) -> bytes:
        values = {_key(each): getattr(self, each.name) for each in fields(self)}
        return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest. Raises :class:`ServerError` when a field is missing."""
        try:
            values: dict[str, Any] = json.loads(data)
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


def stamp(memory: Path) -> str:
    """The size of a file in bytes and the time of its last write, which change when the file is modified.

    Many machines map one file, so a write to it would reach them all. A process that has the file open can write to it,
    but only the file's owner can reset the time.
    """
    try:
        found = memory.stat()
    except OSError as error:
        raise map_error(error, memory) from error
    return f"{found.st_size}:{found.st_mtime_ns}"


def _disk_file(name: str) -> str:
    return "disk.img" if name == ROOT else f"disk-{name}.img"


@dataclass(frozen=True)
class SnapshotDisk:
    """A writable disk of a snapshot."""

    name: str
    path: Path


@dataclass(frozen=True)
class Snapshot:
    """A complete snapshot on disk."""

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
        return tuple(SnapshotDisk(name, self.directory / _disk_file(name)) for name in self.manifest.disks)

    @property
    def root(self) -> Path:
        return self.disks[0].path

    def check(self, *, vmm: str, cpu_flags: str) -> None:
        """Raise :class:`ConflictError` naming the first difference when this host cannot, or must not, restore it."""
        wanted = {"format": FORMAT, "vmm": vmm, "cpu_flags": cpu_flags}
        for name, here in wanted.items():
            made = getattr(self.manifest, name)
            if made != here:
                raise ConflictError(
                    f"snapshot {self.manifest.key[:12]} was made with {name} {made}, this host has {here}",
                    hint=self._remedy(),
                )
        self.check_memory()

    def check_memory(self) -> None:
        """Raise :class:`ConflictError` when the file ``memory`` was modified after it was made."""
        made = self.manifest.memory_stamp
        if made and stamp(self.memory) != made:
            raise ConflictError(
                f"the memory image of snapshot {self.manifest.key[:12]} was changed after it was made",
                hint="delete it"
                if self.manifest.parent
                else "end the sandboxes of this template and build it again: `pandastack template build`",
            )

    def _remedy(self) -> str:
        if self.manifest.parent:
            return "its programs need the VMM and CPU of its capture: restore it on such a host, or delete it"
        return "build the template again: `pandastack template build`"


def load(directory: Path) -> Snapshot:
    """The snapshot in ``directory``."""
    return Snapshot(directory, Manifest.from_json((directory / "manifest.json").read_bytes()))
