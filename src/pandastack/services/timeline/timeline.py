"""Snapshots requested by the owner of a sandbox, and the checkpoints that it can be rewound to."""

from __future__ import annotations

from dataclasses import replace

from pandastack.errors import NotFoundError
from pandastack.model.caller import Caller
from pandastack.services.captures.rewind import Rewinding, unknown_checkpoint
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.captures.storage_budget import StorageBudget
from pandastack.services.records.activity import Activity
from pandastack.services.records.command_log import one_line
from pandastack.services.records.registry import Registry
from pandastack.services.records.spec import NewSandbox
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.snapshots import CHECKPOINT, SNAPSHOT, SnapshotRecord


class Timeline:
    """Each sandbox has a bounded number of checkpoints: a new one replaces the oldest automatic one."""

    def __init__(
        self,
        registry: Registry,
        activity: Activity,
        lifecycle: Lifecycle,
        sandboxes: Sandboxes,
        snapshots: Snapshots,
        storage_budget: StorageBudget,
        rewinding: Rewinding,
    ) -> None:
        self._registry = registry
        self._activity = activity
        self._lifecycle = lifecycle
        self._sandboxes = sandboxes
        self._snapshots = snapshots
        self._storage_budget = storage_budget
        self._rewinding = rewinding

    async def snapshot(
        self,
        caller: Caller,
        sandbox_id: str,
        label: str | None = None,
        *,
        snapshot_id: str | None = None,
        kind: str = SNAPSHOT,
    ) -> SnapshotRecord:
        """Take a snapshot, which lasts until it is deleted; the sandbox keeps running. ``snapshot_id`` None: new.
        Products take some of a ``kind`` of their own, which callers neither see nor delete."""
        async with self._sandboxes.use(caller, sandbox_id, exclusive=True) as sandbox:
            name = one_line(label or "")
            return await self._storage_budget.retry_after_evicting(
                sandbox.node, lambda: self._snapshots.take(sandbox, kind, name, snapshot_id=snapshot_id)
            )

    async def checkpoint(
        self, caller: Caller, sandbox_id: str, label: str | None = None, *, checkpoint_id: str | None = None
    ) -> SnapshotRecord:
        """Take a checkpoint now; the default label is the last command. ``checkpoint_id`` None: a new id."""
        async with self._sandboxes.use(caller, sandbox_id, exclusive=True) as sandbox:
            return await self.take(sandbox, label, checkpoint_id=checkpoint_id)

    async def checkpoints(self, caller: Caller, sandbox_id: str) -> list[SnapshotRecord]:
        """A sandbox's checkpoints, oldest first."""
        return await self._snapshots.checkpoints(self._sandboxes.get(caller, sandbox_id).id)

    async def delete(self, caller: Caller, sandbox_id: str, checkpoint_id: str) -> None:
        """Delete one checkpoint."""
        await self._snapshots.delete(await self.get(caller, sandbox_id, checkpoint_id))

    async def fork(self, caller: Caller, sandbox_id: str, checkpoint_id: str, wanted: NewSandbox) -> SandboxRecord:
        """Create a sandbox that continues from a checkpoint; the old one is left as it is."""
        checkpoint = await self.get(caller, sandbox_id, checkpoint_id)
        metadata = {**wanted.metadata, "fork_parent_id": sandbox_id}
        return await self._sandboxes.create(caller, replace(wanted, snapshot=checkpoint.id, metadata=metadata))

    async def rewind(self, caller: Caller, sandbox_id: str, checkpoint_id: str) -> SandboxRecord:
        """Rewind a sandbox, also a failed one; its work since is lost, its later checkpoints stay."""
        checkpoint = await self.get(caller, sandbox_id, checkpoint_id)
        with self._activity.hold(sandbox_id):
            async with self._lifecycle.lock(sandbox_id), self._lifecycle.in_transition(sandbox_id):
                return await self._rewinding.rewind(self._registry.get(sandbox_id), checkpoint)

    async def get(self, caller: Caller, sandbox_id: str, checkpoint_id: str) -> SnapshotRecord:
        """One checkpoint; raises :class:`NotFoundError`."""
        self._sandboxes.get(caller, sandbox_id)
        try:
            checkpoint = await self._snapshots.get(caller, checkpoint_id, CHECKPOINT)
        except NotFoundError as error:
            raise unknown_checkpoint(checkpoint_id) from error
        if checkpoint.sandbox_id != sandbox_id:
            raise unknown_checkpoint(checkpoint_id)
        return checkpoint

    async def take(
        self, sandbox: SandboxRecord, label: str | None, *, automatic: bool = False, checkpoint_id: str | None = None
    ) -> SnapshotRecord:
        """Take a checkpoint of a running sandbox, whose lock the caller holds."""
        commands = self._activity.command_log
        ran = commands.attempt(sandbox.id)
        name = one_line(label) if label else commands.last(sandbox.id)
        taken = await self._storage_budget.retry_after_evicting(
            sandbox.node,
            lambda: self._snapshots.take(
                sandbox, CHECKPOINT, name, ran, automatic=automatic, snapshot_id=checkpoint_id
            ),
        )
        commands.recorded(sandbox.id, ran)
        await self._storage_budget.tidy(sandbox)
        return taken
