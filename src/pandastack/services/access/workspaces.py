"""The settings of workspaces, in memory and in the store: each request for a preview asks for them."""

from __future__ import annotations

from dataclasses import replace

import anyio

from pandastack.errors import NotFoundError
from pandastack.model.caller import Caller
from pandastack.model.previews import Visibility
from pandastack.store import Store, workspaces
from pandastack.store.workspaces import WorkspaceRecord


class Workspaces:
    """One control plane owns the settings of its store's workspaces."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, WorkspaceRecord] = {}
        self._lock = anyio.Lock()

    async def load(self) -> None:
        """Read what the previous run left."""
        async with self._store.read() as connection:
            self._records = {record.id: record for record in await workspaces.load_all(connection)}

    def of(self, caller: Caller) -> WorkspaceRecord:
        """The caller's workspace. Raises :class:`NotFoundError`."""
        if (record := self._records.get(caller.workspace)) is None:
            raise NotFoundError("workspace not found")
        return record

    def previews(self, workspace: str) -> Visibility:
        """Who may see the previews of a workspace's sandboxes."""
        record = self._records.get(workspace)
        return Visibility.OPEN if record is None else record.previews

    async def change(self, caller: Caller, *, previews: Visibility | None) -> WorkspaceRecord:
        """Change the settings that are not None. The gateway hears of it within a second."""
        async with self._lock:  # the store and the memory must not end with different values
            record = self.of(caller)
            if previews is None or previews is record.previews:
                return record
            async with self._store.write() as connection:
                await workspaces.change(connection, record.id, {"previews": previews})
            changed = self._records[record.id] = replace(record, previews=previews)
            return changed
