"""The storage pool: one directory whose files can be cloned by sharing blocks, wherever that is possible.

If the data directory's own file system can reflink, the pool is a plain directory. If not, and the host lets us mount,
it is an XFS image on a loop device. Failing both it is a plain directory where a clone is a sparse copy: correct,
slower.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from pandastack.host import facts, files, mount
from pandastack.host.lock import FileLock
from pandastack.host.processes.run import CommandError, run

IMAGE_SHARE = 0.9
"""The share of the free space that an XFS image may grow to; it is sparse, so it takes only what is used."""

IMAGE_MINIMUM = 2 * 1024**3
RESERVE = 1024**3
"""Bytes that stay free in the pool: creates below it are refused so that running sandboxes can still write."""


@dataclass(frozen=True)
class Pool:
    """An open storage pool."""

    directory: Path
    reflink: bool

    @property
    def snapshots(self) -> Path:
        return self.directory / "snapshots"

    @property
    def modules(self) -> Path:
        """What machines boot from: kernels, disks with their modules, initial file systems; by their SHA-256."""
        return self.directory / "modules"

    @property
    def machines(self) -> Path:
        return self.directory / "machines"

    def total_bytes(self) -> int:
        return shutil.disk_usage(self.directory).total

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.directory).free


@asynccontextmanager
async def open_pool(directory: Path) -> AsyncIterator[Pool]:
    """The pool under ``directory``, mounted if it needs to be; the last process that leaves it unmounts it.

    Processes that use the pool share one lock; a process that mounts or unmounts briefly holds another.
    """
    target = directory / "pool"
    target.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / "pool.users") as users:
        with FileLock(directory / "pool.lock") as door:
            await anyio.to_thread.run_sync(door.exclusive)
            await _mount_if_needed(directory / "pool.img", target)
            users.shared()
        try:
            pool = Pool(target, files.can_clone(target))
            for each in (pool.snapshots, pool.modules, pool.machines):
                each.mkdir(exist_ok=True)
            yield pool
        finally:
            with anyio.CancelScope(shield=True), FileLock(directory / "pool.lock") as door:
                await anyio.to_thread.run_sync(door.exclusive)
                if mount.is_mounted(target) and users.try_exclusive():
                    await _unmount(target)


async def _mount_if_needed(image: Path, target: Path) -> None:
    if mount.is_mounted(target):  # mounted by another process, or left by one that was killed
        return
    if not image.exists() and (files.can_clone(target) or not await _make_image(image)):
        return
    try:
        await mount.mount_image(image, target)
    except CommandError:
        if _in_use(image):
            raise
        image.unlink()


def _in_use(image: Path) -> bool:
    """Whether the image has ever held anything: an empty one may be dropped when this host cannot mount it."""
    return files.allocated_bytes(image) > 64 * 1024 * 1024


async def _make_image(image: Path) -> bool:
    if not facts.is_root() or facts.program("mkfs.xfs") is None:
        return False
    size = int(shutil.disk_usage(image.parent).free * IMAGE_SHARE)
    if size < IMAGE_MINIMUM:
        return False
    temporary = image.with_suffix(".new")
    with temporary.open("wb") as file:
        file.truncate(size)
    try:
        await run(["mkfs.xfs", "-q", "-f", "-m", "reflink=1", temporary], timeout=60)
        temporary.rename(image)
    finally:
        temporary.unlink(missing_ok=True)
    return True


async def _unmount(target: Path) -> None:
    try:
        await mount.unmount(target)
    except CommandError:
        # Some process (of an ending machine) still has a file open: detach now, the last user ends the mount.
        await run(["umount", "--lazy", target], timeout=60)
