"""Ends sandboxes: at their idle limit, and when their longest life is over. Finishes deletions, saves idle clocks."""

from __future__ import annotations

import time

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from pandastack.errors import PandastackError
from pandastack.services.records.activity import Activity
from pandastack.services.records.alarm import Alarm
from pandastack.services.records.bus import Bus, DeletionFailed, SandboxChanged
from pandastack.services.records.deadlines import Deadlines
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.endings import Endings
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import SandboxRecord, Status

_SAVE_SECONDS = 5.0
"""A server that is killed again and again must not forget for as long as an idle limit that a sandbox was used."""

_DELETE_SECONDS = 60.0

log = structlog.get_logger(__name__)


class Reaper:
    """Sleeps until the next sandbox is due, or until one becomes due earlier."""

    def __init__(
        self,
        registry: Registry,
        lifecycle: Lifecycle,
        endings: Endings,
        activity: Activity,
        deadlines: Deadlines,
        bus: Bus,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._lifecycle = lifecycle
        self._endings = endings
        self._activity = activity
        self._deadlines = deadlines
        self._bus = bus
        self._alarm = Alarm()
        self._interval = settings.reaper_interval_seconds
        self._retry_at: dict[str, float] = {}

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Sweep until cancelled, then save the idle clocks."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._listen)
            task_status.started()
            try:
                while True:
                    await self._sweep()
                    await self._save()
                    await self._alarm.sleep_until(self._next())
            finally:
                with anyio.move_on_after(5, shield=True):
                    await self._save()

    async def _listen(self, *, task_status: TaskStatus[None]) -> None:
        """Bring the next sweep forward when a sandbox becomes due earlier."""
        with self._bus.subscribe(SandboxChanged, DeletionFailed) as events:
            task_status.started()
            async for event in events:
                if isinstance(event, DeletionFailed):
                    self._alarm.expect(time.time() + self._interval)
                elif isinstance(event, SandboxChanged) and (at := self._deadlines.of(event.record)) is not None:
                    self._alarm.expect(at)

    async def _sweep(self) -> None:
        for sandbox_id, at in self._due().items():
            record = self._registry.find(sandbox_id)
            if record is None or at > time.time() or (self._activity.busy(sandbox_id) and not _outlived(record)):
                continue
            self._retry_at[sandbox_id] = time.time() + self._interval
            try:
                with anyio.move_on_after(_DELETE_SECONDS):
                    await self._expire(sandbox_id)
            except PandastackError as error:
                log.warning("sandbox.reap_failed", sandbox_id=sandbox_id, cause=repr(error))

    async def _expire(self, sandbox_id: str) -> None:
        record = self._registry.get(sandbox_id)
        outlived = _outlived(record)
        if not outlived and Deadlines.only_hibernates(record):
            await self._lifecycle.hibernate_idle(sandbox_id)
            return
        await self._endings.delete(sandbox_id)
        log.info("sandbox.deleted", sandbox_id=sandbox_id, cause="max_lifetime" if outlived else "idle")

    def _next(self) -> float:
        return min([time.time() + _SAVE_SECONDS, *self._due().values()])

    def _due(self) -> dict[str, float]:
        """When each sandbox is due; after a failed end, when it is tried again."""
        records = self._registry.all()
        existing = {record.id for record in records}
        self._retry_at = {key: at for key, at in self._retry_at.items() if key in existing}
        due = {}
        for record in records:
            if record.status == Status.STOPPING:
                due[record.id] = self._retry_at.setdefault(record.id, time.time() + self._interval)
            elif (at := self._deadlines.of(record)) is not None:
                due[record.id] = max(at, self._retry_at.get(record.id, at))
        return due

    async def _save(self) -> None:
        if not (times := self._activity.take_unsaved()):
            return
        try:
            await self._registry.save_activity(times)
        except PandastackError as error:
            log.warning("saving idle clocks failed", cause=repr(error))


def _outlived(record: SandboxRecord) -> bool:
    """Whether the sandbox has existed for as long as it may."""
    at = Deadlines.ends_at(record)
    return at is not None and at <= time.time()
