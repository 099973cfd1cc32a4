"""Records of snapshots and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import delete, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.model.node import LOCAL_NODE
from pandastack.store.position import Position
from pandastack.store.schema import snapshots
from pandastack.store.volumes import VolumeUse, uses_from

SNAPSHOT, CHECKPOINT = "snapshot", "checkpoint"
FUNCTION, RUNNER, JOB = OF_PRODUCTS = ("function", "runner", "job")
"""Captures that a product has taken for itself: callers neither see nor restore nor delete them."""


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A captured sandbox, whose data is at ``node``. ``kind`` is :data:`SNAPSHOT`, :data:`CHECKPOINT` or one of
    :data:`OF_PRODUCTS`; ``created_at`` is in epoch seconds.

    For a checkpoint, ``commands`` are the last commands since the previous one, as text for people, and
    ``command_count`` is the number of all; ``automatic`` ones were taken by the server. ``volumes`` are the clones that
    it has of the sandbox's further disks.
    """

    id: str
    workspace: str
    sandbox_id: str
    template: str
    kind: str
    label: str
    cpu: int
    memory_mb: int
    size_bytes: int
    dirty_bytes: int
    created_at: float
    automatic: bool = False
    commands: tuple[str, ...] = ()
    command_count: int = 0
    node: str = LOCAL_NODE
    volumes: tuple[VolumeUse, ...] = ()


async def add(connection: AsyncConnection, record: SnapshotRecord) -> None:
    """Insert ``record``."""
    await connection.execute(insert(snapshots), asdict(record))


async def get(connection: AsyncConnection, snapshot_id: str) -> SnapshotRecord | None:
    """One record, of any workspace."""
    row = (await connection.execute(select(snapshots).where(snapshots.c.id == snapshot_id))).mappings().first()
    return None if row is None else _record(row)


async def of_workspace(
    connection: AsyncConnection,
    workspace: str,
    kind: str,
    sandbox_id: str | None,
    after: Position | None = None,
    limit: int | None = None,
) -> list[SnapshotRecord]:
    """A workspace's records of one kind (and of one sandbox), newest first: at most ``limit`` after a position."""
    query = select(snapshots).where((snapshots.c.workspace == workspace) & (snapshots.c.kind == kind))
    if sandbox_id is not None:
        query = query.where(snapshots.c.sandbox_id == sandbox_id)
    if after is not None:
        query = query.where(tuple_(snapshots.c.created_at, snapshots.c.id) < tuple_(*after))
    query = query.order_by(snapshots.c.created_at.desc(), snapshots.c.id.desc()).limit(limit)
    rows = await connection.execute(query)
    return [_record(row) for row in rows.mappings()]


async def checkpoints(connection: AsyncConnection, sandbox_id: str) -> list[SnapshotRecord]:
    """A sandbox's checkpoints, oldest first."""
    mine = (snapshots.c.sandbox_id == sandbox_id) & (snapshots.c.kind == CHECKPOINT)
    rows = await connection.execute(select(snapshots).where(mine).order_by(snapshots.c.created_at))
    return [_record(row) for row in rows.mappings()]


async def last_checkpoint(connection: AsyncConnection, sandbox_id: str) -> SnapshotRecord | None:
    """A sandbox's newest checkpoint."""
    mine = (snapshots.c.sandbox_id == sandbox_id) & (snapshots.c.kind == CHECKPOINT)
    newest = select(snapshots).where(mine).order_by(snapshots.c.created_at.desc()).limit(1)
    row = (await connection.execute(newest)).mappings().first()
    return None if row is None else _record(row)


async def load_all(connection: AsyncConnection) -> list[SnapshotRecord]:
    """Every record of every workspace, oldest first."""
    rows = await connection.execute(select(snapshots).order_by(snapshots.c.created_at))
    return [_record(row) for row in rows.mappings()]


async def remove(connection: AsyncConnection, snapshot_id: str) -> None:
    """Delete the record; a missing one is fine."""
    await connection.execute(delete(snapshots).where(snapshots.c.id == snapshot_id))


def _record(row: Mapping[Any, Any]) -> SnapshotRecord:
    return SnapshotRecord(
        **{**row, "commands": tuple(row["commands"]), "volumes": uses_from(row["volumes"])},
    )
