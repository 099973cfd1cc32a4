"""Captures machines of jobs, and deletes the captures that nobody needs any more (docs/design/0070)."""

from __future__ import annotations

import time
from contextlib import suppress

import anyio
import structlog

from pandastack.errors import PandastackError
from pandastack.products.runners.machine import Machine
from pandastack.products.runners.records import Records
from pandastack.products.runners.retries import Checkpoint, expires_at, plan_dropped, still_needed
from pandastack.products.runners.version import Version
from pandastack.services import ControlPlane
from pandastack.services.records.alarm import Alarm
from pandastack.store.runners import JobRecord
from pandastack.store.snapshots import JOB

_RETRY_SECONDS = 60.0
"""After a failure to tidy."""

log = structlog.get_logger(__name__)


class Checkpoints:
    """Those of all jobs. The record of a job names its newest one; what no record names is deleted."""

    def __init__(self, plane: ControlPlane, records: Records) -> None:
        self._plane = plane
        self._records = records
        self._taking: set[str] = set()
        self._alarm = Alarm()
        self._lock = anyio.Lock()

    async def take(self, machine: Machine, job_id: str, step: int, version: Version) -> None:
        """Capture the machine of a job before the command ``step``, in place of its former checkpoint. Raises
        :class:`PandastackError`; then the former one stays."""
        oom_kills = (await machine.probe()).oom_kills
        self._taking.add(job_id)
        try:
            made = await self._plane.timeline.snapshot(machine.caller, machine.id, f"before step {step}", kind=JOB)
            job = self._records.jobs[job_id]
            taken = Checkpoint(made.id, step, job.version or version.id, version.directory, oom_kills)
            with anyio.CancelScope(shield=True):
                await self._records.change_job(job_id, checkpoint=taken.to_json())
        finally:
            self._taking.discard(job_id)
        await self.tidy()

    async def ended(self, job: JobRecord) -> None:
        """A job has ended, or its record is gone: what it had goes, or will."""
        if job.checkpoint is not None:
            await self.tidy()

    async def tidy(self) -> bool:
        """Delete what nobody needs; whether that went well. A failure is logged."""
        try:
            async with self._lock:
                await self._tidy()
        except PandastackError as error:
            log.warning("job.checkpoints_stay", cause=repr(error))
            return False
        return True

    async def watch(self) -> None:
        """Delete each checkpoint when its time has come. Runs until cancelled."""
        while True:
            if await self.tidy():
                await self._alarm.sleep_until(min(self._due(), default=float("inf")))
            else:
                await anyio.sleep(_RETRY_SECONDS)

    def _due(self) -> list[float]:
        return [at for each in self._records.jobs.values() if each.checkpoint and (at := expires_at(each))]

    async def _tidy(self) -> None:
        jobs, most = self._records.jobs, self._plane.settings.kept_job_checkpoints
        for job in plan_dropped(jobs.values(), self._records.pools.keys(), most, time.time()):
            await self._records.change_job(job.id, checkpoint=None)
        for found in await self._plane.snapshots.all():
            if found.kind == JOB and found.id not in still_needed(jobs) and found.sandbox_id not in self._taking:
                with suppress(PandastackError):
                    await self._plane.snapshots.delete(found)
        for at in self._due():
            self._alarm.expect(at)
