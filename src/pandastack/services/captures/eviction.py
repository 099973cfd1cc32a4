"""Which automatic checkpoints go when storage is short: the least recently used first, whosoever they are. Pure.

Snapshots and checkpoints that somebody asked for never go for room, nor does what a failed sandbox could return by.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from pandastack.store.snapshots import CHECKPOINT, SnapshotRecord


def candidates(
    records: Iterable[SnapshotRecord], used_at: Mapping[str, float], failed: Container[str]
) -> list[SnapshotRecord]:
    """Those that may go, the first to go first. ``used_at`` is when some were used after they were made (epoch
    seconds), ``failed`` are the sandboxes whose last checkpoint stays."""
    last = {each.sandbox_id: each.id for each in sorted(records, key=_made) if each.kind == CHECKPOINT}
    going = [
        each
        for each in records
        if each.kind == CHECKPOINT
        and each.automatic
        and not (each.sandbox_id in failed and last[each.sandbox_id] == each.id)
    ]
    return sorted(going, key=lambda each: max(each.created_at, used_at.get(each.id, 0.0)))


def beyond_budget(frees: Mapping[str, int], budget: int) -> list[str]:
    """Those that must go for the rest to take ``budget`` bytes at the most. ``frees`` is in the order of going."""
    return _first(frees, sum(frees.values()) - budget)


def for_room(frees: Mapping[str, int], missing: int, *, all_or_nothing: bool) -> list[str]:
    """Those that must go for ``missing`` bytes more. If all are not enough: none, or those that free anything."""
    if sum(frees.values()) < missing and all_or_nothing:
        return []
    return _first(frees, missing)


def beyond_count(kept: Sequence[SnapshotRecord], most: int) -> list[SnapshotRecord]:
    """Those of one sandbox's checkpoints (oldest first) that are too many: automatic ones first, never the newest."""
    surplus = max(0, len(kept) - most)
    older = sorted(kept[:-1], key=lambda each: not each.automatic)  # stable: by age among equals
    return older[:surplus]


def _first(frees: Mapping[str, int], wanted: int) -> list[str]:
    """As many as it takes. One that frees nothing goes only if a later one, which shares its blocks, must go."""
    going: list[str] = []
    needed = 0
    for name, size in frees.items():
        if wanted <= 0:
            break
        going.append(name)
        wanted -= size
        if size:
            needed = len(going)
    return going[:needed]


def _made(record: SnapshotRecord) -> float:
    return record.created_at
