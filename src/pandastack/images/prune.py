"""Keeping the cache within a budget: what was not used for the longest time goes first.

Nothing in the cache is needed by what is finished: sandboxes, snapshots and templates have clones. Builds need it, and
hold what they use.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from pandastack.host.files import allocated_bytes
from pandastack.images.cache import Cache

GRACE_SECONDS = 3600.0
"""What was used more recently stays, whatever the budget: a build may be at work with it."""


@dataclass(frozen=True)
class Cached:
    """One entry of the cache. ``used_at`` is in epoch seconds, ``size`` in bytes on the disk."""

    kind: str
    key: str
    size: int
    used_at: float


def list_cached(cache: Cache) -> list[Cached]:
    """The entries of the cache. An entry that is removed meanwhile is left out."""
    found = []
    for kind in _directories(cache.root):
        for entry in _directories(kind):
            if not entry.name.startswith("."):
                found.append(Cached(kind.name, entry.name, _size(entry), _used_at(entry)))
    return found


def plan_prune(entries: Iterable[Cached], budget: int, now: float) -> list[Cached]:
    """The entries to remove so that the others take at most ``budget`` bytes, least recently used first."""
    left = sorted(entries, key=lambda each: each.used_at)
    total = sum(each.size for each in left)
    going = []
    for each in left:
        if total <= budget or each.used_at > now - GRACE_SECONDS:
            break
        going.append(each)
        total -= each.size
    return going


async def prune(cache: Cache, budget: int, *, dry_run: bool = False) -> list[Cached]:
    """Remove entries until the cache takes at most ``budget`` bytes. Returns those that it removed, or would remove.
    One that a build holds stays."""

    def work() -> list[Cached]:
        going = plan_prune(list_cached(cache), budget, time.time())
        return going if dry_run else [each for each in going if cache.drop(each.kind, each.key)]

    return await anyio.to_thread.run_sync(work)


def _directories(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.is_dir()) if path.is_dir() else []


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += 0 if path.is_symlink() else allocated_bytes(path)
        except FileNotFoundError:
            continue
    return total


def _used_at(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return time.time()
