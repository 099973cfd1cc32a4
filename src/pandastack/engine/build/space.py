"""Room on the host's disks for what a build writes: looked at before, and explained when it runs out."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pandastack.engine.build.progress import megabytes
from pandastack.errors import StorageFullError
from pandastack.host.tasks import beside
from pandastack.vmm.driver import Machine

RESERVE = 1024**3
"""Bytes that must be free where a machine is to build: it writes as it runs, and sandboxes write there too."""

_HINT = (
    "`pandastack template prune --to SIZE` removes what later builds can make again (`--dry-run` shows what), "
    "`pandastack df` shows what takes the space"
)


def check_space(directory: Path, needed: int, what: str) -> None:
    """Raise :class:`StorageFullError` unless ``needed`` bytes are free where ``directory`` is."""
    if shutil.disk_usage(directory).free < needed:
        raise full(directory, needed, what)


def full(directory: Path, needed: int, what: str) -> StorageFullError:
    """What is missing for ``what``, which needs that many bytes where ``directory`` is."""
    free = shutil.disk_usage(directory).free
    missing = max(needed - free, 1024**2)
    return StorageFullError(
        f"insufficient host storage: {what} needs {megabytes(needed)} on the file system {mount_point(directory)}, "
        f"which has {megabytes(free)} left: {megabytes(missing)} are missing. {_HINT}"
    )


def fullest(*directories: Path) -> Path:
    """The one with the least space left."""
    return min(directories, key=lambda each: shutil.disk_usage(each).free)


def mount_point(path: Path) -> Path:
    """Where the file system of an existing ``path`` is mounted."""
    found = path.resolve()
    while not os.path.ismount(found):
        found = found.parent
    return found


@asynccontextmanager
async def ending_when_full(machine: Machine, directory: Path, what: str) -> AsyncIterator[None]:
    """End the block with :class:`StorageFullError` when the machine, which has its disks in ``directory``, stands
    still because the file system is full."""
    stalled = False

    async def watch() -> None:
        nonlocal stalled
        await machine.wait_stalled()
        stalled = True
        tasks.cancel_scope.cancel()

    async with beside(watch) as tasks:
        yield
    if stalled:
        raise full(directory, RESERVE, what)
