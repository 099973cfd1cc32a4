"""Requests for databases, and what the sizes mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pandastack.errors import BadRequestError, UnsupportedError
from pandastack.store.databases import DatabaseRecord

ROLE = DATABASE = "pandastack"
"""The role and the database of the templates that clients get."""

PORT = 5432
"""Where the server listens in the guest."""

DEFAULT_SIZE = "1g"
LONGEST_LABEL = 128
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Size:
    """A size: the template that is made for it, and the most clients at once."""

    template: str
    connections: int


SIZES: Mapping[str, Size] = {
    "1g": Size("postgres", 97),
    "4g": Size("postgres-4g", 197),
    "16g": Size("postgres-16g", 397),
}
"""By their memory. The templates' servers take three connections more, for their superuser."""


@dataclass(frozen=True, slots=True)
class NewDatabase:
    """A request for a database, empty or a copy of ``cloned_from``. ``id`` None: a new one."""

    label: str = ""
    size: str = DEFAULT_SIZE
    always_on: bool = False
    cloned_from: str | None = None
    id: str | None = None


def checked_new(label: str | None, size: str | None, always_on: bool | None) -> NewDatabase:
    """A request for an empty database. Raises :class:`BadRequestError`."""
    return NewDatabase(_label(label or ""), _size(size), bool(always_on))


def checked_clone(source: DatabaseRecord, label: str | None, size: str | None, target_time: str | None) -> NewDatabase:
    """A request for a copy of ``source``. Raises :class:`BadRequestError`, and :class:`UnsupportedError` for a copy of
    another size or of an earlier time."""
    chosen = _label(f"{source.label[: LONGEST_LABEL - 8]} (clone)".strip() if label is None else label)
    if target_time is not None:
        _check_time(target_time)
        hint = "leave it out: a copy is of the database as it is now"
        raise UnsupportedError("target_time: this server keeps no earlier states", field="target_time", hint=hint)
    if size is not None and _size(size) != source.size:
        hint = f"leave it out; or create one of size {size}, and move the data with pg_dump"
        message = f"size: a copy has the size of its source, {source.size}"
        raise UnsupportedError(message, field="size", hint=hint)
    return NewDatabase(chosen, source.size, False, source.id)


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


def _check_time(text: str) -> None:
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        datetime.fromisoformat(text.upper())
    except ValueError:
        hint = "such as 2026-01-31T09:30:00Z"
        raise BadRequestError("target_time: must be a time of RFC 3339", field="target_time", hint=hint) from None
