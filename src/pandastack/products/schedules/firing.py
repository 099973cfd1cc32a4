"""From a time that has come to a run that has ended: each time is claimed in the store before anything begins.

A server that is killed between the claim and the start leaves a run that is pending. The next one begins it, under the
same id, which the runner begins once only.
"""

from __future__ import annotations

import uuid
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog
from anyio.abc import TaskGroup

from pandastack.errors import PandastackError
from pandastack.products.schedules.plan import Due, plan_overlap
from pandastack.products.schedules.runner import Outcome, Runner, ScheduledRun
from pandastack.store import Store
from pandastack.store import schedules as table
from pandastack.store.schedules import MOVES, RunRecord, RunStatus, ScheduleRecord

KEPT_RUNS = 100
"""Ended runs of a schedule that are kept."""

MISSED = "no server ran at this time"

log = structlog.get_logger(__name__)


class Firing:
    """Begins runs, and follows those that have begun."""

    def __init__(self, store: Store, runner: Runner, tasks: TaskGroup, clock: Callable[[], float]) -> None:
        self._store = store
        self._runner = runner
        self._tasks = tasks
        self._clock = clock
        self._active: defaultdict[str, set[str]] = defaultdict(set)
        """By schedule, the runs that have begun and not ended."""
        self._queued: defaultdict[str, deque[RunRecord]] = defaultdict(deque)

    async def recover(self) -> None:
        """Go on with what an earlier server left: what was about to begin begins, what waited waits."""
        async with self._store.read() as connection:
            left = await table.unended_runs(connection)
        for run in sorted(left, key=lambda each: each.status is not RunStatus.RUNNING):  # stable: by time among equals
            if run.status is RunStatus.PENDING and self._active[run.schedule_id]:
                self._queued[run.schedule_id].append(run)
            else:
                self._begin(run)

    async def fire(self, schedule: ScheduleRecord, due: Due) -> ScheduleRecord:
        """Claim the time that is due, and begin its run or say why none does. Returns the schedule with its next."""
        runs = [self._run(schedule, due.missed, RunStatus.SKIPPED, MISSED)] if due.missed is not None else []
        if due.fire is not None:
            runs.append(await self._planned(schedule, due.fire))
        values: dict[str, Any] = {"next_run_at": due.following}
        if due.fire is not None:
            values["last_run_at"] = due.fire
        async with self._store.write() as connection:
            claimed = [each for each in runs if not await table.find_run_at(connection, schedule.id, each.nominal_at)]
            for each in claimed:
                # Claimed, not begun: what is about to run is pending until it does.
                await table.add_run(connection, each)
            await table.change(connection, schedule.id, **values)
            await table.prune_runs(connection, schedule.id, KEPT_RUNS)
        for each in claimed:
            if each.status is RunStatus.PENDING:
                self._take(schedule, each)
        return replace(schedule, **values)

    async def trigger(self, schedule: ScheduleRecord) -> RunRecord:
        """Begin a run now, beside any other. Raises :class:`NotFoundError` and :class:`ConflictError` of the runner."""
        version = await self._runner.version(schedule.workspace, schedule.function_id)
        now = self._clock()
        run = replace(self._run(schedule, now, RunStatus.PENDING), version=version, triggered=True)
        async with self._store.write() as connection:
            await table.add_run(connection, run)
            await table.prune_runs(connection, schedule.id, KEPT_RUNS)
        self._begin(run)
        return run

    def forget(self, schedule_id: str) -> None:
        """Begin none of the runs that wait. What has begun runs on."""
        self._queued.pop(schedule_id, None)

    async def _planned(self, schedule: ScheduleRecord, nominal_at: float) -> RunRecord:
        """The run of a time, with the function's version at this time."""
        active, queued = len(self._active[schedule.id]), len(self._queued[schedule.id])
        status, reason = plan_overlap(schedule.overlap, active, queued)
        if status is RunStatus.SKIPPED:
            return self._run(schedule, nominal_at, status, reason)
        try:
            version = await self._runner.version(schedule.workspace, schedule.function_id)
        except PandastackError as error:
            now = self._clock()
            return replace(
                self._run(schedule, nominal_at, RunStatus.ERROR, error.message), started_at=now, ended_at=now
            )
        return replace(self._run(schedule, nominal_at, RunStatus.PENDING), version=version)

    def _run(
        self, schedule: ScheduleRecord, nominal_at: float, status: RunStatus, reason: str | None = None
    ) -> RunRecord:
        made = str(uuid.uuid4())
        return RunRecord(made, schedule.id, schedule.workspace, schedule.function_id, nominal_at, status, reason=reason)

    def _take(self, schedule: ScheduleRecord, run: RunRecord) -> None:
        """Begin a claimed run, or have it wait for those before it."""
        status, _ = plan_overlap(schedule.overlap, len(self._active[schedule.id]), len(self._queued[schedule.id]))
        if status is RunStatus.RUNNING:
            self._begin(run)
        else:
            self._queued[schedule.id].append(run)

    def _begin(self, run: RunRecord) -> None:
        self._active[run.schedule_id].add(run.id)
        self._tasks.start_soon(self._carry_out, run)

    async def _carry_out(self, run: RunRecord) -> None:
        """Start a run, wait for its end, and begin the next that waits."""
        try:
            outcome = await self._outcome(run)
            await self._move(run, outcome.status, reason=outcome.reason, ended_at=self._clock())
        except Exception as error:
            log.error("schedule.run_broken", schedule_id=run.schedule_id, run_id=run.id, exc_info=error)
        self._active[run.schedule_id].discard(run.id)
        if not self._active[run.schedule_id]:
            del self._active[run.schedule_id]
            if waiting := self._queued.get(run.schedule_id):
                self._begin(waiting.popleft())

    async def _outcome(self, run: RunRecord) -> Outcome:
        scheduled = ScheduledRun(
            run.id, run.workspace, run.function_id, run.schedule_id, run.nominal_at, run.version or 0
        )
        try:
            if run.status is RunStatus.PENDING:
                await self._runner.start(scheduled)
                await self._move(run, RunStatus.RUNNING, started_at=self._clock())
            return await self._runner.wait(run.workspace, run.id)
        except PandastackError as error:
            return Outcome(RunStatus.ERROR, error.message)
        except Exception as error:
            log.error("schedule.run_failed", schedule_id=run.schedule_id, run_id=run.id, exc_info=error)
            return Outcome(RunStatus.ERROR, "the server failed as it ran the function")

    async def _move(self, run: RunRecord, status: RunStatus, **values: Any) -> None:
        async with self._store.write() as connection:
            found = await table.find_run_at(connection, run.schedule_id, run.nominal_at)
            if found is not None and status in MOVES[found.status]:  # else it was deleted with its schedule
                await table.change_run(connection, run.id, status=status, **values)
