"""The event log of each sandbox, stored until the sandbox is deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.schema import events


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event. ``id`` grows with time, and is 0 until the event is stored; ``time`` is in epoch seconds."""

    id: int
    workspace: str
    sandbox_id: str
    time: float
    type: str
    payload: Mapping[str, Any]


_INSERT = insert(events).inline()


async def add_all(connection: AsyncConnection, records: Sequence[EventRecord]) -> None:
    """Append events; the database assigns their ``id``."""
    rows = [{name: value for name, value in asdict(record).items() if name != "id"} for record in records]
    await connection.execute(_INSERT, rows)


async def latest(connection: AsyncConnection, sandbox_id: str, limit: int | None) -> list[EventRecord]:
    """The newest ``limit`` events of a sandbox (None: all), oldest first."""
    query = select(events).where(events.c.sandbox_id == sandbox_id).order_by(events.c.id.desc()).limit(limit)
    rows = (await connection.execute(query)).mappings().all()
    return [EventRecord(**row) for row in reversed(rows)]


async def after(connection: AsyncConnection, sandbox_id: str, event_id: int) -> list[EventRecord]:
    """The events of a sandbox that came after ``event_id``, oldest first."""
    newer = (events.c.sandbox_id == sandbox_id) & (events.c.id > event_id)
    rows = await connection.execute(select(events).where(newer).order_by(events.c.id))
    return [EventRecord(**row) for row in rows.mappings()]
