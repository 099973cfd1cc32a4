"""Pools as runners of GitHub's Actions: each runner is a job, whose command is GitHub's program (docs/github.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from pandastack.errors import UnavailableError
from pandastack.model.caller import Caller
from pandastack.products.runners.commands import plan_runner
from pandastack.products.runners.jobs import Jobs
from pandastack.products.runners.records import Records
from pandastack.products.runners.spec import JobSpec
from pandastack.products.runners.version import spec_of
from pandastack.services import ControlPlane
from pandastack.services.github.runners import PoolState
from pandastack.services.github.supply import ActionsPool
from pandastack.store.runners import JobState, PoolRecord


class Actions:
    """Offers the pools that say so to GitHub's jobs, and runs the runners that are wanted then."""

    def __init__(self, plane: ControlPlane, records: Records, jobs: Jobs) -> None:
        self._runners = plane.github.runners
        self._records = records
        self._jobs = jobs

    async def offer(self, pool: PoolRecord) -> None:
        """Offer a pool as it is now, or no more."""
        spec = spec_of(pool)
        if spec.github is None:
            await self._runners.withdraw(pool.id)
            return
        offered = ActionsPool(
            id=pool.id,
            workspace=pool.workspace,
            scope=spec.github.scope,
            labels=spec.labels,
            most=spec.concurrency,
            repositories=spec.github.repositories,
            group_id=spec.github.group_id,
            job_seconds=spec.job_seconds,
        )
        self._runners.offer(offered, self)

    async def withdraw(self, *pool_ids: str) -> None:
        """Run nothing more for GitHub on these pools: returns when their machines are gone."""
        await self._runners.withdraw(*pool_ids)

    def state(self, pool: PoolRecord) -> PoolState | None:
        """How a pool fares that is offered; None for others."""
        return None if spec_of(pool).github is None else self._runners.state(pool.id)

    async def run(self, pool: str, name: str, jit_config: str, started: Callable[[], Awaitable[None]]) -> None:
        """See :class:`~pandastack.services.github.runners.RunnerMachines`. Its job waits its turn among the pool's.

        Raises :class:`UnavailableError` when there was no machine.
        """
        record = self._records.pools[pool]
        github, caller = spec_of(record).github, Caller.server(record.workspace)
        assert github is not None
        wanted = JobSpec(steps=(plan_runner(github.program),), env={"PANDASTACK_RUNNER": name})
        job = await self._jobs.create(caller, record.name, wanted, jit_config.encode())
        try:
            job = await self._jobs.begun(caller, job.id)
            if job.state is JobState.ERROR:
                raise UnavailableError(job.error or "its machine was not made")
            await started()
            await self._jobs.ended(caller, job.id)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._jobs.cancel(caller, job.id)
            raise
