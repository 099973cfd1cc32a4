"""The end of an output that may never end, in a file that does not grow beyond twice what it is to keep."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BoundedFile:
    """Keeps the last ``keep`` bytes at least. A file that is there already is continued."""

    path: Path
    keep: int

    def append(self, data: bytes) -> None:
        """Add to the end. Raises ``OSError`` when the disk is full."""
        with self.path.open("ab", buffering=0) as file:
            file.write(data)
            if file.tell() <= 2 * self.keep:
                return
        kept = self.tail()
        with self.path.open("r+b", buffering=0) as file:
            file.write(kept)
            file.truncate()

    def tail(self, limit: int | None = None) -> bytes:
        """The last ``limit`` bytes (``keep`` without it); empty when there is no file."""
        wanted = self.keep if limit is None else limit
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - wanted))
                return file.read(wanted)
        except FileNotFoundError:
            return b""
