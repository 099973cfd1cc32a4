"""Automatic checkpoints: every so many seconds of use, or after each command."""

from __future__ import annotations

import time

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from pandastack.errors import PandastackError
from pandastack.services.records.activity import Activity
from pandastack.services.records.alarm import Alarm
from pandastack.services.records.bus import Bus, CommandEnded, SandboxChanged, SandboxUsed
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.timeline.timeline import Timeline
from pandastack.store.sandboxes import SandboxRecord, Status

_AT_ONCE = 4  # bounds the load of background captures on host and guests

log = structlog.get_logger(__name__)


class AutomaticCheckpoints:
    """Sleeps until the next checkpoint is due, or until one becomes due earlier."""

    def __init__(
        self, registry: Registry, activity: Activity, lifecycle: Lifecycle, timeline: Timeline, bus: Bus
    ) -> None:
        self._registry = registry
        self._activity = activity
        self._lifecycle = lifecycle
        self._timeline = timeline
        self._bus = bus
        self._alarm = Alarm()
        self._in_progress: set[str] = set()
        self._places = anyio.CapacityLimiter(_AT_ONCE)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Take checkpoints until cancelled. A slow one does not delay those of other sandboxes."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._listen)
            task_status.started()
            while True:
                self._begin(tasks)
                await self._alarm.sleep_until(self._next())

    async def look(self) -> None:
        """Take the checkpoints that are due now."""
        async with anyio.create_task_group() as tasks:
            self._begin(tasks)

    async def _listen(self, *, task_status: TaskStatus[None]) -> None:
        with self._bus.subscribe(SandboxChanged, SandboxUsed, CommandEnded) as events:
            task_status.started()
            async for event in events:
                match event:
                    case SandboxChanged(record=record):
                        self._expect(record.id)
                    case SandboxUsed(sandbox_id=sandbox_id) | CommandEnded(sandbox_id=sandbox_id):
                        self._expect(sandbox_id)

    def _expect(self, sandbox_id: str) -> None:
        """Note a change of the sandbox that may bring its next checkpoint forward."""
        record = self._registry.find(sandbox_id)
        if record is not None and (at := self._due_at(record)) is not None:
            self._alarm.expect(at)

    def _begin(self, tasks: TaskGroup) -> None:
        now = time.time()
        for sandbox_id, at in self._due().items():
            if at <= now:
                self._in_progress.add(sandbox_id)  # at once: the next pass must not start it again
                tasks.start_soon(self._attempt, sandbox_id)

    def _next(self) -> float:
        return min(self._due().values(), default=float("inf"))

    def _due(self) -> dict[str, float]:
        """When the next checkpoint of each sandbox is due, except of sandboxes with one in progress."""
        return {record.id: at for record in self._registry.all() if (at := self._due_at(record)) is not None}

    def _due_at(self, record: SandboxRecord) -> float | None:
        return None if record.id in self._in_progress else self._wanted_at(record)

    def _wanted_at(self, record: SandboxRecord) -> float | None:
        """When a checkpoint is due: only for a sandbox that was active since the last attempt."""
        if record.status != Status.RUNNING:
            return None
        commands, times = self._activity.command_log, []
        if record.checkpoint_every:
            since = commands.attempted_at(record.id) or record.created_at
            if self._activity.last_active(record.id) > since:
                times.append(since + record.checkpoint_every)
        if record.checkpoint_after_exec:
            settled = commands.settled_at(record.id)
            times += [] if settled is None else [settled]
        return min(times, default=None)

    async def _attempt(self, sandbox_id: str) -> None:
        """Take one; that neither wakes the sandbox nor counts as a use of it. A failure is only logged."""
        try:
            async with self._lifecycle.lock(sandbox_id), self._places:
                record = self._registry.find(sandbox_id)
                at = None if record is None else self._wanted_at(record)
                if record is not None and at is not None and at <= time.time():  # it may have been taken meanwhile
                    await self._timeline.take(record, None, automatic=True)
        except PandastackError as error:
            log.warning("checkpoint.automatic_failed", sandbox_id=sandbox_id, cause=repr(error))
        finally:
            self._in_progress.discard(sandbox_id)
            self._expect(sandbox_id)
