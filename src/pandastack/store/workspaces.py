"""Workspaces and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.model.previews import Visibility
from pandastack.store.schema import workspaces


@dataclass(frozen=True, slots=True)
class WorkspaceRecord:
    """One workspace. ``previews``: with ``private`` those of all its sandboxes want a token."""

    id: str
    created_at: float
    previews: Visibility = Visibility.OPEN


async def load_all(connection: AsyncConnection) -> list[WorkspaceRecord]:
    """Every workspace."""
    rows = await connection.execute(select(workspaces))
    return [WorkspaceRecord(**{**row, "previews": Visibility(row["previews"])}) for row in rows.mappings()]


async def change(connection: AsyncConnection, id: str, values: Mapping[str, Any]) -> None:
    """Set columns of a workspace."""
    await connection.execute(update(workspaces).where(workspaces.c.id == id).values(**values))
