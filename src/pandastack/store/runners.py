"""Records of runner pools and of their jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.store.product_schema import jobs, runner_pools


class JobState(StrEnum):
    """How far a job is. The last five are final."""

    QUEUED = "queued"
    """It waits for a prepared version of its pool, or for other jobs of the pool to end."""
    PREPARING = "preparing"
    """Its machine is being made. No command of it has been sent."""
    RUNNING = "running"
    """Its commands run, or its artifacts are copied out."""
    SUCCEEDED = "succeeded"
    """Every command ended with 0."""
    FAILED = "failed"
    """A command ended with another exit code."""
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    """Its commands took longer than its deadline."""
    ERROR = "error"
    """It was not carried out; ``reason`` says why."""


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """A pool of a workspace. ``spec`` is what its owner asked for, ``version`` the prepared snapshot with its facts,
    ``error`` why the last refresh failed. ``refresh_at`` is when its schedule prepares it anew. Times are epoch
    seconds."""

    id: str
    workspace: str
    name: str
    spec: Mapping[str, Any]
    created_at: float
    version: Mapping[str, Any] | None = None
    error: str | None = None
    refresh_at: float | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job. Its sandbox has the same id while it exists. Times are epoch seconds; ``failed_step`` counts from 0.

    ``kept_until``: its machine is a sandbox of the workspace, which may be deleted from then on. ``checkpoint``: a
    capture of its machine before one of its commands. ``retry_of``: the job that it repeats from the command
    ``from_step`` on.
    """

    id: str
    workspace: str
    pool_id: str
    pool: str
    spec: Mapping[str, Any]
    state: JobState
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    version: str | None = None
    exit_code: int | None = None
    failed_step: int | None = None
    reason: str | None = None
    error: str | None = None
    artifacts_bytes: int | None = None
    kept_until: float | None = None
    checkpoint: Mapping[str, Any] | None = None
    retry_of: str | None = None
    from_step: int = 0


async def add_pool(connection: AsyncConnection, record: PoolRecord) -> None:
    """Insert ``record``."""
    await connection.execute(insert(runner_pools), asdict(record))


async def add_job(connection: AsyncConnection, record: JobRecord) -> None:
    """Insert ``record``."""
    await connection.execute(insert(jobs), asdict(record))


async def load_pools(connection: AsyncConnection) -> list[PoolRecord]:
    """The pools of all workspaces, oldest first."""
    rows = await connection.execute(select(runner_pools).order_by(runner_pools.c.created_at, runner_pools.c.id))
    return [PoolRecord(**row) for row in rows.mappings()]


async def load_jobs(connection: AsyncConnection) -> list[JobRecord]:
    """The jobs of all workspaces, oldest first."""
    rows = await connection.execute(select(jobs).order_by(jobs.c.created_at, jobs.c.id))
    return [JobRecord(**{**row, "state": JobState(row["state"])}) for row in rows.mappings()]


async def change_pool(connection: AsyncConnection, pool_id: str, **values: Any) -> None:
    """Set columns of a pool."""
    await connection.execute(update(runner_pools).where(runner_pools.c.id == pool_id).values(**values))


async def change_job(connection: AsyncConnection, job_id: str, **values: Any) -> None:
    """Set columns of a job."""
    await connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))


async def remove_pool(connection: AsyncConnection, pool_id: str) -> None:
    """Delete a pool; a missing one is fine."""
    await connection.execute(delete(runner_pools).where(runner_pools.c.id == pool_id))


async def remove_job(connection: AsyncConnection, job_id: str) -> None:
    """Delete a job; a missing one is fine."""
    await connection.execute(delete(jobs).where(jobs.c.id == job_id))
