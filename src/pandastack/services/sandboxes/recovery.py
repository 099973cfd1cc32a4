"""Keeps the records true to what the engine has: after a restart, and when machines die."""

from __future__ import annotations

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from pandastack.cluster import EngineClient
from pandastack.contract.sandboxes import SandboxState
from pandastack.errors import PandastackError
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.records.activity import Activity
from pandastack.services.records.events import NewEvent
from pandastack.services.records.registry import Registry
from pandastack.services.records.status import LIVE
from pandastack.services.sandboxes.endings import Endings
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.store.sandboxes import SandboxRecord, Status

_COMPARED = (*LIVE, Status.FAILED)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0

log = structlog.get_logger(__name__)


class Recovery:
    """Compares the registry with the engine."""

    def __init__(
        self,
        registry: Registry,
        engine: EngineClient,
        activity: Activity,
        lifecycle: Lifecycle,
        endings: Endings,
        snapshots: Snapshots,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._activity = activity
        self._lifecycle = lifecycle
        self._endings = endings
        self._snapshots = snapshots

    async def reconcile(self) -> None:
        """Before the first request: bring in order what the previous run left.

        Half-created sandboxes and half-done deletions are finished, machines and snapshots without a record are
        ended, and records without a machine fail. With the engine away this is left to :meth:`run` and the reaper.
        """
        for record in self._registry.all():
            self._activity.start(record.id, record.last_active_at)
            if record.status == Status.CREATING:
                await self._registry.move(record, Status.STOPPING)
        try:
            await self._finish_deletions()
            await self._end_unknown_machines()
            await self.compare()
            await self._snapshots.reconcile({record.id for record in self._registry.all()})
        except PandastackError as error:
            log.warning("recovery waits for the engine", cause=repr(error))

    async def compare(self) -> None:
        """Bring every record to the state of its machine; fail those whose machine is gone or dead."""
        expected = [record for record in self._registry.all() if self._can_be_compared(record)]
        machines = {each.id: each.state for each in await self._engine.sandboxes()}
        for record in expected:
            if self._registry.find(record.id) is record and self._can_be_compared(record):
                await self._correct(record, machines.get(record.id))

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Until cancelled: watch the engine's events, comparing anew after every interruption."""
        task_status.started()
        pause = _FIRST_PAUSE
        while True:
            try:
                async for event in self._engine.events():
                    if event is None and pause:
                        pause = 0.0  # connected: whatever happened before is in the engine's list
                        await self.compare()
                    elif event is not None:
                        await self._died(event.sandbox_id, event.reason, pid=event.pid)
            except PandastackError as error:
                log.warning("the engine's events are interrupted", cause=repr(error))
            pause = min(_LONGEST_PAUSE, pause * 2 or _FIRST_PAUSE)
            await anyio.sleep(pause)

    def _can_be_compared(self, record: SandboxRecord) -> bool:
        return record.status in _COMPARED and not self._lifecycle.is_in_transition(record.id)

    async def _correct(self, record: SandboxRecord, state: SandboxState | None) -> None:
        if state is None:
            reason = "its machine did not survive a restart of the host or the engine"
            await self._fail(record.id, NewEvent("recover.orphaned", {"reason": reason}), reason)
        elif state is SandboxState.FAILED:
            await self._died(record.id, "its machine died")
        elif (status := Status(state)) != record.status:
            # A failed one: it was being rewound when the control plane was killed.
            event = NewEvent("recover.hibernated") if status is Status.HIBERNATED else None
            await self._registry.move(record, status, event, reason=None)

    async def _died(self, sandbox_id: str, reason: str, **facts: int) -> None:
        await self._fail(sandbox_id, NewEvent("vm.died", {**facts, "reason": reason}), reason)

    async def _fail(self, sandbox_id: str, event: NewEvent, reason: str) -> None:
        """The sandbox's machine is gone. Its record stays, with the reason, until it is deleted or its TTL is over."""
        record = self._registry.find(sandbox_id)
        if record is None or record.status in (Status.STOPPING, Status.FAILED):
            return
        if record.status == Status.CREATING:
            await self._registry.change(sandbox_id, reason=reason)  # the create, still in progress, sees it
            return
        await self._registry.move(record, Status.FAILED, event, reason=reason)
        log.warning("sandbox failed", sandbox_id=sandbox_id, reason=reason)

    async def _finish_deletions(self) -> None:
        for record in self._registry.all():
            if record.status == Status.STOPPING:
                await self._endings.delete(record.id)

    async def _end_unknown_machines(self) -> None:
        for machine in await self._engine.sandboxes():
            if self._registry.find(machine.id) is None:
                log.warning("ending a machine that has no record", sandbox_id=machine.id)
                await self._engine.delete(machine.id)
