"""What to do about a schedule that is due. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, takewhile

from pandastack.services.cron import find_next, times_after
from pandastack.store.schedules import Catchup, Overlap, RunStatus, ScheduleRecord

ON_TIME_S = 60.0
"""A server that is so late only was busy; what is later was missed."""

MOST_QUEUED = 10
"""Runs of a schedule that wait for earlier ones; further ones are skipped."""

_WINDOWS_S = (3600.0, 86400.0, 32 * 86400.0, 400 * 86400.0)


@dataclass(frozen=True, slots=True)
class Due:
    """``fire``: the time that a run begins for now. ``missed``: the first time that is given up, with all others
    before ``fire``, or until now. ``following``: when the schedule is due next."""

    fire: float | None
    missed: float | None
    following: float | None


def delay_of(schedule: ScheduleRecord) -> float:
    """How long after its times a schedule fires: always the same, so that what it measures keeps its distance."""
    digest = hashlib.sha256(schedule.id.encode()).digest()
    return schedule.jitter_seconds * int.from_bytes(digest[:4]) / 2**32


def due_at(schedule: ScheduleRecord) -> float | None:
    """When there is something to do; None: never."""
    return None if schedule.next_run_at is None else schedule.next_run_at + delay_of(schedule)


def plan_due(schedule: ScheduleRecord, now: float) -> Due:
    """What to do about a schedule whose :func:`due_at` has come."""
    assert schedule.next_run_at is not None
    first, until = schedule.next_run_at, now - delay_of(schedule)
    latest = _latest(schedule, first, until)
    fires = until - latest <= ON_TIME_S or schedule.catchup is Catchup.ONE
    is_missed = first < latest or not fires
    following = find_next(schedule.cron, schedule.timezone, latest)
    return Due(latest if fires else None, first if is_missed else None, following)


def _latest(schedule: ScheduleRecord, first: float, until: float) -> float:
    """The last time from ``first`` to ``until``. After a long stop only its end is looked through."""
    for window in _WINDOWS_S:
        if until - window <= first:
            break
        if found := list(_times(schedule, until - window, until)):
            return found[-1]
    return max(chain([first], _times(schedule, first, until)))


def _times(schedule: ScheduleRecord, after: float, until: float) -> Iterator[float]:
    return takewhile(lambda each: each <= until, times_after(schedule.cron, schedule.timezone, after))


def plan_overlap(overlap: Overlap, active: int, queued: int) -> tuple[RunStatus, str | None]:
    """Whether a run begins, waits or is skipped (with the reason) beside runs that are ``active`` or wait already."""
    if overlap is Overlap.ALLOW or not active + queued:
        return RunStatus.RUNNING, None
    if overlap is Overlap.SKIP:
        return RunStatus.SKIPPED, "an earlier run had not ended"
    if queued >= MOST_QUEUED:
        return RunStatus.SKIPPED, f"{queued} earlier runs waited already"
    return RunStatus.PENDING, None
