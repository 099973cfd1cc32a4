"""The tail of an endless output, in a file that does not grow beyond twice the size to retain."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BoundedFile:
    """Retains at least the last ``keep`` bytes. Appends to an existing file."""

    path: Path
    keep: int

    def append(self, data: bytes) -> None:
        """Append ``data``. Raises ``OSError`` when the disk is full."""
        with self.path.open("ab", buffering=0) as file:
            file.write(data)
            if file.tell() <= 2 * self.keep:
                return
        kept = self.tail()
        with self.path.open("r+b", buffering=0) as file:
            file.write(kept)
            file.truncate()

    def tail(self, limit: int | None = None) -> bytes:
        """The last ``limit`` bytes (default: ``keep``); empty when there is no file."""
        wanted = self.keep if limit is None else limit
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - wanted))
                return file.read(wanted)
        except FileNotFoundError:
            return b""
