"""What differs between the files of two states."""

from __future__ import annotations

from pydantic import Field

from pandastack.api.models.base import Answer, omitted_if_none


class FileState(Answer):
    kind: str
    size: int = Field(description="Bytes; 0 unless it is a file")
    mode: str
    uid: int
    gid: int
    mtime: float
    target: str | None = omitted_if_none("Of a link")


class FileChange(Answer):
    path: str = Field(description="Bytes that are not UTF-8 are written `\\xNN`")
    kind: str = Field(description="`file`, `directory`, `link`, `device`, `fifo` or `socket`")
    change: str = Field(description="`added`, `removed` or `changed`")
    what: list[str] = Field(description="Of a changed one: `kind`, `content`, `target`, `device`, `mode`, `owner`")
    before: FileState | None
    after: FileState | None
    unread: bool | None = omitted_if_none("Same size, but there was no time to compare the contents")
    patch: str | None = omitted_if_none("Unified diff")


class Diff(Answer):
    from_: str = Field(alias="from")
    to: str
    added: int
    removed: int
    changed: int
    changes: list[FileChange] = Field(description="By path")
    truncated: bool = Field(description="There are more changes than are listed")
