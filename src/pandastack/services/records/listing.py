"""Filters and pages of lists. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from pandastack.errors import BadRequestError
from pandastack.store.position import Position
from pandastack.store.sandboxes import SandboxRecord, Status

MOST_PER_PAGE = 1000
_MOST_PAIRS = 32
_CURSOR = re.compile(r"(0x[01]\.[0-9a-f]{1,13}p\+[0-9]{1,2}) ([0-9a-f-]{36})")


class Listed(Protocol):
    """A record that can be listed: newest first, by time and then by id."""

    @property
    def id(self) -> str: ...

    @property
    def created_at(self) -> float: ...


Record = TypeVar("Record", bound=Listed)


@dataclass(frozen=True, slots=True)
class SandboxFilter:
    """Selects sandboxes with one of ``statuses`` (empty: any) and with all of these pairs in their metadata."""

    statuses: frozenset[Status] = frozenset()
    metadata: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, statuses: Sequence[str], metadata: Sequence[tuple[str, str]]) -> Self:
        """Check what a caller sent. Raises :class:`BadRequestError` with the parameter's name."""
        wanted = frozenset(checked_status(status) for status in statuses)
        if len(metadata) > _MOST_PAIRS:
            raise BadRequestError(f"metadata: more than {_MOST_PAIRS} pairs", field="metadata")
        for key, _ in metadata:
            if not key or key.startswith("secret."):
                raise BadRequestError(f"metadata: cannot filter by the key {key[:64]!r}", field=f"metadata.{key}"[:128])
        return cls(wanted, tuple(metadata))

    def matches(self, record: SandboxRecord) -> bool:
        """Whether ``record`` is selected."""
        if self.statuses and record.status not in self.statuses:
            return False
        return all(record.metadata.get(key) == value for key, value in self.metadata)


@dataclass(frozen=True, slots=True)
class Page:
    """At most ``limit`` records (None: all) that come ``after`` a position (None: from the first)."""

    limit: int | None = None
    after: Position | None = None

    @classmethod
    def of(cls, limit: int | None, cursor: str | None) -> Self:
        """Check what a caller sent. Raises :class:`BadRequestError` with the parameter's name."""
        if limit is not None and not 1 <= limit <= MOST_PER_PAGE:
            raise BadRequestError(f"limit: must be between 1 and {MOST_PER_PAGE}", field="limit")
        return cls(limit, None if cursor is None else parsed_cursor(cursor))

    def of_records(self, records: Iterable[Record]) -> tuple[list[Record], str | None]:
        """The records of this page, newest first, and the cursor of the next page if there is one."""
        if self == Page():
            return list(records), None
        found = sorted(records, key=_position, reverse=True)
        if self.after is not None:
            found = [record for record in found if _position(record) < self.after]
        return self.cut(found)

    def cut(self, found: list[Record]) -> tuple[list[Record], str | None]:
        """The same for records that are in order and come after the position; pass at least one more than ``limit``."""
        if self.limit is None or len(found) <= self.limit:
            return found, None
        shown = found[: self.limit]
        return shown, cursor_of(_position(shown[-1]))


def checked_status(text: str) -> Status:
    """The status of that name. Raises :class:`BadRequestError`."""
    try:
        return Status(text)
    except ValueError:
        known = ", ".join(Status)
        raise BadRequestError(f"status: unknown status {text[:32]!r}", field="status", hint=f"one of {known}") from None


def cursor_of(position: Position) -> str:
    """A position as text that needs no escaping in a URL."""
    text = f"{position.created_at.hex()} {position.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parsed_cursor(text: str) -> Position:
    """The inverse of :func:`cursor_of`. Raises :class:`BadRequestError`."""
    try:
        padded = text[:128].encode("ascii") + b"=" * (-len(text) % 4)
        found = _CURSOR.fullmatch(base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii"))
    except (ValueError, binascii.Error):
        found = None
    if found is None:
        raise BadRequestError("cursor: not one that this server gave", field="cursor", hint="see X-Next-Cursor")
    return Position(float.fromhex(found[1]), found[2])


def _position(record: Listed) -> Position:
    return Position(record.created_at, record.id)
