"""Differences between the files of two states."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from pandastack.api.models.base import Answer, omitted_if_none
from pandastack.contract import compare


class FileState(Answer):
    kind: str
    size: int = Field(description="Bytes; 0 unless it is a file")
    mode: str
    uid: int
    gid: int
    mtime: float
    target: str | None = omitted_if_none("Target, for a link")

    @classmethod
    def of(cls, side: compare.FileState | None) -> Self | None:
        return None if side is None else cls.model_validate(side)


class FileChange(Answer):
    path: str = Field(description="Bytes that are not UTF-8 are written `\\xNN`")
    kind: str = Field(description="`file`, `directory`, `link`, `device`, `fifo` or `socket`")
    change: str = Field(description="`added`, `removed` or `changed`")
    what: list[str] = Field(description="What changed: `kind`, `content`, `target`, `device`, `mode`, `owner`")
    before: FileState | None
    after: FileState | None
    unread: bool | None = omitted_if_none("Same size, but there was no time to compare the contents")
    patch: str | None = omitted_if_none("Unified diff")

    @classmethod
    def of(cls, change: compare.FileChange) -> Self:
        return cls(
            path=change.path,
            kind=change.kind,
            change=change.change,
            what=list(change.what),
            before=FileState.of(change.before),
            after=FileState.of(change.after),
            unread=change.unread or None,
            patch=change.patch or None,
        )


class Diff(Answer):
    from_: str = Field(alias="from")
    to: str
    added: int
    removed: int
    changed: int
    changes: list[FileChange] = Field(description="By path")
    truncated: bool = Field(description="There are more changes than are listed")

    @classmethod
    def of(cls, since: str, until: str, found: compare.Diff) -> Self:
        """The differences between two states, under the names that the caller gave them."""
        return cls.model_validate(
            {
                "from_": since,
                "to": until,
                "added": found.added,
                "removed": found.removed,
                "changed": found.changed,
                "changes": [FileChange.of(each) for each in found.changes],
                "truncated": found.truncated,
            }
        )
