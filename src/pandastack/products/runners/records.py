"""The records of runner pools and jobs: in memory and in the store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pandastack.errors import ConflictError, NotFoundError, QuotaError
from pandastack.model.caller import Caller
from pandastack.model.webhooks import Occurrence
from pandastack.products.runners.spec import has_labels
from pandastack.products.runners.states import FINAL, check_move
from pandastack.products.runners.version import spec_of
from pandastack.services import ControlPlane
from pandastack.store import runners as table
from pandastack.store.runners import JobRecord, JobState, PoolRecord


class Records:
    """Those of all workspaces. A look costs no query; every change is in the store before it is reported."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.pools: dict[str, PoolRecord] = {}
        self.jobs: dict[str, JobRecord] = {}

    async def load(self) -> None:
        """Read what earlier servers left."""
        async with self._plane.store.read() as connection:
            self.pools = {each.id: each for each in await table.load_pools(connection)}
            self.jobs = {each.id: each for each in await table.load_jobs(connection)}

    def find_pool(self, workspace: str, name: str) -> PoolRecord | None:
        """A pool by its name or id."""
        mine = (each for each in self.pools.values() if each.workspace == workspace)
        return next((each for each in mine if name in (each.name, each.id)), None)

    def get_pool(self, caller: Caller, name: str) -> PoolRecord:
        """The same; raises :class:`NotFoundError`."""
        if (found := self.find_pool(caller.workspace, name)) is None:
            hint = "GET /v1/runner-pools lists the pools"
            raise NotFoundError(f"runner pool not found: {name[:64]}", field="pool", hint=hint)
        return found

    def find_labelled(self, workspace: str, labels: tuple[str, ...]) -> PoolRecord | None:
        """The oldest pool that has all of these labels."""
        mine = (each for each in self.pools.values() if each.workspace == workspace)
        return next((each for each in mine if has_labels(spec_of(each), labels)), None)

    def pools_of(self, caller: Caller) -> list[PoolRecord]:
        """The workspace's pools, oldest first."""
        return [each for each in self.pools.values() if each.workspace == caller.workspace]

    async def add_pool(self, record: PoolRecord) -> None:
        """Add a pool. Raises :class:`QuotaError`, and :class:`ConflictError` when another one has its name."""
        most = self._plane.settings.max_runner_pools
        mine = [each for each in self.pools.values() if each.workspace == record.workspace]
        if any(each.name == record.name for each in mine):
            raise ConflictError(f"runner pool {record.name} exists already", field="name")
        if len(mine) >= most:
            hint = "delete one, or ask the operator to raise PANDASTACK_MAX_RUNNER_POOLS"
            raise QuotaError(f"a workspace has at most {most} runner pools", hint=hint)
        self.pools[record.id] = record  # at once: the next one counts it
        try:
            async with self._plane.store.write() as connection:
                await table.add_pool(connection, record)
        except BaseException:
            del self.pools[record.id]
            raise

    async def change_pool(self, pool_id: str, **values: Any) -> PoolRecord:
        """Set fields of a pool; returns it as it is then."""
        async with self._plane.store.write() as connection:
            await table.change_pool(connection, pool_id, **values)
        self.pools[pool_id] = changed = replace(self.pools[pool_id], **values)
        return changed

    async def remove_pool(self, pool_id: str) -> None:
        """Remove a pool."""
        async with self._plane.store.write() as connection:
            await table.remove_pool(connection, pool_id)
        self.pools.pop(pool_id, None)

    def get_job(self, caller: Caller, job_id: str) -> JobRecord:
        """A job of the caller's workspace; raises :class:`NotFoundError`."""
        found = self.jobs.get(job_id)
        if found is None or found.workspace != caller.workspace:
            raise NotFoundError(f"job not found: {job_id[:64]}", hint="GET /v1/jobs lists the jobs")
        return found

    def jobs_of(self, workspace: str) -> list[JobRecord]:
        """The workspace's jobs, oldest first."""
        return [each for each in self.jobs.values() if each.workspace == workspace]

    async def add_job(self, record: JobRecord) -> None:
        """Add a job. Raises :class:`QuotaError`."""
        most = self._plane.settings.max_waiting_jobs
        if sum(each.state not in FINAL for each in self.jobs_of(record.workspace)) >= most:
            hint = "wait for some to end, or ask the operator to raise PANDASTACK_MAX_WAITING_JOBS"
            raise QuotaError(f"a workspace has at most {most} jobs that have not ended", hint=hint)
        self.jobs[record.id] = record
        try:
            async with self._plane.store.write() as connection:
                await table.add_job(connection, record)
        except BaseException:
            del self.jobs[record.id]
            raise

    async def move_job(self, job_id: str, to: JobState, **values: Any) -> JobRecord:
        """Change a job's state, and set fields. Raises :class:`ServerError` for a move that there is not."""
        record = self.jobs[job_id]
        check_move(record.state, to)
        async with self._plane.store.write() as connection:
            await table.change_job(connection, job_id, state=to, **values)
            changed = replace(record, state=to, **values)
            woken = await self._plane.outbox.put(connection, *[_told(changed)] if to in FINAL else ())
        self.jobs[job_id] = changed
        self._plane.outbox.announce(woken)
        return changed

    async def change_job(self, job_id: str, **values: Any) -> None:
        """Set fields of a job that is still there."""
        async with self._plane.store.write() as connection:
            await table.change_job(connection, job_id, **values)
            if job_id in self.jobs:
                self.jobs[job_id] = replace(self.jobs[job_id], **values)

    async def remove_job(self, job_id: str) -> None:
        """Remove a job."""
        async with self._plane.store.write() as connection:
            await table.remove_job(connection, job_id)
        self.jobs.pop(job_id, None)


def _told(job: JobRecord) -> Occurrence:
    """What webhooks are told of a job that has ended."""
    data = {"id": job.id, "pool": job.pool, "state": job.state, "exit_code": job.exit_code, "reason": job.reason}
    return Occurrence(job.workspace, "job.ended", job.id, data, key="ended")
