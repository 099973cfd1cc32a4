"""Runner pools and jobs of a control plane, assembled."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from pandastack.model.caller import Caller
from pandastack.products.runners.actions import Actions
from pandastack.products.runners.jobs import Jobs
from pandastack.products.runners.pools import Pools
from pandastack.products.runners.records import Records
from pandastack.products.runners.refreshing import Refreshing
from pandastack.products.runners.shelf import Shelf, shelf_directory
from pandastack.products.runners.spec import PoolSpec
from pandastack.services import ControlPlane
from pandastack.store.runners import PoolRecord


@dataclass(frozen=True, slots=True)
class Runners:
    """Both, and what concerns both."""

    pools: Pools
    jobs: Jobs
    actions: Actions

    async def put_pool(self, caller: Caller, name: str, spec: PoolSpec) -> PoolRecord:
        """Make a pool, or change one. What its machines are made of changes with its next refresh.

        Raises :class:`BadRequestError` and :class:`QuotaError`.
        """
        pool = await self.pools.put(caller, name, spec)
        await self.actions.offer(pool)
        return pool

    async def delete_pool(self, caller: Caller, name: str) -> None:
        """Delete a pool: its jobs that have not ended are cancelled, its prepared version is deleted. The records of
        jobs stay. Raises :class:`NotFoundError`."""
        pool = self.pools.get(caller, name)
        await self.actions.withdraw(pool.id)
        await self.jobs.end_all(pool)
        await self.pools.delete(pool)
        await self.jobs.pool_deleted()


@asynccontextmanager
async def open_runners(
    plane: ControlPlane, database_url: str, clock: Callable[[], float] = time.time
) -> AsyncIterator[Runners]:
    """The runner pools and jobs of a control plane. At the end of the block jobs that run have ended as interrupted;
    those that wait begin with the next server."""
    shelf = Shelf(shelf_directory(plane.settings.jobs_dir, database_url))
    records = Records(plane)
    async with anyio.create_task_group() as tasks:
        pools = Pools(plane, records, shelf, tasks, clock)
        jobs = Jobs(plane, records, pools, shelf, tasks)
        pools.changed = jobs.pump
        await records.load()
        await pools.recover()
        await jobs.recover()
        actions = Actions(plane, records, jobs)
        for each in records.pools.values():
            await actions.offer(each)
        tasks.start_soon(Refreshing(records, pools, clock).watch)
        yield Runners(pools, jobs, actions)
        await actions.withdraw(*records.pools)
        tasks.cancel_scope.cancel()
