"""Reading the archive of a template, which anybody may have written."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pandastack.errors import BadRequestError
from pandastack.host import files
from pandastack.snapshots.archive.index import CHUNK, INDEX, INDEX_MAX, SUM, Index, PackedFile, damaged, parse
from pandastack.snapshots.archive.zstd import DECOMPRESS, last_words, zstd
from pandastack.snapshots.manifest import Snapshot

_BLOCK = tarfile.BLOCKSIZE

Advance = Callable[[int, int], None]
"""Told how many of so many bytes are done."""


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Read the index of the archive at ``path``. Raises :class:`BadRequestError` for anything but such an archive."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadRequestError(f"{path}: {error.strerror}", field="file") from error
    with file, zstd(*DECOMPRESS, stdin=file, stdout=subprocess.PIPE) as process:
        stream = _Stream(process)
        text = stream.member(INDEX, INDEX_MAX)
        digest = hashlib.sha256(text).hexdigest()
        if stream.member(SUM, 64) != digest.encode():
            raise damaged("its index is not what its checksum says")
        yield Archive(parse(text), digest, stream)


@dataclass(frozen=True)
class Archive:
    """An archive whose index has been read and checked; its files have not."""

    index: Index
    digest: str
    """The SHA-256 of the index, and so of everything in the archive."""
    stream: _Stream

    @property
    def packed(self) -> int:
        """The bytes that :meth:`unpack` writes."""
        return sum(each.packed for each in self.index.files)

    def unpack(self, directory: Path, advance: Advance) -> Snapshot:
        """Write the files into ``directory``. Raises :class:`BadRequestError` for the first one that is not what the
        index says. Blocking."""
        done = 0
        for each in self.index.files:
            self.stream.expect(each.name, each.packed)
            digest = hashlib.sha256()
            try:
                with (directory / each.name).open("wb") as file:
                    file.truncate(each.size)
                    for place, chunk in self._chunks(each):
                        os.pwrite(file.fileno(), chunk, place)
                        digest.update(chunk)
                        done += len(chunk)
                        advance(done, self.packed)
            except OSError as error:
                raise files.map_error(error, directory / each.name) from error
            if digest.hexdigest() != each.sha256:
                raise damaged(f"{each.name} has another SHA-256 than its index says")
            self.stream.skip(-each.packed % _BLOCK)
        self.stream.expect_end()
        return Snapshot(directory, self.index.manifest)

    def _chunks(self, packed: PackedFile) -> Iterator[tuple[int, bytes]]:
        for start, end in packed.pairs:
            while start < end:
                chunk = self.stream.exactly(min(CHUNK, end - start))
                yield start, chunk
                start += len(chunk)


class _Stream:
    """The bytes that zstd makes of an archive, read strictly in order."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process, self._out = process, process.stdout

    def exactly(self, count: int) -> bytes:
        data = self._out.read(count)
        if len(data) != count:
            self._process.wait()
            raise damaged(last_words(self._process) if self._process.returncode else "it ends too early")
        return data

    def skip(self, count: int) -> None:
        if any(self.exactly(count)):
            raise damaged("there is something between its members")

    def expect(self, name: str, size: int | None = None) -> int:
        """Read the header of the next member, a regular file that is called ``name``; returns its size."""
        try:
            member = tarfile.TarInfo.frombuf(self.exactly(_BLOCK), "ascii", "strict")
        except (tarfile.HeaderError, UnicodeError, ValueError) as error:
            raise damaged(f"{name} has a malformed header") from error
        fits = size is None or member.size == size
        if (member.name, member.type) != (name, tarfile.REGTYPE) or not fits:
            raise damaged(f"{name} is missing, or not what the index says")
        return member.size

    def member(self, name: str, most: int) -> bytes:
        """A small member as a whole."""
        size = self.expect(name)
        if not 0 <= size <= most:
            raise damaged(f"{name} is too large")
        data = self.exactly(size)
        self.skip(-size % _BLOCK)
        return data

    def expect_end(self) -> None:
        self.skip(2 * _BLOCK)
        if self._out.read(1):
            raise damaged("there is something behind its end")
        if self._process.wait() != 0:
            raise damaged(last_words(self._process))
