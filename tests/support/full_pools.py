"""A storage pool that is really full: a small one of its own, with a file in it that takes the rest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pandastack.host import facts
from tests.support.installation import Install, Installation, eventually

MIB = 1024**2


def small_pool(install: Install, template: str = "base", gib: int = 3) -> Installation:
    """An installation with one template whose pool is an image of so many GiB."""
    if facts.program("mkfs.xfs") is None:
        pytest.skip("this host has no mkfs.xfs")
    made = install(PANDASTACK_READY_MACHINES="0")
    image = made.layout.engine / "pool.img"
    image.parent.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(gib * 1024 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    made.build(template)
    return made


def free(pool: Path) -> int:
    found = os.statvfs(pool)
    return found.f_bavail * found.f_frsize


@contextmanager
def full(place: Installation, leave: int) -> Iterator[None]:
    """Only ``leave`` bytes are free inside the block, also of what the file system sets aside for files that grow."""
    pool = place.layout.engine / "pool"
    filler, spare = pool / "filler", pool / "spare"
    try:
        with filler.open("wb", buffering=0) as file, spare.open("wb") as room:
            os.posix_fallocate(room.fileno(), 0, leave)
            os.posix_fallocate(file.fileno(), 0, free(pool) - 32 * MIB)
            file.seek(0, os.SEEK_END)
            for piece in (4 * MIB, MIB // 4):
                with suppress(OSError):
                    while file.write(bytes(piece)):  # writing makes the file system give back what it can
                        os.fsync(file.fileno())
        spare.unlink()
        yield
    finally:
        filler.unlink()
        eventually(lambda: free(pool) > 1024 * MIB, 20, "the space is free again")
