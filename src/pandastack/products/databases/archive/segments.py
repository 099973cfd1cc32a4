"""The files of a log as it arrives: written in order, durable before they are confirmed. All calls block."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from pandastack.products.databases.archive.target import mapped, sync_directory
from pandastack.products.databases.archive.wal import SEGMENT, is_segment, segment_name

_PARTIAL = ".partial"
_CHUNK = 1024 * 1024
_GZIP = 31
"""zlib's word for its own format with the head and the end of gzip."""


class Segments:
    """The files of one epoch that are not in the archive's target yet: complete ones under their names, and the last
    one while it grows."""

    def __init__(self, directory: Path, timeline: int) -> None:
        self._directory = directory
        self._timeline = timeline
        self._file: int | None = None
        self.position = 0
        """Where the next byte goes."""

    def begin(self, position: int) -> None:
        """Go on at ``position``, the beginning of a file. What there is of it is written again, with the same bytes."""
        assert position % SEGMENT == 0
        with mapped():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.close()
        self.position = position

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write what follows, and make it durable."""
        with mapped():
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    taken = view[: SEGMENT - self.position % SEGMENT]
                    self._put(taken)
                    view = view[len(taken) :]
            if self._file is not None:
                os.fdatasync(self._file)

    def complete(self) -> list[Path]:
        """The files that are complete, in their order."""
        if not self._directory.exists():
            return []
        return sorted(each for each in self._directory.iterdir() if is_segment(each.name))

    def partial(self) -> Path:
        """The file of the log that is being written."""
        return self._directory / f"{segment_name(self._timeline, self.position)}{_PARTIAL}"

    def close(self) -> None:
        """Nothing follows for now."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _put(self, data: memoryview) -> None:
        path, offset = self.partial(), self.position % SEGMENT
        if self._file is None:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            sync_directory(self._directory)
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], offset + written)
        self.position += len(data)
        if self.position % SEGMENT == 0:
            os.fdatasync(self._file)
            self.close()
            path.rename(path.with_suffix(""))
            sync_directory(self._directory)


def partial_of(directory: Path, name: str) -> bytes | None:
    """What there is of a file of the log, filled up with zeros to its full size; None: nothing."""
    for path in (directory / name, directory / f"{name}{_PARTIAL}"):
        try:
            return path.read_bytes().ljust(SEGMENT, b"\0")
        except FileNotFoundError:
            continue
    return None


def compress(source: Path, into: Path) -> None:
    """Make ``into`` the gzip file of ``source``."""
    packer = Packer(into)
    with mapped(), source.open("rb") as file:
        while piece := file.read(_CHUNK):
            packer.write([piece])
    packer.close()


def compressed(data: bytes) -> bytes:
    """The same in memory."""
    packer = zlib.compressobj(1, wbits=_GZIP)
    return packer.compress(data) + packer.flush()


class Packer:
    """A gzip file as it is written."""

    def __init__(self, path: Path) -> None:
        with mapped():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = path.open("wb")
        self._packer = zlib.compressobj(1, wbits=_GZIP)

    def write(self, pieces: Iterable[bytes]) -> None:
        """Add bytes."""
        with mapped():
            for piece in pieces:
                self._file.write(self._packer.compress(piece))

    def close(self) -> int:
        """Complete it; returns its size."""
        with mapped(), self._file:
            self._file.write(self._packer.flush())
            return self._file.tell()
