"""The schedules of workspaces, and the loop that watches them (docs/design/0062)."""

from __future__ import annotations

import builtins
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import anyio
import structlog
from anyio import to_thread

from pandastack.errors import BadRequestError, ConflictError, NotFoundError, QuotaError
from pandastack.model.caller import Caller
from pandastack.products.schedules.firing import Firing
from pandastack.products.schedules.plan import due_at, plan_due
from pandastack.products.schedules.runner import Runner
from pandastack.products.schedules.spec import NewSchedule, SchedulePatch
from pandastack.services import ControlPlane
from pandastack.services.cron import find_next, times_after
from pandastack.store import schedules as table
from pandastack.store.schedules import RunRecord, ScheduleRecord

SHOWN_RUNS = 50
SHOWN_TIMES = 5

LONGEST_SLEEP_S = 30.0
"""So soon a change of the host's clock is noticed."""

RETRY_S = 5.0
"""Seconds until a schedule is tried again that the store did not let fire."""

log = structlog.get_logger(__name__)


class Schedules:
    """Every look-up names a workspace; schedules of others are not found. One change is made at a time."""

    def __init__(self, plane: ControlPlane, runner: Runner, firing: Firing, clock: Callable[[], float]) -> None:
        self._store = plane.store
        self._most = plane.settings.max_schedules
        self._runner = runner
        self._firing = firing
        self._clock = clock
        self._records: dict[str, ScheduleRecord] = {}
        self._lock = anyio.Lock()
        self._changed = anyio.Event()

    async def recover(self) -> None:
        """Find the schedules and unended runs of earlier servers."""
        async with self._store.read() as connection:
            self._records = {each.id: each for each in await table.load_all(connection)}
        for record in list(self._records.values()):
            with suppress(ConflictError):  # it has no version now, which each of its times will say
                try:
                    await self._runner.version(record.workspace, record.function_id)
                except NotFoundError:  # it was deleted as the server ended
                    await self._remove(record)
        await self._firing.recover()

    async def create(self, caller: Caller, wanted: NewSchedule) -> ScheduleRecord:
        """Make a schedule. Raises :class:`BadRequestError` for a name in use or an unknown function, and
        :class:`QuotaError`."""
        await self._check_function(caller, wanted.function_id)
        now = self._clock()
        values = {**asdict(wanted), "id": wanted.id or str(uuid.uuid4())}
        record = ScheduleRecord(workspace=caller.workspace, created_at=now, updated_at=now, **values)
        record = await self._timed(record, now)
        async with self._lock:
            mine = self.list(caller)
            if len(mine) >= self._most:
                hint = "delete one, or ask the operator to raise PANDASTACK_MAX_SCHEDULES"
                raise QuotaError(f"a workspace has at most {self._most} schedules", hint=hint)
            _check_name(record.name, mine)
            async with self._store.write() as connection:
                await table.add(connection, record)
            self._keep(record)
        return record

    def list(self, caller: Caller) -> builtins.list[ScheduleRecord]:
        """The workspace's schedules, newest first."""
        mine = [each for each in self._records.values() if each.workspace == caller.workspace]
        return mine[::-1]

    def get(self, caller: Caller, schedule_id: str) -> ScheduleRecord:
        """One schedule. Raises :class:`NotFoundError`."""
        record = self._records.get(schedule_id)
        if record is None or record.workspace != caller.workspace:
            hint = "GET /v1/schedules lists the schedules"
            raise NotFoundError(f"schedule not found: {schedule_id[:64]}", hint=hint)
        return record

    async def next_runs(self, record: ScheduleRecord) -> builtins.list[float]:
        """The next times of a schedule; none while it is paused."""
        first = record.next_run_at
        if first is None:
            return []
        return await to_thread.run_sync(
            lambda: [first, *islice(times_after(record.cron, record.timezone, first), SHOWN_TIMES - 1)]
        )

    async def update(self, caller: Caller, schedule_id: str, patch: SchedulePatch) -> ScheduleRecord:
        """Change a schedule. Another expression or zone, and the end of a pause, count from now."""
        async with self._lock:
            former = self.get(caller, schedule_id)
            changes: dict[str, Any] = {name: value for name, value in asdict(patch).items() if value is not None}
            if patch.name is not None:
                _check_name(patch.name, [each for each in self.list(caller) if each.id != schedule_id])
            now = self._clock()
            record = replace(former, **changes, updated_at=now)
            if any(getattr(record, name) != getattr(former, name) for name in ("cron", "timezone", "paused")):
                record = await self._timed(record, now)
            async with self._store.write() as connection:
                changes |= {"updated_at": now, "next_run_at": record.next_run_at}
                await table.change(connection, record.id, **changes)
            self._keep(record)
        return record

    async def delete(self, caller: Caller, schedule_id: str) -> None:
        """Delete a schedule with the records of its runs. A run that has begun ends by itself."""
        async with self._lock:
            await self._remove(self.get(caller, schedule_id))

    async def function_deleted(self, workspace: str, function_id: str) -> None:
        """Delete the schedules of a function that is deleted. Those of one that a crash kept from this end at the next
        start."""
        async with self._lock:
            for record in list(self._records.values()):
                if (record.workspace, record.function_id) == (workspace, function_id):
                    await self._remove(record)

    async def trigger(self, caller: Caller, schedule_id: str) -> RunRecord:
        """Begin a run now, also of a schedule that is paused. Raises :class:`ConflictError` for a function that cannot
        run."""
        return await self._firing.trigger(self.get(caller, schedule_id))

    async def runs(self, caller: Caller, schedule_id: str) -> builtins.list[RunRecord]:
        """What became of the last times of a schedule, the latest first."""
        record = self.get(caller, schedule_id)
        async with self._store.read() as connection:
            return await table.runs_of(connection, record.id, SHOWN_RUNS)

    async def watch(self) -> None:
        """Fire what is due, as it is due. Runs until cancelled."""
        while True:
            self._changed = anyio.Event()
            failed = await self.fire_due()
            times = [at for each in self._records.values() if (at := due_at(each)) is not None]
            wait = max(0.0, min(times, default=float("inf")) - self._clock())
            with anyio.move_on_after(min(max(wait, RETRY_S if failed else 0.0), LONGEST_SLEEP_S)):
                await self._changed.wait()

    async def fire_due(self) -> bool:
        """Fire every schedule that is due; whether one could not."""
        failed = False
        for schedule_id in list(self._records):
            async with self._lock:
                record, now = self._records.get(schedule_id), self._clock()
                if record is None or (at := due_at(record)) is None or at > now:
                    continue
                try:
                    due = await to_thread.run_sync(plan_due, record, now)
                    self._records[schedule_id] = await self._firing.fire(record, due)
                except Exception as error:  # one schedule must not stop the others
                    log.error("schedule.not_fired", schedule_id=schedule_id, exc_info=error)
                    failed = True
        return failed

    async def _timed(self, record: ScheduleRecord, now: float) -> ScheduleRecord:
        if record.paused:
            return replace(record, next_run_at=None)
        following = await to_thread.run_sync(find_next, record.cron, record.timezone, now)
        return replace(record, next_run_at=following)

    async def _check_function(self, caller: Caller, function_id: str) -> None:
        try:
            await self._runner.version(caller.workspace, function_id)
        except NotFoundError as error:
            message = f"function_id: no such function: {function_id[:64]}"
            raise BadRequestError(message, field="function_id", hint="GET /v1/functions lists the functions") from error

    async def _remove(self, record: ScheduleRecord) -> None:
        async with self._store.write() as connection:
            await table.remove(connection, record.id)
        self._records.pop(record.id, None)
        self._firing.forget(record.id)

    def _keep(self, record: ScheduleRecord) -> None:
        self._records[record.id] = record
        self._changed.set()


def _check_name(name: str, others: list[ScheduleRecord]) -> None:
    if any(each.name == name for each in others):
        raise BadRequestError(f"name: there is a schedule {name!r} already", field="name")


@asynccontextmanager
async def open_schedules(
    plane: ControlPlane, runner: Runner, clock: Callable[[], float] = time.time
) -> AsyncIterator[Schedules]:
    """The schedules of a control plane, as long as the block. Runs that have not ended then the next server follows."""
    async with anyio.create_task_group() as tasks:
        schedules = Schedules(plane, runner, Firing(plane.store, runner, tasks, clock), clock)
        await schedules.recover()
        tasks.start_soon(schedules.watch)
        yield schedules
        tasks.cancel_scope.cancel()
