"""Where a new sandbox goes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pandastack.store.snapshots import SnapshotRecord


def place(nodes: Iterable[str], snapshot: SnapshotRecord | None, volumes: str | None = None) -> str:
    """The node for a new sandbox: the one that has its snapshot's data, or ``volumes``, the one that has its volumes,
    otherwise the first of ``nodes``."""
    if snapshot is not None:
        return snapshot.node
    return next(iter(nodes)) if volumes is None else volumes
