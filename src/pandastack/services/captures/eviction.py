"""Chooses the automatic checkpoints to evict when storage is short: least recently used first, across sandboxes. Pure.

Never evicted are snapshots, checkpoints that a caller asked for, and the last checkpoint of a failed sandbox.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from pandastack.store.snapshots import CHECKPOINT, SnapshotRecord


def in_eviction_order(
    records: Iterable[SnapshotRecord], used_at: Mapping[str, float], failed: Container[str]
) -> list[SnapshotRecord]:
    """The checkpoints that may be evicted, in eviction order.

    ``used_at`` holds when checkpoints were last restored (epoch seconds). ``failed`` holds the sandboxes whose last
    checkpoint must stay.
    """
    last = {each.sandbox_id: each.id for each in sorted(records, key=_made) if each.kind == CHECKPOINT}
    evictable = [
        each
        for each in records
        if each.kind == CHECKPOINT
        and each.automatic
        and not (each.sandbox_id in failed and last[each.sandbox_id] == each.id)
    ]
    return sorted(evictable, key=lambda each: max(each.created_at, used_at.get(each.id, 0.0)))


def beyond_budget(frees: Mapping[str, int], budget: int) -> list[str]:
    """The checkpoints to evict so that the rest takes at most ``budget`` bytes. ``frees``: bytes, in eviction order."""
    return _first(frees, sum(frees.values()) - budget)


def for_room(frees: Mapping[str, int], missing: int, *, all_or_nothing: bool) -> list[str]:
    """The checkpoints to evict to free ``missing`` more bytes.

    If evicting everything would not suffice, return none (``all_or_nothing``) or every one that frees space.
    """
    if sum(frees.values()) < missing and all_or_nothing:
        return []
    return _first(frees, missing)


def beyond_count(checkpoints: Sequence[SnapshotRecord], most: int) -> list[SnapshotRecord]:
    """One sandbox's checkpoints (oldest first) in excess of ``most``: automatic ones first, never the newest."""
    surplus = max(0, len(checkpoints) - most)
    older = sorted(checkpoints[:-1], key=lambda each: not each.automatic)  # stable: by age among equals
    return older[:surplus]


def _first(frees: Mapping[str, int], wanted: int) -> list[str]:
    """As few checkpoints as free ``wanted`` bytes. One that frees nothing is evicted only together with a later one
    that shares its blocks."""
    evicted: list[str] = []
    needed = 0
    for name, size in frees.items():
        if wanted <= 0:
            break
        evicted.append(name)
        wanted -= size
        if size:
            needed = len(evicted)
    return evicted[:needed]


def _made(record: SnapshotRecord) -> float:
    return record.created_at
