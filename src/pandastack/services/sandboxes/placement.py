"""Where a new sandbox goes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pandastack.store.snapshots import SnapshotRecord


def place(nodes: Iterable[str], snapshot: SnapshotRecord | None) -> str:
    """The node for a new sandbox: the one that has its snapshot's data, otherwise the first of ``nodes``."""
    return next(iter(nodes)) if snapshot is None else snapshot.node
