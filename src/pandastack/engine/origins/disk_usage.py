"""What snapshots really take: bytes that become free when they go, with all that is shared counted once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pandastack.contract.snapshots import Measured
from pandastack.disks.pool import RESERVE, Pool
from pandastack.engine.origins.captures import CaptureStore
from pandastack.host.extents import Extent, extents_of, freed


def measure(pool: Pool, saved: CaptureStore, going: Sequence[str]) -> Measured:
    """Look at every file of the pool; ``going`` are ids on the shelf ``saved``, the first to go first."""
    going = [name for name in going if saved.has(name)]
    directories = [saved.path(name) for name in going]
    groups = [list(_extents(_files(each))) for each in directories]
    measured = set(directories)
    others = (path for path in _files(pool.directory) if path.parent not in measured)
    usage = shutil.disk_usage(pool.directory)
    return Measured(usage.total, usage.free, RESERVE, dict(zip(going, freed(groups, _extents(others)), strict=True)))


def _files(directory: Path) -> Iterator[Path]:
    for place, _, names in os.walk(directory):  # unlike a glob it passes over what is gone before it is looked into
        yield from (Path(place) / name for name in names)


def _extents(paths: Iterator[Path]) -> Iterator[Extent]:
    for path in paths:
        try:
            yield from extents_of(path)
        except FileNotFoundError:  # machines and snapshots come and go meanwhile
            continue
