"""Counts sandboxes as in use while foreground processes run in them."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from pandastack.cluster import Engines
from pandastack.contract.processes import ProcessRecord
from pandastack.errors import PandastackError
from pandastack.services.records.activity import Activity
from pandastack.services.records.bus import Bus, SandboxChanged
from pandastack.services.records.registry import Registry
from pandastack.store.sandboxes import SandboxRecord, Status

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessFound:
    """A process was found in a sandbox, started under a previous server or in a previous machine of the sandbox."""

    sandbox: SandboxRecord
    process: ProcessRecord


class IdleWatch:
    """Watches processes in ``tasks``, and publishes those found in restored sandboxes as :class:`ProcessFound`."""

    def __init__(self, registry: Registry, engines: Engines, activity: Activity, bus: Bus, tasks: TaskGroup) -> None:
        self._registry = registry
        self._engines = engines
        self._activity = activity
        self._bus = bus
        self._tasks = tasks

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Look for processes in each sandbox that gets a new machine, until cancelled."""
        with self._bus.subscribe(SandboxChanged) as changes:
            task_status.started()
            async for change in changes:
                if is_restored(change):
                    self._tasks.start_soon(self._find, change.record)

    def find_all(self) -> None:
        """Look for processes in all running sandboxes."""
        for record in self._registry.all():
            if record.status == Status.RUNNING:
                self._tasks.start_soon(self._find, record)

    def watch(self, sandbox: SandboxRecord, process: str) -> None:
        """Hold the sandbox in use until the process has ended."""
        self._tasks.start_soon(self._hold, sandbox, process)

    async def _find(self, sandbox: SandboxRecord) -> None:
        try:
            with self._activity.hold(sandbox.id):
                found = (await self._engines.of(sandbox).processes(sandbox.id)).processes
        except PandastackError as error:
            log.warning("processes.unknown", sandbox_id=sandbox.id, cause=repr(error))
            return
        if self._registry.find(sandbox.id) is None:
            return
        for each in (process for process in found if process.running):
            if not each.background:
                self.watch(sandbox, each.id)
            self._bus.publish(ProcessFound(sandbox, each))

    async def _hold(self, sandbox: SandboxRecord, process: str) -> None:
        with self._activity.hold(sandbox.id):
            try:
                view = self._engines.of(sandbox).attach(sandbox.id, process, stdout=None, stderr=None, follow=True)
                async with view as records:
                    async for _ in records:
                        pass
            except PandastackError as error:
                log.debug("process.watch_ended", sandbox_id=sandbox.id, cause=repr(error))


def is_restored(change: SandboxChanged) -> bool:
    """Whether the sandbox runs in a machine that was restored from a capture of it: it was woken or rewound."""
    moved = change.before is not None and change.moved and change.before.status not in (Status.CREATING, Status.PAUSED)
    return moved and change.record.status == Status.RUNNING
