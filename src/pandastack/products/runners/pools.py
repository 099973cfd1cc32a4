"""Runner pools: prepared snapshots that the machines of jobs are made of (docs/design/0063)."""

from __future__ import annotations

import builtins
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup

from pandastack.contract.records import Output
from pandastack.errors import BadRequestError, ConflictError, NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.model.network_rules import from_json
from pandastack.products.runners.commands import plan_checkout, plan_step
from pandastack.products.runners.log import JobLog
from pandastack.products.runners.machine import Machine, delete_machine
from pandastack.products.runners.records import Records
from pandastack.products.runners.shelf import Shelf, spool
from pandastack.products.runners.spec import PoolSpec
from pandastack.products.runners.version import Version, spec_of, version_of
from pandastack.products.runners.work import shown
from pandastack.services import ControlPlane
from pandastack.services.cron import find_next
from pandastack.services.files.tar_filter import Outside
from pandastack.services.records.spec import NewSandbox, unknown_template
from pandastack.store.runners import PoolRecord
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.snapshots import RUNNER

PRODUCT = "runner-pool"
MOST_SOURCE_BYTES = 256 * 1024 * 1024
"""Largest checkout that is uploaded, as an archive."""
_IDLE_SECONDS = 300
_OTHER_WORK_SECONDS = 3600
_PIECE = 1 << 20
_INTERRUPTED = "the server ended as the pool was being prepared"

log = structlog.get_logger(__name__)


class PrepareFailed(Exception):
    """A refresh has failed, as the message says."""


@dataclass(eq=False)
class _Refresh:
    """A pool that is being prepared. ``left`` is set when the task has ended."""

    job_log: JobLog
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    left: anyio.Event = field(default_factory=anyio.Event)


