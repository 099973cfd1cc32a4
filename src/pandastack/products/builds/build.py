"""A build as this process knows it: its record, log and place, and what works on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.to_thread

from pandastack.products.builds.log import BuildLog
from pandastack.products.builds.records import BuildRecord
from pandastack.products.builds.shelf import Place, Shelf


@dataclass(slots=True)
class Build:
    """The record on disk follows the one here."""

    record: BuildRecord
    shelf: Shelf
    log: BuildLog
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    left: anyio.Event = field(default_factory=anyio.Event)
    """Set once nothing works on it any more."""
    deleted: bool = False
    needed: frozenset[str] = frozenset()
    """Digests of the fetched bodies that it is held to."""

    @property
    def place(self) -> Place:
        return self.shelf.place(self.record.id)

    async def change(self, **values: Any) -> None:
        """Replace fields of the record. Raises :class:`ServerError`."""
        self.record = replace(self.record, **values)
        await anyio.to_thread.run_sync(self.shelf.save, self.record)

    async def remember(self, sandboxes: tuple[str, ...]) -> None:
        """Has the record know the machines of its build before they exist, so that no crash leaves one behind."""
        await self.change(sandboxes=sandboxes)
