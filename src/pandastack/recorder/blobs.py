"""The store of fetched bodies of one workspace: a directory of files, each named by the SHA-256 of its content.

What a workspace has fetched is its own: a lock names hashes, and must not be a way to read what others have fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pandastack.errors import ServerError
from pandastack.recorder.lock import Entry, Lock

_NAME = re.compile(r"[0-9a-f]{64}")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Blobs:
    """Everything here blocks. The directory is entered by the proxy's user, through a descriptor only."""

    directory: Path

    def make(self) -> None:
        """Make the directory."""
        self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.mkdir(mode=0o711, exist_ok=True)
        self.directory.chmod(0o711)

    def missing(self, lock: Lock) -> list[Entry]:
        """The entries whose bodies are not here, one for each body. Those that are, count as used now."""
        lacking: dict[str, Entry] = {}
        for entry in lock.entries:
            try:
                os.utime(self.directory / entry.sha256)
            except FileNotFoundError:
                lacking.setdefault(entry.sha256, entry)
        return list(lacking.values())

    def adopt(self, spool: Path, lock: Lock) -> None:
        """Move the bodies of ``lock`` here from the directory of a proxy that has ended, each checked once more.

        Raises :class:`ServerError` for one that is not what its name says.
        """
        for name in sorted({each.sha256 for each in lock.entries}):
            path = self.directory / name
            if path.exists():
                continue
            fd = os.open(spool / name, _READ)
            with os.fdopen(fd, "rb") as file:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or hashlib.file_digest(file, "sha256").hexdigest() != name:
                    raise ServerError(f"the recording proxy stored another body than {name}")
                os.fchown(fd, os.geteuid(), os.getegid())
                os.fchmod(fd, 0o644)
                os.fsync(fd)
            (spool / name).rename(path)

    def prune(self, most: int, needed: Collection[str]) -> None:
        """Delete the bodies that were used longest ago until at most ``most`` bytes are left; ``needed`` ones stay."""
        found = [(path, path.stat()) for path in self.directory.iterdir() if _NAME.fullmatch(path.name)]
        left = sum(each.st_size for _, each in found)
        for path, each in sorted(found, key=lambda pair: pair[1].st_mtime):
            if left <= most:
                return
            if path.name not in needed:
                path.unlink(missing_ok=True)
                left -= each.st_size
