"""Records of volumes, and of the disks that sandboxes and snapshots have of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.model.node import LOCAL_NODE
from pandastack.store.schema import volumes

VOLUME, SNAPSHOT = "volume", "snapshot"


class VolumeState(StrEnum):
    """Whether a volume can be used. A crash leaves the state that tells the next start what to finish."""

    CREATING = "creating"
    """Its record is written, its disk is being made."""
    READY = "ready"
    DELETING = "deleting"
    """Its disk is being deleted; the record goes last."""
    LOST = "lost"
    """Its node has no disk of it."""


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """A volume of a workspace. ``kind`` is :data:`VOLUME` or :data:`SNAPSHOT`, which is only read. ``created_at`` is in
    epoch seconds; ``node`` is the node that has its disk."""

    id: str
    workspace: str
    name: str
    size_mb: int
    kind: str
    state: VolumeState
    created_at: float
    node: str = LOCAL_NODE


@dataclass(frozen=True, slots=True)
class VolumeUse:
    """A disk of a sandbox, by its mount path in the guest: the volume ``volume`` with its ``name``, or, where both are
    None, a clone of the sandbox's own with ``size_mb`` (0 for a volume, whose record has its size)."""

    path: str
    read_only: bool = False
    volume: str | None = None
    name: str | None = None
    size_mb: int = 0


def uses_from(stored: Iterable[Mapping[str, Any]]) -> tuple[VolumeUse, ...]:
    """The disks of a sandbox or snapshot, from their column."""
    return tuple(VolumeUse(**each) for each in stored)


async def add(connection: AsyncConnection, record: VolumeRecord) -> None:
    """Insert ``record``."""
    await connection.execute(insert(volumes), asdict(record))


async def get(connection: AsyncConnection, workspace: str, name: str) -> VolumeRecord | None:
    """One volume of a workspace by its name, in any state."""
    return await _first(connection, (volumes.c.workspace == workspace) & (volumes.c.name == name))


async def by_id(connection: AsyncConnection, volume_id: str) -> VolumeRecord | None:
    """One volume of any workspace, in any state."""
    return await _first(connection, volumes.c.id == volume_id)


async def of_workspace(connection: AsyncConnection, workspace: str) -> list[VolumeRecord]:
    """The volumes of a workspace, in any state, by name."""
    query = select(volumes).where(volumes.c.workspace == workspace).order_by(volumes.c.name)
    return [_record(row) for row in (await connection.execute(query)).mappings()]


async def of_node(connection: AsyncConnection, node: str) -> list[VolumeRecord]:
    """The volumes of all workspaces that a node has, in any state."""
    rows = await connection.execute(select(volumes).where(volumes.c.node == node))
    return [_record(row) for row in rows.mappings()]


async def total(connection: AsyncConnection, workspace: str) -> tuple[int, int]:
    """How many volumes a workspace has, and their MiB together."""
    query = select(func.count(), func.coalesce(func.sum(volumes.c.size_mb), 0)).where(volumes.c.workspace == workspace)
    count, size = (await connection.execute(query)).one()
    return int(count), int(size)


async def sizes(connection: AsyncConnection, ids: Collection[str]) -> dict[str, int]:
    """The MiB of volumes: id → size."""
    rows = await connection.execute(select(volumes.c.id, volumes.c.size_mb).where(volumes.c.id.in_(ids)))
    return {each.id: each.size_mb for each in rows}


async def change(connection: AsyncConnection, volume_id: str, **values: Any) -> None:
    """Set columns of a record."""
    await connection.execute(update(volumes).where(volumes.c.id == volume_id).values(**values))


async def remove(connection: AsyncConnection, volume_id: str) -> None:
    """Delete a record; a missing one is fine."""
    await connection.execute(delete(volumes).where(volumes.c.id == volume_id))


async def clones(connection: AsyncConnection, uses: Iterable[VolumeUse]) -> tuple[VolumeUse, ...]:
    """The disks of a copy of a sandbox that has ``uses``: clones of its own, of the same sizes, at the same paths."""
    uses = tuple(uses)
    named = [each.volume for each in uses if each.volume is not None]
    known = await sizes(connection, named) if named else {}
    return tuple(
        VolumeUse(each.path, each.read_only, size_mb=known.get(each.volume or "", each.size_mb)) for each in uses
    )


async def _first(connection: AsyncConnection, where: Any) -> VolumeRecord | None:
    row = (await connection.execute(select(volumes).where(where))).mappings().first()
    return None if row is None else _record(row)


def _record(row: Mapping[Any, Any]) -> VolumeRecord:
    return VolumeRecord(**{**row, "state": VolumeState(row["state"])})
