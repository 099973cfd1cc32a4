"""Files of a sandbox."""

from __future__ import annotations

from typing import Self

from pydantic import Field, StrictBool

from pandastack.api.models.base import Answer, Body, omitted_if_none
from pandastack.services.files import archives


class FileEntry(Answer):
    name: str
    path: str
    is_dir: bool
    size: int
    mode: str
    mtime: int


class Directory(Answer):
    path: str
    entries: list[FileEntry]


class Written(Answer):
    path: str
    bytes: int


class Mkdir(Body):
    path: str = Field("", description="An absolute path")
    mode: str | None = Field(None, description="Octal digits", examples=["0755"])


class Chmod(Body):
    path: str = Field("", description="An absolute path")
    mode: str = Field("", description="Octal digits", examples=["0644"])
    recursive: StrictBool | None = Field(None, description="Also everything below a directory")


class Move(Body):
    source: str = Field("", alias="from", description="An absolute path")
    to: str = Field("", description="The new path; missing directories are created")
    overwrite: StrictBool | None = Field(None, description="Replace an existing target")


class Unpacked(Answer):
    path: str
    members: int
    skipped: int = Field(description="Number of members that were left out: links that lead outside, pipes and devices")
    bytes: int

    @classmethod
    def of(cls, done: archives.Unpacked) -> Self:
        return cls(path=done.path, members=done.members, skipped=done.skipped, bytes=done.bytes)


class Match(Answer):
    path: str
    line: int | None = omitted_if_none("Line number, from 1")
    text: str | None = omitted_if_none("The line, cut to 1000 characters")


class Found(Answer):
    path: str
    matches: list[Match]
    truncated: bool = Field(description="There are more matches")
