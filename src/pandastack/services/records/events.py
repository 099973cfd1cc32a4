"""The event log of each sandbox: written to the store, followed live."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store import Store
from pandastack.store import events as table
from pandastack.store.events import EventRecord


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is stored with a change, in the same transaction."""

    type: str
    payload: Mapping[str, Any] = field(default_factory=dict)


class EventLog:
    """The events of all sandboxes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next: dict[str, anyio.Event] = {}

    async def append(self, connection: AsyncConnection, *entries: tuple[str, str, NewEvent]) -> None:
        """Write events in the caller's transaction: workspace, sandbox and event. Call :meth:`announce` after the
        commit."""
        now = time.time()
        records = [
            EventRecord(0, workspace, sandbox_id, now, each.type, dict(each.payload))
            for workspace, sandbox_id, each in entries
        ]
        if records:
            await table.add_all(connection, records)

    def announce(self, sandbox_id: str) -> None:
        """Wake the followers of the sandbox's events: there are new events, or the sandbox was deleted."""
        if waiting := self._next.pop(sandbox_id, None):
            waiting.set()

    async def latest(self, sandbox_id: str, limit: int | None) -> list[EventRecord]:
        """The newest ``limit`` events (None: all), oldest first."""
        async with self._store.read() as connection:
            return await table.latest(connection, sandbox_id, limit)

    async def follow(
        self, sandbox_id: str, limit: int | None, exists: Callable[[], bool]
    ) -> AsyncIterator[EventRecord]:
        """The newest ``limit`` events, then each new one, for as long as the sandbox ``exists``."""
        last = 0
        while True:
            # Taken before the read, so that every change after the read sets it.
            more = self._next.setdefault(sandbox_id, anyio.Event())
            if not exists():
                del self._next[sandbox_id]
                return
            for record in await self._newer(sandbox_id, last, limit):
                last = record.id
                yield record
            await more.wait()

    async def _newer(self, sandbox_id: str, last: int, limit: int | None) -> list[EventRecord]:
        async with self._store.read() as connection:
            if last:
                return await table.after(connection, sandbox_id, last)
            return await table.latest(connection, sandbox_id, limit)
