"""Volumes: disks that outlive sandboxes. Engines know them by their ids; names and owners are the control plane's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pandastack.contract.codec import Constraint
from pandastack.contract.fields import Uuid

MOST = 14
"""The most volumes of one sandbox. Its template may have fewer places for them."""

SIZE_MAXIMUM_MB = 1024 * 1024
"""The size of the largest volume in MiB."""

PATH_BYTES = 255
"""The longest path that a volume can be mounted at."""


def is_mount_path(path: str) -> bool:
    """Whether a volume may be mounted at ``path``, whatever is there in the guest."""
    parts = path.split("/")
    named = all(part not in ("", ".", "..") for part in parts[1:])
    return path.startswith("/") and named and path.isprintable() and len(path.encode(errors="replace")) <= PATH_BYTES


def are_apart(paths: Sequence[str]) -> bool:
    """Whether no path is equal to another one or below it."""
    ends = [f"{path}/" for path in paths]
    return not any(
        one.startswith(other) for place, one in enumerate(ends) for at, other in enumerate(ends) if at != place
    )


MountPath = Annotated[
    str, Constraint(is_mount_path, f"be an absolute path of at most {PATH_BYTES} bytes, without '.', '..' and '//'")
]
"""Where a volume is mounted in the guest; ``/`` itself is none."""

SizeMb = Annotated[int, Constraint(lambda value: 1 <= value <= SIZE_MAXIMUM_MB, f"be from 1 to {SIZE_MAXIMUM_MB}")]
"""The size of a volume in MiB. An engine refuses a size that is too small for a file system."""


@dataclass(frozen=True, slots=True)
class AttachVolume:
    """A volume of a new sandbox. With ``read_only`` it gets a copy of the volume as it is now, and others may write."""

    volume: Uuid
    path: MountPath
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class OwnVolume:
    """A volume without an id: a clone of one that the template, the source or the snapshot of the sandbox has."""

    path: str
    size_mb: int


def _attachable(volumes: tuple[AttachVolume, ...]) -> bool:
    distinct = len({each.volume for each in volumes}) == len(volumes)
    return len(volumes) <= MOST and distinct and are_apart([each.path for each in volumes])


AttachVolumes = Annotated[
    tuple[AttachVolume, ...],
    Constraint(_attachable, f"be at most {MOST} different volumes, none mounted below another one"),
]
"""The volumes of a new sandbox in the order of their devices: the first is ``/dev/vdb``."""


@dataclass(frozen=True, slots=True)
class VolumeRef:
    """A volume."""

    KIND: ClassVar[str] = "volume"

    id: Uuid


@dataclass(frozen=True, slots=True)
class MountRef:
    """What a sandbox, running or hibernated, has mounted at ``path``. It may be its own copy of a volume."""

    KIND: ClassVar[str] = "mount"

    sandbox: Uuid
    path: MountPath


VolumeFrom = VolumeRef | MountRef
"""Where the contents of a new volume come from."""


@dataclass(frozen=True, slots=True)
class CreateVolume:
    """Asks for a volume under a new id, as large as its source or larger. ``start_from`` None: an empty one. The answer
    is :class:`VolumeInfo`."""

    volume: Uuid
    size_mb: SizeMb
    start_from: VolumeFrom | None = None


@dataclass(frozen=True, slots=True)
class GrowVolume:
    """Asks for a larger volume, while a sandbox writes to it, too. The answer is :class:`VolumeInfo`."""

    size_mb: SizeMb


@dataclass(frozen=True, slots=True)
class GrowOwnVolume:
    """Asks a running sandbox for a larger volume of its own, which is mounted at ``path``. The answer is
    :class:`OwnVolume`."""

    path: MountPath
    size_mb: SizeMb


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume. ``size_bytes``: what it takes on the host's disk. ``writer``: the sandbox that has it to write,
    running or hibernated. ``readers``: those that have a copy of it to read."""

    id: str
    size_mb: int
    size_bytes: int
    writer: str | None = None
    readers: tuple[str, ...] = ()
