"""Requests for databases, and what the sizes mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pandastack.contract.volumes import SIZE_MAXIMUM_MB
from pandastack.errors import BadRequestError

PRODUCT = "database"
"""Whose machines those of databases are, at the control plane."""

ROLE = DATABASE = "pandastack"
"""The role and the database of the templates that clients get."""

DISK = "/var/lib/postgresql"
"""Where the volume with all that a database has is mounted in the guest."""

LARGEST_DISK_GB = SIZE_MAXIMUM_MB // 1024

PORT = 5432
"""Where the server listens in the guest."""

DEFAULT_SIZE = "1g"
LONGEST_LABEL = 128
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Size:
    """A size: the template that is made for it, the most clients at once, its memory in MiB, and the GiB of its disk
    at first."""

    template: str
    connections: int
    memory_mb: int
    disk_gb: int


SIZES: Mapping[str, Size] = {
    "1g": Size("postgres", 97, 1024, 10),
    "4g": Size("postgres-4g", 197, 4096, 40),
    "16g": Size("postgres-16g", 397, 16384, 160),
}
"""By their memory. The templates' servers take three connections more, for their superuser."""


@dataclass(frozen=True, slots=True)
class NewDatabase:
    """A request for a database, empty or a copy of ``cloned_from``: of its machine, or ``restored`` from its archive as
    it was at ``target_time`` in epoch seconds (None: as it is now). ``id`` None: a new one."""

    label: str = ""
    size: str = DEFAULT_SIZE
    always_on: bool = False
    cloned_from: str | None = None
    restored: bool = False
    target_time: float | None = None
    id: str | None = None


class Original(Protocol):
    """What a copy is made of: a database, or the archive of one."""

    @property
    def id(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def size(self) -> str: ...


def checked_new(label: str | None, size: str | None, always_on: bool | None) -> NewDatabase:
    """A request for an empty database. Raises :class:`BadRequestError`."""
    return NewDatabase(_label(label or ""), _size(size), bool(always_on))


def checked_clone(source: Original, label: str | None, size: str | None, target_time: str | None) -> NewDatabase:
    """A request for a copy of ``source``. One of another size or of an earlier time is restored from the archive.
    Raises :class:`BadRequestError`."""
    chosen = _label(f"{source.label[: LONGEST_LABEL - 8]} (clone)".strip() if label is None else label)
    wanted = source.size if size is None else _size(size)
    time = None if target_time is None else _time(target_time)
    return NewDatabase(chosen, wanted, False, source.id, time is not None or wanted != source.size, time)


def checked_disk(wanted_gb: int, has_gb: int) -> int:
    """The GiB of a disk that has ``has_gb``. Raises :class:`BadRequestError` for fewer, and for too many."""
    if wanted_gb < has_gb:
        hint = "a disk never shrinks: pg_dump what there is into another database"
        raise BadRequestError(f"disk_gb: the database has {has_gb} GiB", field="disk_gb", hint=hint)
    if wanted_gb > LARGEST_DISK_GB:
        raise BadRequestError(f"disk_gb: must be at most {LARGEST_DISK_GB}", field="disk_gb")
    return wanted_gb


def _label(text: str) -> str:
    if len(text) > LONGEST_LABEL or not (text.isprintable() or not text):
        hint = "one line of text"
        raise BadRequestError(f"label: must have at most {LONGEST_LABEL} characters", field="label", hint=hint)
    return text


def _size(name: str | None) -> str:
    if name is None:
        return DEFAULT_SIZE
    if name not in SIZES:
        raise BadRequestError(f"size: unknown size {name[:32]!r}", field="size", hint=f"one of {', '.join(SIZES)}")
    return name


def _time(text: str) -> float:
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        hint = "such as 2026-01-31T09:30:00Z"
        raise BadRequestError("target_time: must be a time of RFC 3339", field="target_time", hint=hint) from None
