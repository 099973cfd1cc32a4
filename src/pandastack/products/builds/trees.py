"""Trees of files as tar archives in one normal form: equal trees are equal bytes.

Normal form: POSIX.1-2001 (pax), members sorted by the bytes of their names, every directory named, owner and group 0
without names, mode 0755 for directories and for files that their owner may execute, else 0644, one time for all.
Hard links become files of their own. Reads archives that :class:`TarFilter` has passed.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import IO

import anyio
import anyio.to_thread

from pandastack.errors import BadRequestError, TooLargeError
from pandastack.services.files.tar_filter import Outside, TarFilter

_PIECE = 1 << 20


class EntryKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    """A symbolic link."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member. ``offset`` is where a file's content begins in the archive; ``sha256`` is that of the content."""

    name: str
    kind: EntryKind
    executable: bool = False
    size: int = 0
    target: str = ""
    sha256: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Tree:
    """The members of a normal archive, in order. ``sha256`` is that of the archive, ``newest`` the largest time of a
    file in what it was made from, in seconds since the epoch."""

    entries: tuple[Entry, ...]
    sha256: str
    newest: int = 0

    @property
    def files(self) -> tuple[Entry, ...]:
        """The regular files."""
        return tuple(each for each in self.entries if each.kind is EntryKind.FILE)


async def spool(source: AsyncIterator[bytes], target: Path, most: int, field: str) -> None:
    """Write a foreign archive to a file, made safe. Links may lead outside.

    Raises :class:`BadRequestError`, and :class:`TooLargeError` that names ``field`` for more than ``most`` bytes.
    """
    checked, total = TarFilter(Outside.KEEP), 0
    async with await anyio.open_file(target, "wb") as file:
        async for chunk in source:
            total += len(chunk)
            if total > most:
                raise TooLargeError(f"{field}: over {most} bytes", field=field)
            await file.write(checked.feed(chunk))
        checked.end()


async def normalise(source: Path, target: Path, time: int, most: int) -> Tree:
    """Write the archive ``source`` in normal form, all times being ``time``; in a thread.

    Raises :class:`BadRequestError` for names that exclude each other, :class:`TooLargeError` for more than ``most``
    bytes of content.
    """
    return await anyio.to_thread.run_sync(normalise_now, source, target, time, most)


def normalise_now(source: Path, target: Path, time: int, most: int) -> Tree:
    """The same at once."""
    with source.open("rb") as given, tarfile.open(fileobj=given, mode="r:") as archive, target.open("wb") as made:
        members, newest = _members(archive)
        _check(members, most)
        entries = tuple(_write(name, members[name], given, made, time) for name in sorted(members, key=_bytes_of))
        made.write(bytes(2 * tarfile.BLOCKSIZE))
    with target.open("rb") as made:
        return Tree(entries, hashlib.file_digest(made, "sha256").hexdigest(), newest)


def reverse(source: Path, target: Path) -> None:
    """The same archive with its members in the opposite order."""
    with source.open("rb") as given, tarfile.open(fileobj=given, mode="r:") as archive, target.open("wb") as made:
        for member in reversed(archive.getmembers()):
            made.write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
            for piece in pieces(given, member.offset_data, member.size):
                made.write(piece)
            made.write(bytes(-member.size % tarfile.BLOCKSIZE))
        made.write(bytes(2 * tarfile.BLOCKSIZE))


def pieces(file: IO[bytes], offset: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of a file from ``offset`` on."""
    file.seek(offset)
    while size:
        piece = file.read(min(size, _PIECE))
        if not piece:
            raise BadRequestError("the tar archive ends too early")
        size -= len(piece)
        yield piece


def _members(archive: tarfile.TarFile) -> tuple[dict[str, tarfile.TarInfo], int]:
    """The last member of each name, hard links replaced by what they link to, and the newest time of a file."""
    found: dict[str, tarfile.TarInfo] = {}
    newest = 0
    for member in archive:
        name = "/".join(part for part in member.name.split("/") if part not in ("", "."))
        if not name:
            continue
        if member.islnk():
            member = found[member.linkname]  # the filter has seen that it exists
        elif member.isreg():
            newest = max(newest, int(member.mtime))
        found[name] = member
    for name in list(found):
        for parent in PurePosixPath(name).parents:
            if str(parent) != "." and str(parent) not in found:
                found[str(parent)] = _directory()
    return found, newest


def _directory() -> tarfile.TarInfo:
    made = tarfile.TarInfo()
    made.type = tarfile.DIRTYPE
    return made


def _check(members: dict[str, tarfile.TarInfo], most: int) -> None:
    """Refuse files below files, and more content than allowed: hard links may have multiplied it."""
    if sum(member.size for member in members.values() if member.isreg()) > most:
        raise TooLargeError(f"the tree has over {most} bytes of files")
    for name in members:
        parent = str(PurePosixPath(name).parent)
        if parent != "." and not members[parent].isdir():
            raise BadRequestError(
                f"tar member {shown(name[:200])!r} lies below something that is not a directory", field="member"
            )


def _write(name: str, member: tarfile.TarInfo, given: IO[bytes], made: IO[bytes], time: int) -> Entry:
    """Append one member to the archive ``made``."""
    info = tarfile.TarInfo(name)
    info.mtime, info.mode, info.type = time, 0o755, member.type
    if member.isdir():
        made.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        return Entry(name, EntryKind.DIRECTORY)
    if member.issym():
        info.linkname, info.mode = member.linkname, 0o777
        made.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        return Entry(name, EntryKind.LINK, target=member.linkname)
    executable = bool(member.mode & 0o100)
    info.mode, info.size = 0o755 if executable else 0o644, member.size
    made.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    digest, offset = hashlib.sha256(), made.tell()
    for piece in pieces(given, member.offset_data, member.size):
        digest.update(piece)
        made.write(piece)
    made.write(bytes(-member.size % tarfile.BLOCKSIZE))
    return Entry(name, EntryKind.FILE, executable, member.size, "", digest.hexdigest(), offset)


def shown(name: str) -> str:
    """A file's name as JSON can carry it: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _bytes_of(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
