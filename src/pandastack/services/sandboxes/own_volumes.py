"""Volumes that sandboxes have of their own, by their template, their source or their snapshot: they grow in use."""

from __future__ import annotations

import anyio

from pandastack.cluster import Engines
from pandastack.errors import BadRequestError, NotFoundError, StorageFullError
from pandastack.model.caller import Caller
from pandastack.services.captures.storage_budget import StorageBudget
from pandastack.services.records.events import NewEvent
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.volumes.leases import Leases

_REFUSED = (BadRequestError, NotFoundError, StorageFullError)
"""What an engine says before it grows anything."""


class OwnVolumes:
    """They have no name: a sandbox and a path say which it is."""

    def __init__(
        self, registry: Registry, engines: Engines, sandboxes: Sandboxes, leases: Leases, storage_budget: StorageBudget
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._sandboxes = sandboxes
        self._leases = leases
        self._storage_budget = storage_budget

    async def grow(self, caller: Caller, sandbox_id: str, path: str, size_mb: int) -> None:
        """Make the volume at ``path`` larger, and its file system, while the sandbox runs; one that is hibernated is
        woken. The size that it has is fine: that completes a growth that was interrupted.

        Raises :class:`BadRequestError` for a smaller size, :class:`QuotaError`, :class:`StorageFullError`,
        :class:`NotFoundError` and :class:`ConflictError`. The record has the new size first, so the quota of the
        workspace holds whatever is interrupted.
        """
        async with self._leases.growing(self._registry.get_usable(caller, sandbox_id), path, size_mb):
            pass  # what is refused wakes nothing
        async with self._sandboxes.use(caller, sandbox_id, exclusive=True) as record:
            before, engine = record.volumes, self._engines.of(record)
            async with self._leases.growing(record, path, size_mb) as volumes:
                await self._registry.change(record.id, volumes=volumes)
            try:
                with anyio.CancelScope(shield=True):
                    await self._storage_budget.retry_after_evicting(
                        record.node, lambda: engine.volumes.grow_own(record.id, path, size_mb)
                    )
            except _REFUSED:
                await self._registry.change(record.id, volumes=before)
                raise
            if set(volumes) != set(before):
                grown = {"volume": None, "path": path, "size_mb": size_mb}
                await self._registry.note(record.id, NewEvent("volume.grown", grown))
