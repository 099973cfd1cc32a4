"""The end of sandboxes: deletion, and clean-up after a failed creation."""

from __future__ import annotations

from contextlib import suppress

import anyio
import structlog

from pandastack.cluster import Engines
from pandastack.errors import BadRequestError, CapacityError, NotFoundError, PandastackError
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.records.activity import Activity
from pandastack.services.records.bus import Bus, DeletionFailed
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.store.sandboxes import SandboxRecord, Status

_UNDO_SECONDS = 20.0
_NOTHING_CREATED = (CapacityError, BadRequestError, NotFoundError)
"""Errors of the engine's create that promise that nothing was created."""

log = structlog.get_logger(__name__)


class Endings:
    """Deletes sandboxes of any workspace with their machine, checkpoints and record."""

    def __init__(
        self,
        registry: Registry,
        engines: Engines,
        activity: Activity,
        lifecycle: Lifecycle,
        snapshots: Snapshots,
        bus: Bus,
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._activity = activity
        self._lifecycle = lifecycle
        self._snapshots = snapshots
        self._bus = bus

    async def delete(self, sandbox_id: str) -> None:
        """Delete the sandbox. After a failure it stays ``stopping``, and the reaper tries again."""
        record = self._registry.get(sandbox_id)
        if record.status != Status.STOPPING:
            await self._registry.move(record, Status.STOPPING)
        try:
            async with self._lifecycle.lock(sandbox_id):
                await self._end_machine(record)
                await self._snapshots.delete_checkpoints(sandbox_id)
        except PandastackError:
            self._bus.publish(DeletionFailed(sandbox_id))
            raise
        await self._registry.remove(sandbox_id)
        self._activity.forget(sandbox_id)
        self._lifecycle.forget(sandbox_id)

    async def undo(self, sandbox_id: str, error: BaseException, *, is_made: bool = False) -> None:
        """Remove everything of a sandbox whose creation failed with ``error``. ``is_made``: the engine has its machine,
        whatever the error says."""
        with anyio.move_on_after(_UNDO_SECONDS, shield=True):
            try:
                if isinstance(error, _NOTHING_CREATED) and not is_made:
                    await self._registry.remove(sandbox_id)
                elif self._registry.find(sandbox_id):
                    await self.delete(sandbox_id)
            except PandastackError as second:
                log.error("sandbox.undo_failed", cause=repr(second))
        self._activity.forget(sandbox_id)

    async def _end_machine(self, record: SandboxRecord) -> None:
        with suppress(NotFoundError):  # it has already ended
            await self._engines.of(record).delete(record.id)
