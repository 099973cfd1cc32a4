"""The writable disk of a machine: ext4 in a sparse raw file."""

from __future__ import annotations

from pathlib import Path

from pandastack.host.processes.run import run


async def make_ext4(path: Path, size_mb: int) -> None:
    """Make an empty ext4 of ``size_mb`` MiB that takes about 4 MiB on the host. It has no journal: a sandbox's disk
    does not survive a crash of its host, and a clone is always taken while nothing writes."""
    with path.open("wb") as file:
        file.truncate(size_mb * 1024 * 1024)
    options = "lazy_itable_init=1,nodiscard,root_owner=0:0"
    await run(["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-E", options, str(path)], timeout=60)
