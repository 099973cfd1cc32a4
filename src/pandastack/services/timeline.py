"""What is kept of a sandbox: snapshots that its owner asks for, and its checkpoints, to go back to."""

from __future__ import annotations

import time
from dataclasses import replace

import anyio
import structlog

from pandastack.errors import NotFoundError, PandastackError, StorageFullError
from pandastack.services.plans import NewSandbox
from pandastack.services.rewinding import unknown_checkpoint
from pandastack.services.sandboxes import Parts, Sandboxes
from pandastack.store.sandboxes import RUNNING, SandboxRecord
from pandastack.store.snapshots import CHECKPOINT, SNAPSHOT, SnapshotRecord

_LOOK_SECONDS = 1.0  # the shortest distance between automatic checkpoints
_MAX_LABEL = 200  # characters

log = structlog.get_logger(__name__)


class Timeline:
    """Each sandbox has a bounded number of checkpoints; the oldest makes room for the newest."""

    def __init__(self, parts: Parts, sandboxes: Sandboxes) -> None:
        self._registry = parts.registry
        self._activity = parts.activity
        self._lifecycle = parts.lifecycle
        self._snapshots = parts.snapshots
        self._rewinding = parts.rewinding
        self._sandboxes = sandboxes
        self._most = parts.settings.max_checkpoints
        self._looked_at: dict[str, float] = {}

    async def snapshot(self, workspace: str, sandbox_id: str, label: str | None = None) -> SnapshotRecord:
        """Capture a sandbox for as long as its owner wants; it runs on."""
        async with self._sandboxes.use(workspace, sandbox_id, alone=True) as sandbox:
            return await self._snapshots.take(sandbox, SNAPSHOT, (label or "")[:_MAX_LABEL])

    async def checkpoint(self, workspace: str, sandbox_id: str, label: str | None = None) -> SnapshotRecord:
        """Take a checkpoint now; without a label it is named after the last command."""
        async with self._sandboxes.use(workspace, sandbox_id, alone=True) as sandbox:
            return await self._take(sandbox, label)

    async def checkpoints(self, workspace: str, sandbox_id: str) -> list[SnapshotRecord]:
        """A sandbox's checkpoints, oldest first."""
        return await self._snapshots.checkpoints(self._sandboxes.get(workspace, sandbox_id).id)

    async def delete(self, workspace: str, sandbox_id: str, checkpoint_id: str) -> None:
        """Delete one checkpoint."""
        await self._snapshots.delete(await self._find(workspace, sandbox_id, checkpoint_id))

    async def fork(self, workspace: str, sandbox_id: str, checkpoint_id: str, wanted: NewSandbox) -> SandboxRecord:
        """A new sandbox that continues from a checkpoint; the old one is left as it is."""
        checkpoint = await self._find(workspace, sandbox_id, checkpoint_id)
        metadata = {**wanted.metadata, "fork_parent_id": sandbox_id}
        return await self._sandboxes.create(workspace, replace(wanted, snapshot=checkpoint.id, metadata=metadata))

    async def rewind(self, workspace: str, sandbox_id: str, checkpoint_id: str) -> SandboxRecord:
        """The same sandbox as it was, a failed one too; what it did since is lost, its later checkpoints stay."""
        checkpoint = await self._find(workspace, sandbox_id, checkpoint_id)
        with self._activity.hold(sandbox_id):
            async with self._lifecycle.turn(sandbox_id), self._lifecycle.moving(sandbox_id):
                return await self._rewinding.rewind(self._registry.of(sandbox_id), checkpoint)

    async def run(self) -> None:
        """Until cancelled: automatic checkpoints."""
        while True:
            await self.look()
            await anyio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Take the checkpoints that are due: of running sandboxes that did something since the last one."""
        wanted = [record for record in self._registry.all() if record.checkpoint_every]
        existing = {record.id for record in wanted}
        self._looked_at = {key: at for key, at in self._looked_at.items() if key in existing}
        for record in wanted:
            if record.status != RUNNING or not self._due(record, time.time()):
                continue
            try:
                await self._take_automatic(record.id)
            except PandastackError as error:
                log.warning("an automatic checkpoint failed", sandbox_id=record.id, cause=repr(error))

    def _due(self, record: SandboxRecord, now: float) -> bool:
        since = self._looked_at.setdefault(record.id, record.created_at)
        every = record.checkpoint_every or 0.0
        return now - since >= every and self._activity.last_active(record.id) > since

    async def _take_automatic(self, sandbox_id: str) -> None:
        """Neither wakes the sandbox nor counts as a use of it."""
        async with self._lifecycle.turn(sandbox_id):
            record = self._registry.get(sandbox_id)
            if record is not None and record.status == RUNNING:
                self._looked_at[sandbox_id] = time.time()
                await self._take(record, None)

    async def _take(self, sandbox: SandboxRecord, label: str | None) -> SnapshotRecord:
        name = (label or self._activity.last_command(sandbox.id))[:_MAX_LABEL]
        try:
            taken = await self._snapshots.take(sandbox, CHECKPOINT, name)
        except StorageFullError:
            kept = await self._snapshots.checkpoints(sandbox.id)
            if not kept:
                raise
            await self._snapshots.delete(kept[0])
            taken = await self._snapshots.take(sandbox, CHECKPOINT, name)
        for oldest in (await self._snapshots.checkpoints(sandbox.id))[: -self._most]:
            await self._snapshots.delete(oldest)
        return taken

    async def _find(self, workspace: str, sandbox_id: str, checkpoint_id: str) -> SnapshotRecord:
        self._sandboxes.get(workspace, sandbox_id)
        try:
            checkpoint = await self._snapshots.get(workspace, checkpoint_id, CHECKPOINT)
        except NotFoundError as error:
            raise unknown_checkpoint(checkpoint_id) from error
        if checkpoint.sandbox_id != sandbox_id:
            raise unknown_checkpoint(checkpoint_id)
        return checkpoint
