"""Schedules."""

from __future__ import annotations

from pydantic import Field, StrictBool

from pandastack.api.models.base import Answer, Body, WholeNumber, omitted_if_none, timestamp, timestamp_or_none
from pandastack.products import schedules as product
from pandastack.store.schedules import RunRecord, ScheduleRecord

_CRON = "Five fields: minute, hour, day, month, weekday"
_ZONE = "A name of the time zone database; `UTC` by default"
_OVERLAP = "While an earlier run has not ended: `skip` (default), `queue` or `allow`"
_CATCHUP = "For times at which no server ran: `none` (default), or `one` run for all of them"
_JITTER = "Each run begins up to so many seconds later, always the same; at most 3600"


class CreateSchedule(Body):
    name: str = Field(description="Up to 128 characters, once in the workspace")
    function_id: str
    cron: str = Field(description=_CRON)
    paused: StrictBool | None = None
    timezone: str | None = Field(None, description=_ZONE)
    overlap: str | None = Field(None, description=_OVERLAP)
    catchup: str | None = Field(None, description=_CATCHUP)
    jitter_seconds: WholeNumber | None = Field(None, description=_JITTER)

    def wanted(self) -> product.NewSchedule:
        return product.checked_new(**self.model_dump())


class UpdateSchedule(Body):
    name: str | None = Field(None, description="Up to 128 characters, once in the workspace")
    cron: str | None = Field(None, description=_CRON)
    paused: StrictBool | None = None
    timezone: str | None = Field(None, description=_ZONE)
    overlap: str | None = Field(None, description=_OVERLAP)
    catchup: str | None = Field(None, description=_CATCHUP)
    jitter_seconds: WholeNumber | None = Field(None, description=_JITTER)

    def wanted(self) -> product.SchedulePatch:
        return product.checked_patch(**self.model_dump())


class Schedule(Answer):
    id: str
    workspace: str
    name: str
    function_id: str
    cron: str
    timezone: str
    paused: bool
    overlap: str
    catchup: str
    jitter_seconds: int
    last_run_at: str | None = omitted_if_none("The last time that a run was begun for")
    next_run_at: str | None = omitted_if_none("The next time, unless it is paused")
    next_runs: list[str] | None = omitted_if_none("The next five times, where one schedule is asked for")
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, record: ScheduleRecord, next_runs: list[float] | None = None) -> Schedule:
        return cls(
            id=record.id,
            workspace=record.workspace,
            name=record.name,
            function_id=record.function_id,
            cron=record.cron,
            timezone=record.timezone,
            paused=record.paused,
            overlap=record.overlap,
            catchup=record.catchup,
            jitter_seconds=record.jitter_seconds,
            last_run_at=timestamp_or_none(record.last_run_at),
            next_run_at=timestamp_or_none(record.next_run_at),
            next_runs=None if next_runs is None else [timestamp(each) for each in next_runs],
            created_at=timestamp(record.created_at),
            updated_at=timestamp(record.updated_at),
        )


class ScheduleRun(Answer):
    id: str
    run_id: str = Field(description="The same: the id of the function's run")
    workspace: str
    function_id: str
    schedule_id: str
    status: str = Field(description="`pending`, `running`, `success`, `error`, `timeout` or `skipped`")
    nominal_at: str = Field(description="The time that it is for; of one that was triggered, when")
    triggered: bool
    version: int | None = omitted_if_none("The function's version at that time")
    reason: str | None = omitted_if_none("Why nothing ran, or why it failed")
    started_at: str | None = omitted_if_none()
    ended_at: str | None = omitted_if_none()

    @classmethod
    def of(cls, run: RunRecord) -> ScheduleRun:
        return cls(
            id=run.id,
            run_id=run.id,
            workspace=run.workspace,
            function_id=run.function_id,
            schedule_id=run.schedule_id,
            status=run.status,
            nominal_at=timestamp(run.nominal_at),
            triggered=run.triggered,
            version=run.version,
            reason=run.reason,
            started_at=timestamp_or_none(run.started_at),
            ended_at=timestamp_or_none(run.ended_at),
        )
