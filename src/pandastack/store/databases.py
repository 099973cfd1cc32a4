"""Records of databases. Their passwords are among the secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.product_schema import databases


class DatabaseState(StrEnum):
    """How far a database is. A crash leaves the state that tells the next start what to finish."""

    PROVISIONING = "provisioning"
    """Its record is written; its machine, or its password, is being made."""
    READY = "ready"
    """It has its password. Whether it runs or sleeps is in the record of its sandbox."""
    FAILED = "failed"
    """It could not be made; ``error`` says why."""
    DELETING = "deleting"
    """Its sandbox is being deleted; the record goes last."""


@dataclass(frozen=True, slots=True)
class DatabaseRecord:
    """A database of a workspace. Its sandbox has the same id. ``created_at`` is in epoch seconds; ``cloned_from`` is
    the database that it began as a copy of: of its machine, or ``restored`` from its archive, as it was at
    ``target_time`` (None: as it was then)."""

    id: str
    workspace: str
    label: str
    size: str
    state: DatabaseState
    created_at: float
    always_on: bool = False
    cloned_from: str | None = None
    error: str | None = None
    restored: bool = False
    target_time: float | None = None


async def add(connection: AsyncConnection, record: DatabaseRecord) -> None:
    """Insert ``record``."""
    await connection.execute(insert(databases), asdict(record))


async def load_all(connection: AsyncConnection) -> list[DatabaseRecord]:
    """The databases of all workspaces, oldest first."""
    rows = await connection.execute(select(databases).order_by(databases.c.created_at, databases.c.id))
    return [_record(row) for row in rows.mappings()]


async def change(connection: AsyncConnection, database_id: str, **values: Any) -> None:
    """Set columns of a record."""
    await connection.execute(update(databases).where(databases.c.id == database_id).values(**values))


async def remove(connection: AsyncConnection, database_id: str) -> None:
    """Delete a record; a missing one is fine."""
    await connection.execute(delete(databases).where(databases.c.id == database_id))


def _record(row: Mapping[Any, Any]) -> DatabaseRecord:
    return DatabaseRecord(**{**row, "state": DatabaseState(row["state"])})
