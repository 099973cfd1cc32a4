"""The log of a build: a file that grows up to a limit, and its readers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio

MOST_BYTES = 8 * 1024 * 1024
"""How much of a log is kept: its beginning."""
_TAIL = 4096  # bytes
_PIECE = 64 * 1024


class BuildLog:
    """What a build printed. A reader sees everything from the beginning, and may follow until :meth:`close`."""

    def __init__(self, path: Path, *, closed: bool = False, most: int = MOST_BYTES) -> None:
        self._path = path
        self._most = most
        self._size = path.stat().st_size if path.exists() else 0
        self._tail = b""
        self._cut = False
        self._grown = anyio.Event()
        self.closed = closed

    @property
    def tail(self) -> str:
        """The last few KiB that were printed, beyond the limit too."""
        return self._tail.decode("utf-8", "replace")

    def add(self, data: bytes) -> None:
        """Append; what is over the limit is dropped, and a line says so."""
        self._tail = (self._tail + data)[-_TAIL:]
        if self._cut:
            return
        kept = data[: self._most - self._size]
        self._size += len(kept)
        self._cut = len(kept) < len(data)
        if self._cut:
            kept += f"\n[the log is longer than {self._most} bytes; the rest is dropped]\n".encode()
        with self._path.open("ab") as file:
            file.write(kept)
        self._wake()

    def close(self) -> None:
        """Nothing follows any more."""
        self.closed = True
        self._wake()

    def sha256(self) -> str:
        """The digest of what is kept."""
        return hashlib.sha256(self._path.read_bytes() if self._path.exists() else b"").hexdigest()

    async def read(self, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """What has been printed so far; with ``follow``, until the build has ended."""
        offset = 0
        while True:
            grown, closed = self._grown, self.closed
            while piece := self._piece(offset):
                offset += len(piece)
                yield piece
            if closed or not follow:
                return
            await grown.wait()

    def _piece(self, offset: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                return file.read(_PIECE)
        except FileNotFoundError:  # nothing was printed, or the build was deleted
            return b""

    def _wake(self) -> None:
        self._grown.set()
        self._grown = anyio.Event()
