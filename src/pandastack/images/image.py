"""Root images: raw ext4 disks in the cache, with a record of what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pandastack.host import files

DISK = "root.img"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Image:
    """A root disk in the cache. ``key`` names its content; ``disk_mb`` is the size of the disk, ``size_bytes`` what it
    takes of it; ``packages`` maps Debian packages to their versions, ``replaced`` those whose locked version was gone
    to what was taken instead."""

    key: str
    path: Path
    disk_mb: int
    size_bytes: int
    packages: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)


def write_manifest(directory: Path, packages: Mapping[str, str], facts: Mapping[str, object]) -> None:
    """Record beside the disk what is in it."""
    disk = directory / DISK
    sizes = {"disk_mb": disk.stat().st_size // 1024**2, "size_bytes": files.allocated_bytes(disk)}
    record = {**facts, **sizes, "packages": dict(sorted(packages.items()))}
    (directory / MANIFEST).write_text(json.dumps(record, indent=1))


def load_image(directory: Path) -> Image:
    """The image of a committed cache entry, whose name is the image's key."""
    record = json.loads((directory / MANIFEST).read_text())
    sizes = record["disk_mb"], record["size_bytes"]
    return Image(directory.name, directory / DISK, *sizes, record["packages"], record.get("replaced", {}))
