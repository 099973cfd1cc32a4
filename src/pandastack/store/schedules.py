"""Records of schedules, and of their runs: one for each time at which a schedule was due."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.product_schema import schedule_runs, schedules


class Overlap(StrEnum):
    """What happens at a time at which an earlier run has not ended."""

    SKIP = "skip"
    QUEUE = "queue"
    """The run begins when the earlier ones have ended."""
    ALLOW = "allow"
    """They run beside each other."""


class Catchup(StrEnum):
    """What happens with times at which no server ran."""

    NONE = "none"
    ONE = "one"
    """The last of them is made up for."""


class RunStatus(StrEnum):
    """How far a run is."""

    PENDING = "pending"
    """It is claimed: nothing else runs for its time. It waits, or is about to begin."""
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"
    """Nothing ran at its time; ``reason`` says why."""


_S = RunStatus

MOVES: Mapping[RunStatus, Set[RunStatus]] = {
    _S.PENDING: {_S.RUNNING, _S.ERROR, _S.SKIPPED},
    _S.RUNNING: {_S.SUCCESS, _S.ERROR, _S.TIMEOUT},
    _S.SUCCESS: set(),
    _S.ERROR: set(),
    _S.TIMEOUT: set(),
    _S.SKIPPED: set(),
}
"""The statuses that may follow each status."""

UNENDED = frozenset(status for status, following in MOVES.items() if following)


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """A schedule of a workspace; times are in epoch seconds. ``next_run_at`` is None while it is paused."""

    id: str
    workspace: str
    name: str
    function_id: str
    cron: str
    timezone: str
    paused: bool
    overlap: Overlap
    catchup: Catchup
    jitter_seconds: int
    created_at: float
    updated_at: float
    last_run_at: float | None = None
    next_run_at: float | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What became of one time. Its id is that of the function's run. ``version`` is the function's at that time."""

    id: str
    schedule_id: str
    workspace: str
    function_id: str
    nominal_at: float
    status: RunStatus
    version: int | None = None
    reason: str | None = None
    triggered: bool = False
    started_at: float | None = None
    ended_at: float | None = None


async def add(connection: AsyncConnection, record: ScheduleRecord) -> None:
    """Insert ``record``."""
    await connection.execute(insert(schedules), asdict(record))


async def load_all(connection: AsyncConnection) -> list[ScheduleRecord]:
    """The schedules of all workspaces, oldest first."""
    rows = await connection.execute(select(schedules).order_by(schedules.c.created_at, schedules.c.id))
    return [_schedule(row) for row in rows.mappings()]


async def change(connection: AsyncConnection, schedule_id: str, **values: Any) -> None:
    """Set columns of a schedule."""
    await connection.execute(update(schedules).where(schedules.c.id == schedule_id).values(**values))


async def remove(connection: AsyncConnection, schedule_id: str) -> None:
    """Delete a schedule with its runs; a missing one is fine."""
    await connection.execute(delete(schedule_runs).where(schedule_runs.c.schedule_id == schedule_id))
    await connection.execute(delete(schedules).where(schedules.c.id == schedule_id))


async def find_run_at(connection: AsyncConnection, schedule_id: str, nominal_at: float) -> RunRecord | None:
    """The run of a time; None while nothing has claimed it."""
    at = (schedule_runs.c.schedule_id == schedule_id) & (schedule_runs.c.nominal_at == nominal_at)
    row = (await connection.execute(select(schedule_runs).where(at))).mappings().first()
    return None if row is None else _run(row)


async def add_run(connection: AsyncConnection, record: RunRecord) -> None:
    """Insert ``record``. Its time may have no other."""
    await connection.execute(insert(schedule_runs), asdict(record))


async def change_run(connection: AsyncConnection, run_id: str, **values: Any) -> None:
    """Set columns of a run; one that was deleted with its schedule is fine."""
    await connection.execute(update(schedule_runs).where(schedule_runs.c.id == run_id).values(**values))


async def runs_of(connection: AsyncConnection, schedule_id: str, most: int) -> list[RunRecord]:
    """The last runs of a schedule, the latest time first."""
    query = select(schedule_runs).where(schedule_runs.c.schedule_id == schedule_id)
    rows = await connection.execute(query.order_by(schedule_runs.c.nominal_at.desc()).limit(most))
    return [_run(row) for row in rows.mappings()]


async def unended_runs(connection: AsyncConnection) -> list[RunRecord]:
    """The runs of all schedules that have not ended, in the order of their times."""
    query = select(schedule_runs).where(schedule_runs.c.status.in_(UNENDED)).order_by(schedule_runs.c.nominal_at)
    return [_run(row) for row in (await connection.execute(query)).mappings()]


async def prune_runs(connection: AsyncConnection, schedule_id: str, keep: int) -> None:
    """Delete runs that have ended, but for the last ``keep`` of the schedule."""
    mine = schedule_runs.c.schedule_id == schedule_id
    kept = select(schedule_runs.c.id).where(mine).order_by(schedule_runs.c.nominal_at.desc()).limit(keep)
    old = mine & schedule_runs.c.status.not_in(UNENDED) & schedule_runs.c.id.not_in(kept)
    await connection.execute(delete(schedule_runs).where(old))


def _schedule(row: Mapping[Any, Any]) -> ScheduleRecord:
    return ScheduleRecord(**{**row, "overlap": Overlap(row["overlap"]), "catchup": Catchup(row["catchup"])})


def _run(row: Mapping[Any, Any]) -> RunRecord:
    return RunRecord(**{**row, "status": RunStatus(row["status"])})
