"""Differences between the files of two states of a sandbox, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FileState:
    """A file in one of the two states. ``size`` is in bytes, ``mtime`` in epoch seconds; links have a ``target``."""

    kind: str
    size: int
    mode: str
    uid: int
    gid: int
    mtime: float
    target: str | None = None


@dataclass(frozen=True)
class FileChange:
    """One path. ``change`` is ``added``, ``removed`` or ``changed``, ``what`` lists what changed.

    ``before`` or ``after`` is None if the path did not exist there. With ``unread`` there was no time to compare the
    contents of two files of the same size.
    """

    path: str
    kind: str
    change: str
    what: tuple[str, ...] = ()
    before: FileState | None = None
    after: FileState | None = None
    unread: bool = False
    patch: str | None = None


@dataclass(frozen=True)
class Diff:
    """The changes by path, and the number of each kind. With ``truncated`` not all changes are listed."""

    changes: tuple[FileChange, ...]
    added: int
    removed: int
    changed: int
    truncated: bool = False

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Diff:
        """Build from the server's answer."""
        return cls(
            changes=tuple(map(_change, data.get("changes") or ())),
            added=int(data.get("added") or 0),
            removed=int(data.get("removed") or 0),
            changed=int(data.get("changed") or 0),
            truncated=bool(data.get("truncated")),
        )

    @property
    def paths(self) -> list[str]:
        """The paths of the changes."""
        return [each.path for each in self.changes]

    def patch(self) -> str:
        """The unified diffs of all changes that have one."""
        return "".join(each.patch or "" for each in self.changes)


def _change(data: Mapping[str, Any]) -> FileChange:
    return FileChange(
        path=str(data["path"]),
        kind=str(data.get("kind") or "file"),
        change=str(data["change"]),
        what=tuple(map(str, data.get("what") or ())),
        before=_state(data.get("before")),
        after=_state(data.get("after")),
        unread=bool(data.get("unread")),
        patch=data.get("patch"),
    )


def _state(data: Mapping[str, Any] | None) -> FileState | None:
    if data is None:
        return None
    return FileState(
        kind=str(data.get("kind") or "file"),
        size=int(data.get("size") or 0),
        mode=str(data.get("mode") or ""),
        uid=int(data.get("uid") or 0),
        gid=int(data.get("gid") or 0),
        mtime=float(data.get("mtime") or 0),
        target=data.get("target"),
    )
