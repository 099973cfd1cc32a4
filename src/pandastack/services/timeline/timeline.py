"""What is kept of a sandbox: snapshots that its owner asks for, and its checkpoints, to go back to."""

from __future__ import annotations

import time
from dataclasses import replace

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.errors import NotFoundError, PandastackError
from pandastack.services.captures.rewind import unknown_checkpoint
from pandastack.services.records.alarm import Alarm
from pandastack.services.records.command_log import one_line
from pandastack.services.records.spec import NewSandbox
from pandastack.services.sandboxes.sandboxes import Parts, Sandboxes
from pandastack.store.sandboxes import SandboxRecord, Status
from pandastack.store.snapshots import CHECKPOINT, SNAPSHOT, SnapshotRecord

_LOOK_SECONDS = 1.0  # the shortest distance between automatic checkpoints
_AT_ONCE = 4  # captures that were not asked for take host and guests no more than this

log = structlog.get_logger(__name__)


class Timeline:
    """Each sandbox has a bounded number of checkpoints: the newest takes the place of the oldest automatic one."""

    def __init__(self, parts: Parts, sandboxes: Sandboxes) -> None:
        self._registry = parts.registry
        self._activity = parts.activity
        self._lifecycle = parts.lifecycle
        self._snapshots = parts.snapshots
        self._storage_budget = parts.storage_budget
        self._rewinding = parts.rewinding
        self._sandboxes = sandboxes
        self._looked_at: dict[str, float] = {}
        self._under_way: set[str] = set()
        self._places = anyio.CapacityLimiter(_AT_ONCE)
        self._alarm = Alarm()
        self._history = parts.activity.history
        self._history.on_end = self._alarm.expect

    async def snapshot(self, workspace: str, sandbox_id: str, label: str | None = None) -> SnapshotRecord:
        """Capture a sandbox for as long as its owner wants; it runs on."""
        async with self._sandboxes.use(workspace, sandbox_id, exclusive=True) as sandbox:
            name = one_line(label or "")
            return await self._storage_budget.retry_after_evicting(
                lambda: self._snapshots.take(sandbox, SNAPSHOT, name)
            )

    async def checkpoint(self, workspace: str, sandbox_id: str, label: str | None = None) -> SnapshotRecord:
        """Take a checkpoint now; without a label it is named after the last command."""
        async with self._sandboxes.use(workspace, sandbox_id, exclusive=True) as sandbox:
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
            async with self._lifecycle.lock(sandbox_id), self._lifecycle.in_transition(sandbox_id):
                return await self._rewinding.rewind(self._registry.get(sandbox_id), checkpoint)

    async def run(self) -> None:
        """Until cancelled: automatic checkpoints. One that takes long holds up no other sandbox's."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._begin(tasks)
                await self._alarm.sleep_until(self._next(time.time()))

    async def look(self) -> None:
        """Take the checkpoints that are due now."""
        async with anyio.create_task_group() as tasks:
            self._begin(tasks)

    def _begin(self, tasks: TaskGroup) -> None:
        for sandbox_id in self._due(time.time()):
            self._under_way.add(sandbox_id)  # at once: the next look must not begin it again
            tasks.start_soon(self._attempt, sandbox_id)

    def _due(self, now: float) -> list[str]:
        """Running sandboxes that want a checkpoint by now and of which none is being taken."""
        wanted = {record.id: record for record in self._registry.all() if _wants(record)}
        self._looked_at = {key: at for key, at in self._looked_at.items() if key in wanted}
        return [key for key, record in wanted.items() if (at := self._due_at(record)) is not None and at <= now]

    def _next(self, now: float) -> float:
        times = [at for record in self._registry.all() if _wants(record) and (at := self._due_at(record)) is not None]
        return min([now + _LOOK_SECONDS, *times])

    def _due_at(self, record: SandboxRecord) -> float | None:
        return None if record.id in self._under_way else self._wanted_at(record)

    def _wanted_at(self, record: SandboxRecord) -> float | None:
        """When there is to be a checkpoint: of a sandbox that did something since the last attempt."""
        if record.status != Status.RUNNING:
            return None
        times = []
        if record.checkpoint_every:
            since = self._looked_at.setdefault(record.id, record.created_at)
            if self._activity.last_active(record.id) > since:
                times.append(since + record.checkpoint_every)
        if record.checkpoint_after_exec and (settled := self._history.settled_at(record.id)) is not None:
            times.append(settled)
        return min(times, default=None)

    async def _attempt(self, sandbox_id: str) -> None:
        """Neither wakes the sandbox nor counts as a use of it. A failure is logged; the next occasion comes."""
        try:
            async with self._lifecycle.lock(sandbox_id), self._places:
                record = self._registry.find(sandbox_id)
                at = None if record is None else self._wanted_at(record)
                if record is not None and at is not None and at <= time.time():  # still: others had their turn before
                    await self._take(record, None, automatic=True)
        except PandastackError as error:
            log.warning("an automatic checkpoint failed", sandbox_id=sandbox_id, cause=repr(error))
        finally:
            self._under_way.discard(sandbox_id)

    async def _take(self, sandbox: SandboxRecord, label: str | None, *, automatic: bool = False) -> SnapshotRecord:
        self._looked_at[sandbox.id] = time.time()
        ran = self._history.attempt(sandbox.id)
        name = one_line(label) if label else self._history.last(sandbox.id)
        taken = await self._storage_budget.retry_after_evicting(
            lambda: self._snapshots.take(sandbox, CHECKPOINT, name, ran, automatic=automatic)
        )
        self._history.recorded(sandbox.id, ran)
        await self._storage_budget.tidy(sandbox.id)
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


def _wants(record: SandboxRecord) -> bool:
    return bool(record.checkpoint_every or record.checkpoint_after_exec)
