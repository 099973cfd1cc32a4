"""Sandbox records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.model.node import LOCAL_NODE
from pandastack.store.schema import sandboxes
from pandastack.store.volumes import VolumeUse, uses_from


class Status(StrEnum):
    """The state of a sandbox. The legal moves are in ``services/records/status.py``."""

    CREATING = "creating"
    """Its record is written, its machine is being restored. It can be neither used nor deleted."""
    RUNNING = "running"
    """Its machine executes commands."""
    PAUSED = "paused"
    """Its machine's CPUs are paused; memory and disk stay on the host."""
    HIBERNATED = "hibernated"
    """It has no machine: memory, devices and disk are stored until it is used or woken."""
    STOPPING = "stopping"
    """It is being deleted. The record is removed once nothing is left on the engine."""
    FAILED = "failed"
    """Its machine is gone; ``reason`` says why. A checkpoint can bring it back."""


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """The control plane's record of one sandbox. ``reason`` says why it failed; times are in epoch seconds; ``node`` is
    the node that holds it.

    ``on_expire`` is what happens at the idle limit (None: it is deleted), ``checkpoint_every`` the seconds between
    automatic checkpoints (None: there are none); with ``checkpoint_after_exec`` there is one after each command.
    ``max_lifetime_seconds`` after its creation it is deleted, in use or not (None: never). ``wake_at_start`` marks what
    a stopping server hibernated while it ran, for the next server to wake. ``on_memory_loss`` is what happens when only
    its disks are left (None: it boots from them); ``memory_lost_at`` and ``memory_lost_reason`` tell of the last time.
    ``network`` is its network policy as callers write it (None: not known, from before there were any). ``volumes`` are
    its further disks, in the order of their devices. ``product`` names the kind of thing that it is the machine of,
    such as ``database`` (None: it is a caller's own). One that is ``always_on`` is not hibernated when it is idle.
    """

    id: str
    workspace: str
    template: str
    status: Status
    ttl_seconds: int
    created_at: float
    last_active_at: float
    persistent: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    cpu: int = 0
    memory_mb: int = 0
    disk_mb: int = 0
    boot_ms: int | None = None
    boot_mode: str | None = None
    reason: str | None = None
    from_snapshot: str | None = None
    on_expire: str | None = None
    checkpoint_every: float | None = None
    checkpoint_after_exec: bool = False
    node: str = LOCAL_NODE
    max_lifetime_seconds: int | None = None
    wake_at_start: bool = False
    on_memory_loss: str | None = None
    memory_lost_at: float | None = None
    memory_lost_reason: str | None = None
    network: Mapping[str, Any] | None = None
    volumes: tuple[VolumeUse, ...] = ()
    product: str | None = None
    always_on: bool = False


_INSERT = insert(sandboxes).inline()
_ALL = select(sandboxes).order_by(sandboxes.c.created_at)
_DELETE = delete(sandboxes).where(sandboxes.c.id == bindparam("sandbox_id"))
_TOUCH = (
    update(sandboxes).where(sandboxes.c.id == bindparam("sandbox_id")).values(last_active_at=bindparam("active_at"))
)


async def add(connection: AsyncConnection, record: SandboxRecord) -> None:
    """Insert ``record``."""
    await connection.execute(_INSERT, asdict(record))


async def add_all(connection: AsyncConnection, records: Sequence[SandboxRecord]) -> None:
    """Insert all ``records``, or none."""
    await connection.execute(_INSERT, [asdict(record) for record in records])


async def load_all(connection: AsyncConnection) -> list[SandboxRecord]:
    """Every record of every workspace, oldest first."""
    rows = await connection.execute(_ALL)
    return [
        SandboxRecord(**{**row, "status": Status(row["status"]), "volumes": uses_from(row["volumes"])})
        for row in rows.mappings()
    ]


async def change_all(connection: AsyncConnection, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Set columns of some records: id → values."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for sandbox_id, values in changes.items():
        if values:
            alike.setdefault(tuple(sorted(values)), []).append({"sandbox_id": sandbox_id, **_columns(values)})
    for names, rows in alike.items():
        where = update(sandboxes).where(sandboxes.c.id == bindparam("sandbox_id"))
        await connection.execute(where.values({name: bindparam(name) for name in names}), rows)


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    if "volumes" not in values:
        return dict(values)
    return {**values, "volumes": [asdict(each) for each in values["volumes"]]}


async def remove(connection: AsyncConnection, sandbox_id: str) -> None:
    """Delete the record and, through the foreign key, its events."""
    await connection.execute(_DELETE, {"sandbox_id": sandbox_id})


async def set_active(connection: AsyncConnection, times: Mapping[str, float]) -> None:
    """Store when sandboxes were last active: id → epoch seconds. Ids without a record are skipped."""
    if times:
        rows = [{"sandbox_id": key, "active_at": at} for key, at in times.items()]
        await connection.execute(_TOUCH, rows)
