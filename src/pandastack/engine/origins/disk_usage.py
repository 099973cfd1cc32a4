"""The real disk usage of snapshots: bytes that deleting them frees, with shared bytes counted once."""

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
    """Measure every file of the pool; ``going`` are ids in ``saved``, in the order of their deletion."""
    going = [name for name in going if saved.has(name)]
    directories = [saved.path(name) for name in going]
    groups = [list(_extents(_files(each))) for each in directories]
    measured = set(directories)
    others = (path for path in _files(pool.directory) if path.parent not in measured)
    usage = shutil.disk_usage(pool.directory)
    return Measured(usage.total, usage.free, RESERVE, dict(zip(going, freed(groups, _extents(others)), strict=True)))


def _files(directory: Path) -> Iterator[Path]:
    for place, _, names in os.walk(directory):  # unlike a glob it skips directories that are removed meanwhile
        yield from (Path(place) / name for name in names)


def _extents(paths: Iterator[Path]) -> Iterator[Extent]:
    for path in paths:
        try:
            yield from extents_of(path)
        except FileNotFoundError:  # machines and snapshots may appear and disappear meanwhile
            continue