class Pools:
    """Every look-up names a workspace; pools of others are not found. ``changed`` is told the id of a pool whose jobs
    may begin, ``expected`` the time at which a refresh is due."""

    def __init__(
        self,
        plane: ControlPlane,
        records: Records,
        shelf: Shelf,
        tasks: TaskGroup,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._plane = plane
        self._clock = clock
        self._records = records
        self._shelf = shelf
        self._tasks = tasks
        self._refreshes: dict[str, _Refresh] = {}
        self._held: Counter[str] = Counter()
        self.changed: Callable[[str], None] = lambda _pool_id: None
        self.expected: Callable[[float], None] = lambda _at: None

    async def recover(self) -> None:
        """Undo the refreshes that an earlier server was killed in."""
        for pool in self._records.pools.values():
            await delete_machine(self._plane, pool.workspace, pool.id)
        await self._prune()

    async def put(self, caller: Caller, name: str, spec: PoolSpec) -> PoolRecord:
        """Make a pool, or change one. What its machines are made of changes with its next refresh.

        Raises :class:`BadRequestError` and :class:`QuotaError`.
        """
        try:
            await self._plane.templates.get(caller, spec.template)
        except NotFoundError as error:
            raise unknown_template(spec.template) from error
        found = self._records.find_pool(caller.workspace, name)
        refresh_at = await self._refresh_at(spec, found)
        if found is not None:
            changed = await self._records.change_pool(found.id, spec=spec.to_json(), refresh_at=refresh_at)
            self.changed(found.id)
            return changed
        self._shelf.place(caller.workspace)  # a server that cannot store jobs has no pools
        record = PoolRecord(str(uuid.uuid4()), caller.workspace, name, spec.to_json(), time.time())
        record = replace(record, refresh_at=refresh_at)
        await self._records.add_pool(record)
        return record

    def get(self, caller: Caller, name: str) -> PoolRecord:
        """One pool by its name; raises :class:`NotFoundError`."""
        return self._records.get_pool(caller, name)

    def list(self, caller: Caller) -> builtins.list[PoolRecord]:
        """The workspace's pools, oldest first."""
        return self._records.pools_of(caller)

    def is_preparing(self, pool_id: str) -> bool:
        """Whether a refresh is in progress."""
        return pool_id in self._refreshes

    async def refresh(self, caller: Caller, name: str, source: AsyncIterator[bytes] | None) -> PoolRecord:
        """Begin to prepare a new version; returns when ``source``, a tar archive of the checkout, has been read. None:
        the one that was uploaded last.

        Raises :class:`ConflictError` while one is being prepared, :class:`BadRequestError` for an archive.
        """
        pool = self.get(caller, name)
        self._check_idle(pool)
        place = self._shelf.place(pool.id)
        await anyio.to_thread.run_sync(place.make)
        if source is not None:
            if spec_of(pool).git is not None:
                hint = "a pool has either a repository or an uploaded checkout"
                raise BadRequestError("source: this pool has a repository", field="source", hint=hint)
            await spool(source, place.source, MOST_SOURCE_BYTES, "source")
            pool = self.get(caller, name)
            self._check_idle(pool)
        return await self._begin(pool)

    async def refresh_due(self, pool: PoolRecord, now: float) -> None:
        """Begin the refresh of a pool whose time has come, and say when the next one is: in one write, so that each
        time is for one refresh. One that is being prepared already is refreshed for this time as well."""
        following = await _next(spec_of(pool), now)
        if self._records.pools.get(pool.id) != pool:  # it was changed or deleted meanwhile
            return
        if self.is_preparing(pool.id):
            await self._records.change_pool(pool.id, refresh_at=following)
            return
        await anyio.to_thread.run_sync(self._shelf.place(pool.id).make)
        await self._begin(pool, refresh_at=following)

    async def delete(self, pool: PoolRecord) -> None:
        """Delete a pool that has no jobs any more, with its prepared version."""
        with anyio.CancelScope(shield=True):
            if (refresh := self._refreshes.get(pool.id)) is not None:
                refresh.scope.cancel()
                await refresh.left.wait()
            await self._records.remove_pool(pool.id)
            await anyio.to_thread.run_sync(self._shelf.place(pool.id).remove)
            await self._prune()

    def output(self, caller: Caller, name: str, *, follow: bool) -> AsyncIterator[Output]:
        """What the last refresh has printed; with ``follow``, until it has ended."""
        pool = self.get(caller, name)
        if (refresh := self._refreshes.get(pool.id)) is not None:
            return refresh.job_log.read(follow=follow)
        return JobLog(self._shelf.place(pool.id).log, closed=True).read(follow=False)

    @contextmanager
    def version(self, pool_id: str) -> Iterator[Version]:
        """The prepared version of a pool, which is not deleted before the block ends. Raises :class:`ConflictError`."""
        pool = self._records.pools.get(pool_id)
        version = None if pool is None else version_of(pool)
        if version is None:
            raise ConflictError("the pool has no prepared version")
        self._held[version.id] += 1
        try:
            yield version
        finally:
            self._held[version.id] -= 1

    async def make_sandbox(self, caller: Caller, name: str, wanted: NewSandbox, *, trusted: bool) -> SandboxRecord:
        """A sandbox of the workspace's own, made of the prepared version. Raises what creates do, and
        :class:`ConflictError` for a pool without one."""
        pool = self.get(caller, name)
        if version_of(pool) is None:
            raise not_prepared(pool)
        with self.version(pool.id) as version:
            policy = await anyio.to_thread.run_sync(partial(version.policy, trusted=trusted))
            wanted = replace(wanted, snapshot=version.id, template="", network=policy)
            return await self._plane.sandboxes.create(Caller.server(caller.workspace), wanted)

    async def _begin(self, pool: PoolRecord, **claim: Any) -> PoolRecord:
        """Begin a refresh; ``claim`` is written together with the record that it has begun."""
        self._check_idle(pool)
        place = self._shelf.place(pool.id)
        place.log.unlink(missing_ok=True)
        refresh = self._refreshes[pool.id] = _Refresh(JobLog(place.log))
        try:
            pool = await self._records.change_pool(pool.id, error=_INTERRUPTED, **claim)  # true if the server ends now
        except BaseException:
            del self._refreshes[pool.id]
            raise
        self._tasks.start_soon(self._refresh, pool, refresh)
        return pool

    async def _refresh_at(self, spec: PoolSpec, former: PoolRecord | None) -> float | None:
        """When a pool is prepared anew by its schedule: for one whose schedule stays, as before."""
        if former is not None and _times(spec_of(former)) == _times(spec):
            return former.refresh_at
        following = await _next(spec, self._clock())
        if following is not None:
            self.expected(following)
        return following

    def _check_idle(self, pool: PoolRecord) -> None:
        if pool.id in self._refreshes:
            raise ConflictError(f"runner pool {pool.name} is being prepared already", hint="wait for its end")

    async def _refresh(self, pool: PoolRecord, refresh: _Refresh) -> None:
        """Prepare a version. A failure keeps the former one, and the pool says why."""
        final: dict[str, Any] = {}
        try:
            with refresh.scope:
                final = await self._outcome(pool, refresh.job_log)
        finally:
            with anyio.CancelScope(shield=True):
                if final and not refresh.scope.cancel_called:
                    await self._records.change_pool(pool.id, **final)
                del self._refreshes[pool.id]
                await self._prune()
            refresh.job_log.close()
            refresh.left.set()
            self.changed(pool.id)

    async def _outcome(self, pool: PoolRecord, job_log: JobLog) -> dict[str, Any]:
        try:
            version = await self._prepare(pool, spec_of(pool), job_log)
            return {"version": version.to_json(), "error": None}
        except PrepareFailed as failure:
            message = str(failure)
        except PandastackError as error:
            message = error.public or error.message
        except Exception as error:
            log.error("runner_pool.broken", pool=pool.id, exc_info=error)
            message = "internal server error"
        job_log.say(message)
        return {"error": message}

    async def _prepare(self, pool: PoolRecord, spec: PoolSpec, job_log: JobLog) -> Version:
        begun = time.monotonic()
        wanted = NewSandbox(
            template=spec.template,
            ttl_seconds=_IDLE_SECONDS,
            metadata={PRODUCT: pool.name},
            max_lifetime_seconds=int(spec.prepare_seconds) + _OTHER_WORK_SECONDS,
            size=spec.size,
            id=pool.id,
            network=None if spec.network is None else await anyio.to_thread.run_sync(from_json, spec.network),
            product=PRODUCT,
        )
        async with Machine(self._plane, pool.workspace, wanted, job_log.say) as machine:
            await self._fill(machine, pool, spec, job_log)
            probed = await machine.probe()
            made = await self._plane.timeline.snapshot(machine.caller, machine.id, pool.name, kind=RUNNER)
            return Version(
                id=made.id,
                made_at=made.created_at,
                seconds=round(time.monotonic() - begun, 3),
                size_bytes=made.size_bytes,
                template=made.template,
                directory=spec.directory,
                oom_kills=probed.oom_kills,
                network=self._plane.registry.get(machine.id).network,
            )

    async def _fill(self, machine: Machine, pool: PoolRecord, spec: PoolSpec, job_log: JobLog) -> None:
        """Bring the checkout in, and run the commands. Raises :class:`PrepareFailed`."""
        deadline = anyio.current_time() + spec.prepare_seconds
        source = self._shelf.place(pool.id).source
        job_log.say("checkout")
        commands = [plan_step(each, spec.directory, {"CI": "true", **spec.env}) for each in spec.prepare]
        for number, command in enumerate([plan_checkout(spec), *commands]):
            if number:
                job_log.say(f"step {number} of {len(commands)}: {shown(spec.prepare[number - 1])}")
            left = max(deadline - anyio.current_time(), 0.001)
            result = await machine.run(command, left, job_log.add)
            what = f"command {number}" if number else "the checkout"
            if result.timed_out:
                raise PrepareFailed(f"preparing took longer than {spec.prepare_seconds:g} s")
            if result.exit_code:
                reason = (await machine.probe()).reason_since(0)
                raise PrepareFailed(
                    f"{what} ended with exit code {result.exit_code}" + (f" ({reason})" if reason else "")
                )
            if not number and spec.git is None and source.exists():
                archive = _content(source)
                await self._plane.archives.unpack(machine.caller, machine.id, spec.directory, Outside.KEEP, archive)

    async def _prune(self) -> None:
        """Delete the prepared snapshots that are no pool's version and that no create uses."""
        known = {version.id for pool in self._records.pools.values() if (version := version_of(pool))}
        preparing = self._refreshes.keys()
        for each in await self._plane.snapshots.all():
            if (
                each.kind == RUNNER
                and each.id not in known
                and not self._held[each.id]
                and each.sandbox_id not in preparing
            ):
                with suppress(PandastackError):
                    await self._plane.snapshots.delete(each)


async def _next(spec: PoolSpec, after: float) -> float | None:
    """When the schedule of a pool is due next. A rare one looks through fifty years: in a thread."""
    if spec.refresh is None:
        return None
    return await anyio.to_thread.run_sync(find_next, spec.refresh, spec.timezone, after)


def _times(spec: PoolSpec) -> tuple[str | None, str]:
    return spec.refresh, spec.timezone


def not_prepared(pool: PoolRecord) -> ConflictError:
    """The error for a job of a pool that has no prepared version, and gets none now."""
    why = f": {pool.error}" if pool.error else ""
    hint = f"POST /v1/runner-pools/{pool.name}/refresh prepares one"
    return ConflictError(f"runner pool {pool.name} has no prepared version{why}", field="pool", hint=hint)


async def _content(path: Any) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(_PIECE):
            yield piece
