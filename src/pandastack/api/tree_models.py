"""The shapes of bodies about trees of files."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, StrictBool


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Mkdir(_Request):
    path: str = Field("", description="An absolute path")
    mode: str | None = Field(None, description="Octal digits", examples=["0755"])


class Chmod(_Request):
    path: str = Field("", description="An absolute path")
    mode: str = Field("", description="Octal digits", examples=["0644"])
    recursive: StrictBool | None = Field(None, description="Everything below a directory, too")


class Move(_Request):
    source: str = Field("", alias="from", description="An absolute path")
    to: str = Field("", description="Its new one; missing directories are made")
    overwrite: StrictBool | None = Field(None, description="Replace what is there already")


class Unpacked(BaseModel):
    path: str
    members: int
    skipped: int = Field(description="Links that lead out and were left out")
    bytes: int


class Match(BaseModel):
    path: str
    line: int | None = Field(None, description="Number of the line, from 1")
    text: str | None = Field(None, description="The line, at most 1000 characters of it")


class Found(BaseModel):
    path: str
    matches: list[Match]
    truncated: bool = Field(description="There are more")
