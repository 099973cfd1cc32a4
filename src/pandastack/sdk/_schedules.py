"""Schedules: their types and requests."""

from __future__ import annotations

from typing import Any, Required, TypedDict

from pandastack.sdk.wire.call import Call, new_key, segment


class Schedule(TypedDict, total=False):
    """A function that runs at the times of a cron expression: a dictionary. ``next_runs`` are there where one schedule
    is asked for."""

    id: Required[str]
    name: Required[str]
    function_id: Required[str]
    cron: Required[str]
    workspace: str
    timezone: str
    paused: bool
    overlap: str
    catchup: str
    jitter_seconds: int
    last_run_at: str
    next_run_at: str
    next_runs: list[str]
    created_at: str
    updated_at: str


class ScheduleRun(TypedDict, total=False):
    """What became of one time of a schedule: a dictionary. ``status`` is ``pending``, ``running``, ``success``,
    ``error``, ``timeout`` or ``skipped``; ``nominal_at`` is the time."""

    id: Required[str]
    run_id: Required[str]
    status: Required[str]
    workspace: str
    function_id: str
    schedule_id: str
    nominal_at: str
    triggered: bool
    version: int
    reason: str
    started_at: str
    ended_at: str


def create_schedule(key: str | None = None, **wanted: Any) -> Call:
    """``POST /schedules``. ``key`` None: a new one."""
    return Call("POST", "/schedules", json=_given(wanted), creates=True, key=key or new_key())


def one_schedule(method: str, schedule_id: str, what: str = "", **wanted: Any) -> Call:
    """A request about one schedule."""
    path = f"/schedules/{segment(schedule_id)}{what}"
    return Call(method, path, json=_given(wanted) if method == "PATCH" else None)


def _given(wanted: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in wanted.items() if value is not None}
