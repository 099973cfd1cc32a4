"""Read-only root disks: EROFS file systems made from a directory."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pandastack.host.processes.run import run

DISK = "root.erofs"
MANIFEST = "manifest.json"

_LATEST = 4102444800
"""2100-01-01. mkfs.erofs stamps the file system with this instead of the present, so that equal trees make equal
disks, and cuts younger file times down to it, of which there are none."""


@dataclass(frozen=True)
class Image:
    """A root disk in the cache. ``key`` names its content; ``packages`` maps Debian packages to their
    versions."""

    key: str
    path: Path
    size_bytes: int
    packages: Mapping[str, str] = field(default_factory=dict)


def mkfs_arguments(target: str | Path, source: str | Path, key: str) -> tuple[str, ...]:
    """The argv that makes the file system ``target`` (a file or a disk) from the directory ``source``.

    The UUID follows from ``key``. The files keep their times: Python's compiled files carry those of their
    sources, and one time for all (``-T``) would have every import compile anew. LZ4 because unpacking is what an
    emulated guest waits for.
    """
    options = ("-zlz4", "-x1", "--preserve-mtime", "-U", str(uuid.uuid5(uuid.NAMESPACE_OID, key)))
    return ("env", f"SOURCE_DATE_EPOCH={_LATEST}", "mkfs.erofs", "--quiet", *options, str(target), str(source))


async def make_disk(source: Path, target: Path, key: str, *, enter: Sequence[str] = ()) -> None:
    """Run mkfs.erofs on the host; ``enter`` is the argv that it runs under (a user namespace, say)."""
    await run([*enter, *mkfs_arguments(target, source, key)], timeout=600)


def write_manifest(directory: Path, packages: Mapping[str, str], facts: Mapping[str, object]) -> None:
    """Record beside the disk what is in it."""
    size = (directory / DISK).stat().st_size
    record = {**facts, "size_bytes": size, "packages": dict(sorted(packages.items()))}
    (directory / MANIFEST).write_text(json.dumps(record, indent=1))


def load_image(directory: Path) -> Image:
    """The image of a committed cache entry, whose name is the image's key."""
    record = json.loads((directory / MANIFEST).read_text())
    return Image(directory.name, directory / DISK, record["size_bytes"], record["packages"])
