"""The open descriptors of a process, as proc(5) shows them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Descriptor:
    """``link`` is the entry under ``/proc/PID/fd``: ``readlink`` says what is open, ``stat`` looks at exactly that."""

    link: Path
    writable: bool


def descriptors(pid: int) -> Iterator[Descriptor]:
    """Every descriptor of the process; those that it closes meanwhile are skipped."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            lines = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text().splitlines()
            flags = next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
            yield Descriptor(link, writable=flags & os.O_ACCMODE != os.O_RDONLY)


def writable_files(pid: int) -> set[Path]:
    """The regular files that the process holds open for writing."""
    found = set()
    for each in descriptors(pid):
        with suppress(FileNotFoundError):
            if each.writable and each.link.is_file():
                found.add(each.link.readlink())
    return found
