"""Brings the records in line with the engines: after a restart, and when machines die."""

from __future__ import annotations

from contextlib import suppress

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from pandastack.cluster import Engines
from pandastack.contract.events import Event, MachineContinued, MachineDied, MachineStalled, SecretUsed
from pandastack.contract.sandboxes import SandboxInfo, SandboxState
from pandastack.errors import NotFoundError, PandastackError
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.records.activity import Activity
from pandastack.services.records.events import NewEvent
from pandastack.services.records.memory import lost, outlives_machine
from pandastack.services.records.registry import Change, Registry
from pandastack.services.records.status import LIVE
from pandastack.services.sandboxes.endings import Endings
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.secrets.grants import Grants
from pandastack.services.volumes.volumes import Volumes
from pandastack.store.sandboxes import SandboxRecord, Status

_COMPARED = (*LIVE, Status.FAILED)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0

log = structlog.get_logger(__name__)


class Recovery:
    """Compares the registry with the engines, one by one."""

    def __init__(
        self,
        registry: Registry,
        engines: Engines,
        activity: Activity,
        lifecycle: Lifecycle,
        endings: Endings,
        snapshots: Snapshots,
        grants: Grants,
        volumes: Volumes,
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._activity = activity
        self._lifecycle = lifecycle
        self._endings = endings
        self._snapshots = snapshots
        self._grants = grants
        self._volumes = volumes

    async def reconcile(self) -> None:
        """Clean up after the previous run, before the first request.

        Half-created sandboxes and half-done deletions are finished, also those of volumes. Machines and snapshots
        without a record are ended, and records without a machine fail. While an engine is away, :meth:`run` and the
        reaper do this later.
        """
        for record in self._registry.all():
            self._activity.start(record.id, record.last_active_at)
            if record.status == Status.CREATING:
                await self._registry.move(record, Status.STOPPING)
        for node in self._engines.all():
            try:
                await self._finish_deletions(node)
                await self._end_unknown_machines(node)
                await self.compare(node)
                await self._snapshots.reconcile(node, {record.id for record in self._registry.all()})
                await self._volumes.reconcile(node)
            except PandastackError as error:
                log.warning("recovery.waiting_for_engine", node=node, cause=repr(error))

    async def compare(self, node: str) -> None:
        """Set every record of a node to the state of its machine; fail those whose machine is gone or dead."""
        expected = [record for record in self._on(node) if self._can_be_compared(record)]
        machines = {each.id: each for each in await self._engines.at(node).sandboxes()}
        for record in expected:
            if self._registry.find(record.id) is record and self._can_be_compared(record):
                await self._correct(record, machines.get(record.id))

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Watch the events of all engines, until cancelled."""
        async with anyio.create_task_group() as tasks:
            for node in self._engines.all():
                tasks.start_soon(self._follow, node)
            task_status.started()

    async def _follow(self, node: str) -> None:
        """Watch an engine's events, and compare again after every interruption."""
        pause = _FIRST_PAUSE
        while True:
            try:
                async for event in self._engines.at(node).events():
                    if event is None and pause:
                        pause = 0.0  # connected: everything that happened before is in the engine's list
                        await self.compare(node)
                        await self._grants.engine_started(node)
                        await self._volumes.reconcile(node)
                    elif event is not None and self._has(node, event.sandbox_id):
                        await self._take(event)
            except PandastackError as error:
                log.warning("engine.events_interrupted", node=node, cause=repr(error))
            pause = min(_LONGEST_PAUSE, pause * 2 or _FIRST_PAUSE)
            await anyio.sleep(pause)

    def _on(self, node: str) -> list[SandboxRecord]:
        return [record for record in self._registry.all() if record.node == node]

    def _has(self, node: str, sandbox_id: str) -> bool:
        record = self._registry.find(sandbox_id)
        return record is not None and record.node == node

    async def _take(self, event: Event) -> None:
        match event:
            case MachineDied(disks_kept=True):
                await self._lost(event.sandbox_id, event.reason, pid=event.pid)
            case MachineDied():
                await self._died(event.sandbox_id, event.reason, pid=event.pid)
            case SecretUsed():
                await self._registry.note(event.sandbox_id, _use(event))
            case MachineStalled() | MachineContinued():
                await self._registry.note(event.sandbox_id, NewEvent(event.KIND))

    def _can_be_compared(self, record: SandboxRecord) -> bool:
        return record.status in _COMPARED and not self._lifecycle.is_in_transition(record.id)

    async def _correct(self, record: SandboxRecord, found: SandboxInfo | None) -> None:
        if found is None:
            reason = "its machine did not survive a restart of the host or the engine"
            await self._fail(record.id, NewEvent("recover.orphaned", {"reason": reason}), reason)
        elif found.memory_lost is not None:
            await self._lost(record.id, found.memory_lost)
        elif found.state is SandboxState.FAILED:
            await self._died(record.id, "its machine died")
        elif (status := Status(found.state)) != record.status:
            # A failed sandbox: it was being rewound when the control plane was killed.
            event = NewEvent("recover.hibernated") if status is Status.HIBERNATED else None
            await self._registry.move(record, status, event, reason=None)

    async def _lost(self, sandbox_id: str, reason: str, **facts: int) -> None:
        """Only the disks of a sandbox are left. One that its owner expects to find again is hibernated from now on."""
        record = self._registry.find(sandbox_id)
        if record is None or record.status in (Status.HIBERNATED, Status.STOPPING):
            return
        if record.status == Status.CREATING or not outlives_machine(record):
            await self._died(sandbox_id, reason, **facts)
            if record.status != Status.CREATING:  # the create undoes itself
                with suppress(NotFoundError):
                    await self._engines.of(record).delete(sandbox_id)
            return
        values, event = lost(reason)
        events = (NewEvent("vm.died", {**facts, "reason": reason}), event)
        values |= {"reason": None}
        await self._registry.apply(Change(sandbox_id, values, events, (record.status, Status.HIBERNATED)))
        log.warning("sandbox.memory_lost", sandbox_id=sandbox_id, reason=reason)

    async def _died(self, sandbox_id: str, reason: str, **facts: int) -> None:
        await self._fail(sandbox_id, NewEvent("vm.died", {**facts, "reason": reason}), reason)

    async def _fail(self, sandbox_id: str, event: NewEvent, reason: str) -> None:
        """Fail a sandbox whose machine is gone. Its record stays, with the reason, until deletion or its TTL."""
        record = self._registry.find(sandbox_id)
        if record is None or record.status in (Status.STOPPING, Status.FAILED):
            return
        if record.status == Status.CREATING:
            await self._registry.change(sandbox_id, reason=reason)  # the create, still in progress, will notice
            return
        await self._registry.move(record, Status.FAILED, event, reason=reason)
        log.warning("sandbox.failed", sandbox_id=sandbox_id, reason=reason)

    async def _finish_deletions(self, node: str) -> None:
        for record in self._on(node):
            if record.status == Status.STOPPING:
                await self._endings.delete(record.id)

    async def _end_unknown_machines(self, node: str) -> None:
        engine = self._engines.at(node)
        for machine in await engine.sandboxes():
            if not self._has(node, machine.id):
                log.warning("machine.without_record", node=node, sandbox_id=machine.id)
                await engine.delete(machine.id)


def _use(event: SecretUsed) -> NewEvent:
    """The entry of a secret's use: ``secret.used``, or ``secret.refused`` with the reason. Never the value."""
    payload = {"secret": event.name, "host": event.host, "method": event.method, "path": event.path}
    if event.refused:
        return NewEvent("secret.refused", {**payload, "reason": event.refused})
    return NewEvent("secret.used", payload)
