"""Rewinds a running, hibernated or failed sandbox to a checkpoint, under the same id."""

from __future__ import annotations

import structlog

from pandastack.cluster import Engines
from pandastack.contract.sandboxes import SandboxState
from pandastack.errors import NotFoundError, PandastackError
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.records.command_log import CommandLog
from pandastack.services.records.events import NewEvent
from pandastack.services.records.memory import KEPT
from pandastack.services.records.registry import Registry
from pandastack.store.sandboxes import SandboxRecord, Status
from pandastack.store.snapshots import SnapshotRecord

log = structlog.get_logger(__name__)


class Rewinding:
    """The caller holds the sandbox's lock."""

    def __init__(
        self,
        registry: Registry,
        engines: Engines,
        commands: CommandLog,
        snapshots: Snapshots,
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._commands = commands
        self._snapshots = snapshots

    async def restore(self, record: SandboxRecord) -> SandboxRecord:
        """Restore a failed sandbox to its last checkpoint. Raises :class:`ConflictError` if it has none."""
        checkpoint = await self._snapshots.last_checkpoint(record.id)
        if checkpoint is None:
            raise await self._registry.refusal(record)
        log.info("sandbox.restoring_checkpoint", sandbox_id=record.id, checkpoint=checkpoint.id)
        return await self.rewind(record, checkpoint)

    async def rewind(self, record: SandboxRecord, checkpoint: SnapshotRecord) -> SandboxRecord:
        """Restore the sandbox to ``checkpoint``, running. If its machine is lost meanwhile, the sandbox fails."""
        if record.status in (Status.CREATING, Status.STOPPING):
            raise await self._registry.refusal(record)
        self._snapshots.used(checkpoint.id)
        try:
            await self._engines.of(record).rewind(record.id, checkpoint.id)
        except PandastackError as error:
            await self._fail_if_gone(record, error)
            raise unknown_checkpoint(checkpoint.id) if isinstance(error, NotFoundError) else error from error
        current = self._registry.get(record.id)
        if current.status == Status.STOPPING:
            raise await self._registry.refusal(current)
        self._commands.undone(record.id)
        payload = {"checkpoint": checkpoint.id, "label": checkpoint.label}
        if record.status == Status.FAILED:
            payload["failure"] = record.reason or ""
        event = NewEvent("sandbox.rewound", payload)
        return await self._registry.move(current, Status.RUNNING, event, reason=None, **KEPT)

    async def _fail_if_gone(self, record: SandboxRecord, error: PandastackError) -> None:
        try:
            state = (await self._engines.of(record).sandbox(record.id)).state
        except NotFoundError:
            state = SandboxState.FAILED
        except PandastackError:
            return  # recovery compares once the engine is back
        current = self._registry.get(record.id)
        if state is SandboxState.FAILED and current.status not in (Status.STOPPING, Status.FAILED):
            reason = f"the machine was lost during a rewind: {error.message}"
            event = NewEvent("vm.died", {"reason": reason})
            await self._registry.move(current, Status.FAILED, event, reason=reason)


def unknown_checkpoint(checkpoint_id: str) -> NotFoundError:
    """The error for an id that names no checkpoint of this sandbox."""
    return NotFoundError(f"checkpoint not found: {checkpoint_id[:64]}", hint="GET …/checkpoints lists them")
