"""Jobs: each in a machine of its own, made of its pool's prepared version and deleted afterwards (docs/design/0063)."""

from __future__ import annotations

import builtins
import time
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup

from pandastack.contract.records import Output
from pandastack.errors import ConflictError, NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.products.runners.checkpoints import Checkpoints
from pandastack.products.runners.commands import plan_step
from pandastack.products.runners.log import JobLog
from pandastack.products.runners.machine import Machine, delete_machine
from pandastack.products.runners.pools import Pools, not_prepared
from pandastack.products.runners.records import Records
from pandastack.products.runners.retries import checkpoint_of, plan_retry
from pandastack.products.runners.shelf import Place, Shelf
from pandastack.products.runners.spec import JobSpec, checked_job, checked_labels
from pandastack.products.runners.states import FINAL, Reason
from pandastack.products.runners.version import Version, spec_of, version_of
from pandastack.products.runners.work import End, Work
from pandastack.services import ControlPlane
from pandastack.store.runners import JobRecord, JobState, PoolRecord

_INTERRUPTED = "the server ended while it ran"
_TRIALS, _PAUSE = 5, 0.2
"""To write the end of a job: how often, and the seconds after the first one."""
_INPUT_LOST = "the server ended before it began, and had its input in memory only"

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Active:
    """A job that has not ended. ``begun`` is set when its commands run, or will not; ``left`` when nothing of it is in
    progress any more."""

    job_log: JobLog
    given: bytes | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    begun: anyio.Event = field(default_factory=anyio.Event)
    left: anyio.Event = field(default_factory=anyio.Event)
    is_running: bool = False


