"""Records of functions, their versions and their runs. Their environments are among the secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.product_schema import (
    function_aliases,
    function_run_events,
    function_runs,
    function_versions,
    functions,
)


class FunctionState(StrEnum):
    """What a crash leaves to be finished."""

    ACTIVE = "active"
    DELETING = "deleting"
    """Its snapshots are being deleted; the record goes last."""


class RunStatus(StrEnum):
    """How far a run is. Only ``running`` is followed by another."""

    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class FunctionRecord:
    """A function of a workspace. ``version`` is the one that serves, 0 without one; ``last_version`` the number
    that was given last. ``entrypoint``, ``template`` and ``memory_mb`` (None: the template's) hold from the next deploy
    on; ``concurrency`` is how many runs there may be at once. ``secrets`` are the names of those that runs get;
    ``network`` is what its machines may reach, None: the template's policy."""

    id: str
    workspace: str
    name: str
    runtime: str
    entrypoint: str
    template: str
    public: bool
    timeout_seconds: float
    memory_mb: int | None
    concurrency: int
    created_at: float
    updated_at: float
    state: FunctionState = FunctionState.ACTIVE
    version: int = 0
    last_version: int = 0
    secrets: tuple[str, ...] = ()
    network: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """What a deploy made. ``kind`` is what its entrypoint has: ``handler``, ``wsgi``, ``asgi``, ``fetch`` or
    ``script``; ``code_size`` is the size of what was sent, in bytes. ``warnings`` are what the check before it served
    has found; ``network`` is the policy that its template had."""

    function_id: str
    version: int
    snapshot_id: str
    entrypoint: str
    template: str
    kind: str
    memory_mb: int
    code_size: int
    created_at: float
    deploy_ms: float
    warnings: tuple[str, ...] = ()
    network: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AliasRecord:
    """A name for a version of a function. Times are in epoch seconds."""

    function_id: str
    name: str
    version: int
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A call of a function. ``result`` is JSON; ``start`` is ``waiting`` or ``restored``. A run that a schedule has
    begun has its ``schedule_id`` and the time that it was meant for, ``nominal_at``. ``attempt`` counts from 1, up to
    one more than ``retries``; ``attempts`` are those that have failed, and while it waits for another one it has a
    ``next_attempt_at``. ``callback`` is a URL that is told of its end. ``kept_until``: its machine is a sandbox of the
    workspace, which may be deleted from then on. Times are in epoch seconds."""

    id: str
    workspace: str
    function_id: str
    status: RunStatus
    started_at: float
    version: int | None = None
    schedule_id: str | None = None
    nominal_at: float | None = None
    sandbox_id: str | None = None
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    result: str | None = None
    error: str | None = None
    traceback: str | None = None
    start: str | None = None
    duration_ms: float | None = None
    cpu_seconds: float | None = None
    peak_memory_mb: float | None = None
    ended_at: float | None = None
    attempt: int = 1
    retries: int = 0
    attempts: list[dict[str, Any]] | None = None
    next_attempt_at: float | None = None
    callback: str | None = None
    kept_until: float | None = None


async def add(connection: AsyncConnection, record: FunctionRecord) -> None:
    """Insert a function."""
    await connection.execute(insert(functions), asdict(record))


async def load_all(connection: AsyncConnection) -> list[FunctionRecord]:
    """The functions of all workspaces, oldest first."""
    rows = await connection.execute(select(functions).order_by(functions.c.created_at, functions.c.id))
    return [
        FunctionRecord(**{**row, "state": FunctionState(row["state"]), "secrets": tuple(row["secrets"])})
        for row in rows.mappings()
    ]


async def change(connection: AsyncConnection, function_id: str, **values: Any) -> None:
    """Set columns of a function."""
    await connection.execute(update(functions).where(functions.c.id == function_id).values(**values))


async def remove(connection: AsyncConnection, function_id: str) -> None:
    """Delete a function with its versions and runs; a missing one is fine."""
    await connection.execute(delete(functions).where(functions.c.id == function_id))


async def add_version(connection: AsyncConnection, record: VersionRecord) -> None:
    """Insert a version."""
    await connection.execute(insert(function_versions), asdict(record))


async def load_versions(connection: AsyncConnection) -> list[VersionRecord]:
    """The versions of all functions, oldest first."""
    rows = await connection.execute(select(function_versions).order_by(function_versions.c.version))
    return [VersionRecord(**{**row, "warnings": tuple(row["warnings"])}) for row in rows.mappings()]


async def remove_version(connection: AsyncConnection, function_id: str, version: int) -> None:
    """Delete a version; a missing one is fine."""
    mine = (function_versions.c.function_id == function_id) & (function_versions.c.version == version)
    await connection.execute(delete(function_versions).where(mine))


async def put_alias(connection: AsyncConnection, record: AliasRecord) -> None:
    """Store an alias, in place of the one of that name."""
    await remove_alias(connection, record.function_id, record.name)
    await connection.execute(insert(function_aliases), asdict(record))


async def load_aliases(connection: AsyncConnection) -> list[AliasRecord]:
    """The aliases of all functions."""
    return [AliasRecord(**row) for row in (await connection.execute(select(function_aliases))).mappings()]


async def remove_alias(connection: AsyncConnection, function_id: str, name: str) -> None:
    """Delete an alias; a missing one is fine."""
    mine = (function_aliases.c.function_id == function_id) & (function_aliases.c.name == name)
    await connection.execute(delete(function_aliases).where(mine))


async def add_run(connection: AsyncConnection, record: RunRecord) -> None:
    """Insert a run."""
    await connection.execute(insert(function_runs), asdict(record))


async def add_event(connection: AsyncConnection, run_id: str, event: str) -> None:
    """Store the event of a run, as JSON, for its later attempts."""
    await connection.execute(insert(function_run_events), {"run_id": run_id, "event": event})


async def get_event(connection: AsyncConnection, run_id: str) -> str:
    """The event of a run that has one."""
    found = select(function_run_events.c.event).where(function_run_events.c.run_id == run_id)
    return str((await connection.execute(found)).scalar_one())


async def remove_event(connection: AsyncConnection, run_id: str) -> None:
    """Delete the event of a run; a missing one is fine."""
    await connection.execute(delete(function_run_events).where(function_run_events.c.run_id == run_id))


async def change_run(connection: AsyncConnection, run_id: str, **values: Any) -> None:
    """Set columns of a run that has not ended."""
    mine = (function_runs.c.id == run_id) & (function_runs.c.status == RunStatus.RUNNING)
    await connection.execute(update(function_runs).where(mine).values(**values))


async def left_runs(connection: AsyncConnection) -> list[RunRecord]:
    """The runs that have not ended: at the start those that an earlier server left."""
    rows = await connection.execute(select(function_runs).where(function_runs.c.status == RunStatus.RUNNING))
    return [_run(row) for row in rows.mappings()]


async def end_runs(connection: AsyncConnection, ids: Sequence[str], error: str, now: float) -> list[RunRecord]:
    """End these runs; returns them as they are then."""
    theirs = function_runs.c.id.in_(ids)
    values = {"status": RunStatus.ERROR, "error": error, "ended_at": now, "next_attempt_at": None}
    await connection.execute(update(function_runs).where(theirs).values(**values))
    await connection.execute(delete(function_run_events).where(function_run_events.c.run_id.in_(ids)))
    return [_run(row) for row in (await connection.execute(select(function_runs).where(theirs))).mappings()]


async def get_run(connection: AsyncConnection, run_id: str) -> RunRecord | None:
    """One run."""
    row = (await connection.execute(select(function_runs).where(function_runs.c.id == run_id))).mappings().first()
    return None if row is None else _run(row)


async def runs_of(
    connection: AsyncConnection, function_id: str, most: int, schedule_id: str | None = None
) -> list[RunRecord]:
    """The last runs of a function, newest first."""
    mine = function_runs.c.function_id == function_id
    if schedule_id is not None:
        mine &= function_runs.c.schedule_id == schedule_id
    order = (function_runs.c.started_at.desc(), function_runs.c.id)
    rows = await connection.execute(select(function_runs).where(mine).order_by(*order).limit(most))
    return [_run(row) for row in rows.mappings()]


async def numbers_of(
    connection: AsyncConnection, function_id: str, since: float
) -> list[tuple[RunStatus, float | None, str | None]]:
    """Status, milliseconds and start of the runs that began since then."""
    columns = (function_runs.c.status, function_runs.c.duration_ms, function_runs.c.start)
    mine = (function_runs.c.function_id == function_id) & (function_runs.c.started_at >= since)
    return [
        (RunStatus(status), ms, start) for status, ms, start in await connection.execute(select(*columns).where(mine))
    ]


async def prune_runs(connection: AsyncConnection, function_id: str, kept: int) -> None:
    """Delete all but the newest ``kept`` runs of a function that have ended."""
    mine = function_runs.c.function_id == function_id
    newest = select(function_runs.c.started_at).where(mine).order_by(function_runs.c.started_at.desc())
    limit = (await connection.execute(newest.offset(kept).limit(1))).scalar_one_or_none()
    if limit is not None:
        old = mine & (function_runs.c.started_at <= limit) & (function_runs.c.status != RunStatus.RUNNING)
        await connection.execute(delete(function_runs).where(old))


def _run(row: Mapping[Any, Any]) -> RunRecord:
    return RunRecord(**{**row, "status": RunStatus(row["status"])})
