"""Differences between the files of two guests, or of one guest at two times."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pandastack.contract.references import Point


@dataclass(frozen=True, slots=True)
class CompareFiles:
    """Asks what differs in ``after``; with ``patch``, also for unified diffs of small text files."""

    before: Point
    after: Point
    patch: bool = False


class FileKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    DEVICE = "device"
    FIFO = "fifo"
    SOCKET = "socket"


class ChangeKind(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class FileState:
    """A file on one side. ``mode`` as ``ls -l`` writes it, ``mtime`` in epoch seconds; only links have a ``target``."""

    kind: FileKind
    size: int
    uid: int
    gid: int
    mode: str
    mtime: float
    target: str | None = None


@dataclass(frozen=True, slots=True)
class FileChange:
    """One path. ``before`` or ``after`` is None if the path does not exist there; otherwise ``what`` lists differences.

    ``unread``: the contents were not compared, so they may be the same. Bytes of a path that are not UTF-8 are shown
    as ``\\xNN``.
    """

    path: str
    kind: FileKind
    change: ChangeKind
    what: tuple[str, ...]
    before: FileState | None
    after: FileState | None
    unread: bool = False
    patch: str | None = None


@dataclass(frozen=True, slots=True)
class Diff:
    """The number of all changes, and by path the changes themselves, as many as fit in one answer."""

    added: int
    removed: int
    changed: int
    changes: tuple[FileChange, ...]
    truncated: bool