class Jobs:
    """Every look-up names a workspace; jobs of others are not found.

    A job's record is written before its machine is made, and its end after the machine is gone.
    """

    def __init__(self, plane: ControlPlane, records: Records, pools: Pools, shelf: Shelf, tasks: TaskGroup) -> None:
        self._plane = plane
        self._records = records
        self._pools = pools
        self._shelf = shelf
        self._tasks = tasks
        self._checkpoints = Checkpoints(plane, records)
        self._active: dict[str, _Active] = {}
        self._waiting: defaultdict[str, deque[str]] = defaultdict(deque)

    async def recover(self) -> None:
        """Delete the machines of an earlier server's jobs. Those whose commands had begun have ended with an error; the
        others begin once more."""
        for job in list(self._records.jobs.values()):
            if job.state in FINAL:
                continue
            await delete_machine(self._plane, job.workspace, job.id)
            end = _interrupted(job)
            if end is None and job.pool_id not in self._records.pools:
                end = End.error(Reason.POOL, "its pool was deleted")
            if end is not None:
                await self._records.move_job(job.id, end.state, ended_at=time.time(), **end.values)
                continue
            if job.state is JobState.PREPARING:
                await self._records.move_job(job.id, JobState.QUEUED)
            self._enqueue(job, None)
        known = self._records.jobs.keys() | self._records.pools.keys()
        await anyio.to_thread.run_sync(self._shelf.tidy, known)
        for pool_id in list(self._waiting):
            self.pump(pool_id)
        self._tasks.start_soon(self._checkpoints.watch)

    async def create(
        self,
        caller: Caller,
        pool: str | Sequence[str],
        wanted: JobSpec,
        given: bytes | None = None,
        job_id: str | None = None,
    ) -> JobRecord:
        """Add a job to the queue of a pool, which is given by its name or by labels that it has all of. ``given`` is
        the input of its first command; it is never stored.

        Raises :class:`BadRequestError`, :class:`QuotaError`, and :class:`ConflictError` for a pool that has no prepared
        version and is not being prepared.
        """
        found = self._find_pool(caller, pool)
        wanted = replace(wanted, has_input=given is not None)
        job = self._record(found, checked_job(wanted, spec_of(found), given), job_id)
        return await self._add(found, job, given)

    async def retry(self, caller: Caller, job_id: str, from_step: int = 0, retry_id: str | None = None) -> JobRecord:
        """Add a job that does the same once more: all of it in the prepared machine, or from a command on in the
        machine as it was before that.

        Raises :class:`BadRequestError` with the field, :class:`QuotaError`, and :class:`ConflictError` for a job that
        has not ended, whose input is lost or whose pool has no prepared version.
        """
        former = self.get(caller, job_id)
        checkpoint = plan_retry(former, from_step)
        if (pool := self._records.pools.get(former.pool_id)) is None:
            raise ConflictError(f"the pool of job {former.id} was deleted", hint="create a job of another pool")
        spec = JobSpec.from_json(former.spec)
        job = self._record(pool, checked_job(spec, spec_of(pool), None), retry_id)
        stored = None if checkpoint is None else checkpoint.to_json()
        return await self._add(pool, replace(job, retry_of=former.id, from_step=from_step, checkpoint=stored), None)

    def _record(self, pool: PoolRecord, wanted: JobSpec, job_id: str | None) -> JobRecord:
        return JobRecord(
            id=job_id or str(uuid.uuid4()),
            workspace=pool.workspace,
            pool_id=pool.id,
            pool=pool.name,
            spec=wanted.to_json(),
            state=JobState.QUEUED,
            created_at=time.time(),
        )

    async def _add(self, pool: PoolRecord, job: JobRecord, given: bytes | None) -> JobRecord:
        spec, wanted = spec_of(pool), JobSpec.from_json(job.spec)
        for each in wanted.steps:
            plan_step(each, spec.directory, {**spec.env, **wanted.env})  # raises what is too long for the guest
        if version_of(pool) is None and not self._pools.is_preparing(pool.id):
            raise not_prepared(pool)
        await anyio.to_thread.run_sync(self._shelf.place(job.id).make)
        await self._records.add_job(job)
        self._enqueue(job, given)
        self.pump(pool.id)
        return job

    def list(self, caller: Caller, pool: str | None = None) -> builtins.list[JobRecord]:
        """The workspace's jobs, of one pool if it is named, newest first."""
        mine = reversed(self._records.jobs_of(caller.workspace))
        return [each for each in mine if pool is None or each.pool == pool]

    def get(self, caller: Caller, job_id: str) -> JobRecord:
        """One job; raises :class:`NotFoundError`."""
        return self._records.get_job(caller, job_id)

    async def cancel(self, caller: Caller, job_id: str) -> JobRecord:
        """End a job that has not ended; its machine is gone when this returns. One that has ended stays as it is."""
        job = self.get(caller, job_id)
        await self._end_now(job, End(JobState.CANCELLED))
        return self._records.jobs.get(job.id, job)

    async def delete(self, caller: Caller, job_id: str) -> None:
        """Delete a job with its log and artifacts; one that has not ended is cancelled first. A kept machine stays."""
        job = await self.cancel(caller, job_id)
        with anyio.CancelScope(shield=True):
            await self._forget(job.id)

    async def begun(self, caller: Caller, job_id: str) -> JobRecord:
        """The job once its commands run, or it has ended. Raises :class:`NotFoundError`."""
        job = self.get(caller, job_id)
        if (active := self._active.get(job.id)) is not None:
            await active.begun.wait()
        return self.get(caller, job_id)

    async def ended(self, caller: Caller, job_id: str) -> JobRecord:
        """The job once it has ended. Raises :class:`NotFoundError`."""
        job = self.get(caller, job_id)
        if (active := self._active.get(job.id)) is not None:
            await active.left.wait()
        return self.get(caller, job_id)

    def output(self, caller: Caller, job_id: str, *, follow: bool) -> AsyncIterator[Output]:
        """What the job has printed; with ``follow``, until it has ended. Its record is final then."""
        job = self.get(caller, job_id)
        if (active := self._active.get(job.id)) is not None:
            return active.job_log.read(follow=follow)
        return JobLog(self._shelf.place(job.id).log, closed=True).read(follow=False)

    def artifacts(self, caller: Caller, job_id: str) -> Path:
        """The file with the job's artifacts as a tar archive. Raises :class:`ConflictError` before its end, and
        :class:`NotFoundError` when there are none."""
        job = self.get(caller, job_id)
        if job.state not in FINAL:
            raise ConflictError(f"job {job.id} is {job.state}", hint="its artifacts exist when it has ended")
        if job.artifacts_bytes is None:
            raise NotFoundError(f"job {job.id} has no artifacts", hint="`artifacts` of a job names paths")
        return self._shelf.place(job.id).artifacts

    async def end_all(self, pool: PoolRecord) -> None:
        """End the jobs of a pool that is being deleted."""
        for job in list(self._records.jobs.values()):
            if job.pool_id == pool.id and job.state not in FINAL:
                await self._end_now(
                    job, End(JobState.CANCELLED, {"reason": Reason.POOL, "error": "its pool was deleted"})
                )
        self._waiting.pop(pool.id, None)

    async def pool_deleted(self) -> None:
        """A pool is gone, and nothing can be retried in it."""
        await self._checkpoints.tidy()

    def pump(self, pool_id: str) -> None:
        """Begin the jobs of a pool whose turn it is. Does not wait."""
        pool, waiting = self._records.pools.get(pool_id), self._waiting[pool_id]
        if pool is None or version_of(pool) is None:
            if pool is not None and waiting and not self._pools.is_preparing(pool_id):
                self._tasks.start_soon(self._end_unprepared, pool)
            return
        mine = (self._records.jobs[each] for each, active in self._active.items() if active.is_running)
        running = sum(each.pool_id == pool_id for each in mine)
        while waiting and running < spec_of(pool).concurrency:
            job_id = waiting.popleft()
            self._active[job_id].is_running = True
            running += 1
            self._tasks.start_soon(self._run, job_id)

    async def _end_unprepared(self, pool: PoolRecord) -> None:
        """End the jobs that wait for a first version which could not be made."""
        waiting = self._waiting[pool.id]
        end = End.error(Reason.POOL, f"its pool has no prepared version: {pool.error or 'it was not prepared'}")
        while waiting and not self._pools.is_preparing(pool.id):
            await self._end_now(self._records.jobs[waiting[0]], end)

    def _find_pool(self, caller: Caller, pool: str | Sequence[str]) -> PoolRecord:
        if isinstance(pool, str):
            return self._records.get_pool(caller, pool)
        labels = checked_labels(pool)
        found = self._records.find_labelled(caller.workspace, labels)
        if found is None:
            raise NotFoundError(f"labels: no runner pool has all of {', '.join(labels)[:200]}", field="labels")
        return found

    def _enqueue(self, job: JobRecord, given: bytes | None) -> None:
        self._active[job.id] = _Active(JobLog(self._shelf.place(job.id).log), given)
        self._waiting[job.pool_id].append(job.id)

    async def _end_now(self, job: JobRecord, end: End) -> None:
        """End a job from outside: one that waits at once, one that runs by ending its work."""
        active = self._active.get(job.id)
        if active is None:
            return
        if active.is_running:
            active.scope.cancel()
            await active.left.wait()
            return
        self._waiting[job.pool_id].remove(job.id)  # from here on nothing begins it
        active.is_running = True
        with anyio.CancelScope(shield=True):
            await self._end(job.id, active, end)

    async def _run(self, job_id: str) -> None:
        """Carry a job out, whatever happens."""
        active, end = self._active[job_id], None
        try:
            with active.scope:
                end = await self._work(job_id, active)
            if active.scope.cancelled_caught:
                end = End(JobState.CANCELLED)
        except Exception as error:
            log.error("job.broken", job_id=job_id, exc_info=error)
            end = End.error(Reason.MACHINE, "internal server error")
        finally:
            if end is None and self._records.jobs[job_id].state is JobState.RUNNING:  # the server stops
                end = End.error(Reason.INTERRUPTED, _INTERRUPTED)
            with anyio.CancelScope(shield=True):
                await self._end(job_id, active, end)

    async def _work(self, job_id: str, active: _Active) -> End:
        job = await self._records.move_job(job_id, JobState.PREPARING)
        while True:
            pool = self._records.pools.get(job.pool_id)
            if pool is None:
                return End.error(Reason.POOL, "its pool was deleted")
            with self._pools.version(pool.id) as version:
                try:
                    return await self._work_of(job, pool, version, active).carry_out()
                except NotFoundError as error:
                    if (now := self._records.pools.get(pool.id)) is None or now.version == pool.version:
                        return End.error(Reason.MACHINE, error.message)

    def _work_of(self, job: JobRecord, pool: PoolRecord, version: Version, active: _Active) -> Work:
        """The work of a job whose machine is made of ``version``, or of its checkpoint."""
        made_of, origin = version.id, version
        if job.from_step and (checkpoint := checkpoint_of(job)) is not None:
            made_of, origin = checkpoint.version, checkpoint.origin(version)

        async def begun() -> None:
            await self._records.move_job(job.id, JobState.RUNNING, started_at=time.time(), version=made_of)
            active.begun.set()

        async def capture(machine: Machine, step: int) -> None:
            await self._checkpoints.take(machine, job.id, step, origin)

        return Work(
            self._plane,
            job,
            JobSpec.from_json(job.spec),
            spec_of(pool),
            origin,
            active.job_log,
            self._shelf.place(job.id),
            active.given,
            begun,
            capture,
            job.from_step,
        )

    async def _end(self, job_id: str, active: _Active, end: End | None) -> None:
        """Write the final record. None: the next server begins it."""
        job = self._records.jobs[job_id]
        if end is not None:
            await self._store_end(job, end)
        active.job_log.close()
        self._active.pop(job_id, None)
        active.begun.set()
        active.left.set()
        self.pump(job.pool_id)

    async def _store_end(self, job: JobRecord, end: End) -> None:
        """Write it, also where the database does not answer at first. An end that cannot be written is found as
        interrupted by the next server."""
        for trial in range(_TRIALS):
            try:
                ended = await self._records.move_job(job.id, end.state, ended_at=time.time(), **end.values)
                await self._checkpoints.ended(ended)
                await self._forget_oldest(job.workspace)
                return
            except PandastackError as error:
                log.error("job.not_stored", job_id=job.id, trial=trial, exc_info=error)
            await anyio.sleep(_PAUSE * 2**trial)

    async def _forget_oldest(self, workspace: str) -> None:
        ended = [each for each in self._records.jobs_of(workspace) if each.state in FINAL]
        for each in ended[: max(0, len(ended) - self._plane.settings.kept_jobs)]:
            await self._forget(each.id)

    async def _forget(self, job_id: str) -> None:
        job = self._records.jobs.get(job_id)
        await self._records.remove_job(job_id)
        if job is not None:
            await self._checkpoints.ended(job)
        place: Place = self._shelf.place(job_id)
        await anyio.to_thread.run_sync(place.remove)


def _interrupted(job: JobRecord) -> End | None:
    """How a job of an earlier server has ended; None: it may begin."""
    if job.state is JobState.RUNNING:
        return End.error(Reason.INTERRUPTED, _INTERRUPTED)
    needs_input = JobSpec.from_json(job.spec).has_input and not job.from_step
    return End.error(Reason.INTERRUPTED, _INPUT_LOST) if needs_input else None
