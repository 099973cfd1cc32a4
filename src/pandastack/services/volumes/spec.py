"""Validates requests for volumes, and for those of new sandboxes. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pandastack.contract.volumes import MOST, PATH_BYTES, are_apart, is_mount_path
from pandastack.errors import BadRequestError
from pandastack.services.records.spec import WantedVolume
from pandastack.store.volumes import SNAPSHOT, VOLUME, VolumeUse

DEFAULT_SIZE_MB = 256
LARGEST_MB = 65536
"""The size of the largest volume."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DOTS = (".", "..")  # they would be directories of a path
_RESERVED = ("/dev", "/proc", "/run", "/sys")
"""Where a guest's system keeps what no disk may cover."""


@dataclass(frozen=True, slots=True)
class OfVolume:
    """A volume that another one is cloned from, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class OfMount:
    """What a sandbox has mounted at ``path``, its own clone of a volume or a volume."""

    sandbox: str
    path: str


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A request for a volume. ``size_mb`` None: as large as its source, or :data:`DEFAULT_SIZE_MB`. ``kind`` is
    :data:`VOLUME` or :data:`SNAPSHOT`, which has a source. ``id`` None: a new one."""

    name: str
    size_mb: int | None = None
    source: OfVolume | OfMount | None = None
    kind: str = VOLUME
    id: str | None = None


def checked_new(wanted: NewVolume) -> None:
    """Check what can be said without a look at other volumes. Raises :class:`BadRequestError`."""
    checked_name(wanted.name, "name")
    if wanted.size_mb is not None:
        checked_size(wanted.size_mb)
    if wanted.kind not in (VOLUME, SNAPSHOT):
        raise BadRequestError(f"kind: must be {VOLUME!r} or {SNAPSHOT!r}", field="kind")
    if wanted.kind == SNAPSHOT and wanted.source is None:
        hint = '"from": {"volume": NAME} names it'
        raise BadRequestError("from: a snapshot has a volume to be taken of", field="from", hint=hint)
    match wanted.source:
        case OfVolume(name):
            checked_name(name, "from.volume")
        case OfMount(_, path):
            checked_path(path, "from.mount")


def checked_name(name: str, field: str) -> str:
    """Check the name of a volume. Raises :class:`BadRequestError`."""
    if not _NAME.fullmatch(name) or name in _DOTS:
        hint = "for example model-cache.v2"
        message = (
            f"{field}: must be 1 to 64 letters, digits, dots, dashes and underscores, and not only one or two dots"
        )
        raise BadRequestError(message, field=field, hint=hint)
    return name


def checked_size(size_mb: int) -> int:
    """Check the size of a volume in MiB. Raises :class:`BadRequestError`."""
    if not 0 < size_mb <= LARGEST_MB:
        raise BadRequestError(f"size_mb: must be from 1 to {LARGEST_MB}", field="size_mb")
    return size_mb


def checked_path(path: str, field: str) -> str:
    """Check where a volume is mounted, and return it. Raises :class:`BadRequestError`."""
    if not is_mount_path(path):
        hint = "for example /mnt/data"
        message = (
            f"{field}: must be an absolute path of at most {PATH_BYTES} bytes, without '.', '..', '//' and '/' last"
        )
        raise BadRequestError(message, field=field, hint=hint)
    reserved = next((each for each in _RESERVED if path == each or path.startswith(f"{each}/")), None)
    if reserved is not None:
        raise BadRequestError(f"{field}: {reserved} belongs to the guest's system", field=field, hint="use /mnt/NAME")
    return path


def checked_mounts(wanted: Sequence[WantedVolume]) -> list[VolumeUse]:
    """The disks that a new sandbox asks for: names, paths, in this order. Raises :class:`BadRequestError`."""
    if len(wanted) > MOST:
        raise BadRequestError(f"volumes: at most {MOST} for a sandbox", field="volumes")
    uses: list[VolumeUse] = []
    for index, each in enumerate(wanted):
        name = checked_name(each.name, f"volumes.{index}.name")
        path = checked_path(f"/mnt/{name}" if each.path is None else each.path, f"volumes.{index}.path")
        if name in (use.name for use in uses):
            raise BadRequestError(f"volumes.{index}.name: {name} is there twice", field=f"volumes.{index}.name")
        if not are_apart([path, *(use.path for use in uses)]):
            field, hint = f"volumes.{index}.path", "no volume is mounted on or below another one"
            raise BadRequestError(f"{field}: {path} overlaps with the path of another volume", field=field, hint=hint)
        uses.append(VolumeUse(path, each.read_only, name=name))
    return uses
