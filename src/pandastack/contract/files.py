"""Files of a guest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file or directory. ``mode`` is written as ``ls -l`` writes it, ``mtime`` is in whole epoch seconds.

    ``is_dir`` is false for a symbolic link in a listing, whatever it points to.
    """

    name: str
    path: str
    is_dir: bool
    size: int
    mode: str
    mtime: int


@dataclass(frozen=True, slots=True)
class Directory:
    """The entries of a directory, by name."""

    path: str
    entries: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A file was written; ``bytes`` is its size."""

    path: str
    bytes: int
