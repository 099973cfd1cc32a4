"""Runners for GitHub's Actions: one registers when a job waits, runs it on a machine of its own, and is removed.

Webhooks are hints. A sweep each minute asks GitHub which jobs wait and which runners there are, and the same plan
follows. A runner is written down before GitHub is asked for it, so that none is left there, whenever this server ends.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from pandastack.errors import PandastackError, UnavailableError
from pandastack.services.github.actions import Actions, JitConfig
from pandastack.services.github.connections import Connections
from pandastack.services.github.events import Event, WorkflowJob
from pandastack.services.github.supply import (
    MOVES,
    ActionsPool,
    WaitingJob,
    check_move,
    deadline_of,
    plan_pause,
    plan_starts,
    prefix_of,
)
from pandastack.store import Store
from pandastack.store import github as table
from pandastack.store.github import Phase, RunnerRecord

SWEEP_SECONDS = 60.0
_MOST_WAITING = 10_000
_REMOVE_SECONDS = 10.0
_TRUSTED_SECONDS = 60.0
"""How long a job that a webhook told of counts although GitHub does not list it: lists may be late."""

log = structlog.get_logger(__name__)


class RunnerMachines(Protocol):
    """What a product offers: machines that runners run on."""

    async def run(self, pool: str, name: str, jit_config: str, started: Callable[[], Awaitable[None]]) -> None:
        """Run one runner on a fresh machine of a pool, until its program has ended and the machine is gone.

        ``started`` is called once the program runs. ``jit_config`` goes to ``run.sh --jitconfig`` by a file or by
        standard input: arguments are seen by all users of a machine. A cancel ends the machine.
        """
        ...


@dataclass
class _Offer:
    """A pool, whose machines they are, and how it fares."""

    pool: ActionsPool
    machines: RunnerMachines
    failures: int = 0
    paused_until: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PoolState:
    """How a pool fares. ``error`` is what failed last, with its step, until something works again."""

    waiting: int
    runners: tuple[RunnerRecord, ...]
    error: str | None


@dataclass
class _Running:
    """A runner whose task runs; cancelling ``scope`` ends its machine, and ``reason`` says why. ``failed``: that is a
    failure of its pool. ``is_asked_about``: GitHub is being asked whether it has a job."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    reason: str | None = None
    failed: bool = False
    is_asked_about: bool = False


class Runners:
    """The pools that products offer, the jobs that wait, and the runners that there are."""

    def __init__(self, store: Store, actions: Actions, connections: Connections, tasks: TaskGroup) -> None:
        self._store = store
        self._actions = actions
        self._connections = connections
        self._tasks = tasks
        self._offers: dict[str, _Offer] = {}
        self._jobs: dict[tuple[str, int], WaitingJob] = {}
        """By workspace and id."""
        self._runners: dict[str, RunnerRecord] = {}
        self._running: dict[str, _Running] = {}
        self._changed = anyio.Event()
        self._sweep_lock = anyio.Lock()

    async def load(self) -> None:
        """Read what an earlier server left. Its machines are gone: what it registered is to be removed."""
        async with self._store.read() as connection:
            found = await table.load_runners(connection)
        self._runners = {each.name: replace(each, phase=Phase.ENDING) for each in found}

    def offer(self, pool: ActionsPool, machines: RunnerMachines) -> None:
        """Run jobs on a pool from now on, or with other settings."""
        former = self._offers.get(pool.id)
        self._offers[pool.id] = _Offer(pool, machines)
        if former is None:
            self._tasks.start_soon(self._sweep_pool_safely, pool)
        self._wake()

    async def withdraw(self, *pool_ids: str) -> None:
        """Run nothing more on these pools: returns when their machines are gone."""
        for pool_id in pool_ids:
            self._offers.pop(pool_id, None)
            for each in self._of(pool_id):
                self._end(each.name, "its pool is gone")
        while any(self._runners[name].pool in pool_ids for name in self._running):
            await self._changed.wait()

    def state(self, pool_id: str) -> PoolState:
        """How a pool fares."""
        offer = self._offers.get(pool_id)
        waiting = sum(offer is not None and _serves(offer.pool, each) for each in self._jobs.values())
        return PoolState(waiting, tuple(self._of(pool_id)), None if offer is None else offer.error)

    async def handle(self, event: Event, workspace: str | None) -> None:
        """Take a webhook's event."""
        if not isinstance(event, WorkflowJob):
            return
        if event.action == "queued":
            for each in self._workspaces(workspace):
                self._wait_for(WaitingJob(event.id, each, event.repository, event.labels, time.time()))
        elif event.action in ("in_progress", "completed"):
            for each in self._workspaces(workspace):
                self._jobs.pop((each, event.id), None)
            runner = self._runners.get(event.runner_name or "")
            if runner is not None and workspace in (None, runner.workspace):
                to = Phase.BUSY if event.action == "in_progress" else Phase.FINISHING
                if to in MOVES[runner.phase]:
                    await self._move(runner, to, job_id=event.id)
        self._wake()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Start and end runners until cancelled."""
        self._tasks.start_soon(self._sweep_again_and_again)
        task_status.started()
        while True:
            changed, now = self._changed, time.time()
            self._end_late(now)
            self._start_wanted(now)
            with anyio.move_on_after(max(0.05, self._next_time(now) - now)):
                await changed.wait()

    async def sweep(self) -> None:
        """Ask GitHub what waits and what is left, for all pools, and remove what is to be removed."""
        async with self._sweep_lock:
            for record in list(self._runners.values()):
                if record.phase is Phase.ENDING and record.name not in self._running:
                    await self._remove_safely(record)
            for offer in list(self._offers.values()):
                await self._sweep_pool_safely(offer.pool)

    async def _sweep_again_and_again(self) -> None:
        while True:
            await self.sweep()
            await anyio.sleep(SWEEP_SECONDS)

    async def _sweep_pool_safely(self, pool: ActionsPool) -> None:
        try:
            await self._sweep_pool(pool)
        except PandastackError as error:
            self._failed(pool.id, f"looking for jobs: {error.message}")
        self._wake()

    async def _sweep_pool(self, pool: ActionsPool) -> None:
        token, began = await self._token(pool.workspace), time.time()
        for repository in (pool.scope,) if "/" in pool.scope else pool.repositories:
            found = await self._actions.list_queued_jobs(token, repository)
            waiting = {each.id for each in found}
            for key, job in list(self._jobs.items()):
                of_this = job.workspace == pool.workspace and job.repository.lower() == repository.lower()
                if of_this and job.since <= began - _TRUSTED_SECONDS and job.id not in waiting:
                    self._jobs.pop(key, None)
            for each in found:
                self._wait_for(WaitingJob(each.id, pool.workspace, repository, each.labels, began))
        for runner in await self._actions.list_runners(token, pool.scope):
            known = self._runners.get(runner.name)
            if known is not None and runner.busy and Phase.BUSY in MOVES[known.phase]:
                await self._move(known, Phase.BUSY)
            elif known is None and not runner.busy and runner.name.startswith(prefix_of(pool.id)):
                await self._actions.delete_runner(token, pool.scope, runner.id)

    def _start_wanted(self, now: float) -> None:
        pools = [each.pool for each in self._offers.values() if each.paused_until <= now]
        for pool_id, count in plan_starts(pools, self._jobs.values(), self._runners.values()).items():
            for _ in range(count):
                self._start(self._offers[pool_id], now)

    def _start(self, offer: _Offer, now: float) -> None:
        pool = offer.pool
        name = prefix_of(pool.id) + secrets.token_hex(6)
        record = RunnerRecord(name, pool.workspace, pool.id, pool.scope, Phase.PLANNED, now, now)
        self._runners[name], self._running[name] = record, _Running()  # at once: the next plan counts it
        self._tasks.start_soon(self._carry, offer, record)

    async def _carry(self, offer: _Offer, record: RunnerRecord) -> None:
        """The life of one runner. Whatever happens, it is removed at GitHub afterwards, or later by a sweep."""
        running, name = self._running[record.name], record.name
        try:
            with running.scope:
                try:
                    async with self._store.write() as connection:
                        await table.add_runner(connection, record)
                    config = await self._register(offer.pool, name)
                    await offer.machines.run(offer.pool.id, name, config.encoded, lambda: self._listens(offer, name))
                except PandastackError as error:
                    running.reason, running.failed = f"{self._runners[name].phase}: {error.message}", True
                except Exception as error:  # a fault of one runner must not end the server
                    log.error("github.runner_broken", runner=name, exc_info=error)
                    running.reason, running.failed = f"{self._runners[name].phase}: the server failed", True
        finally:
            with anyio.CancelScope(shield=True):
                await self._has_ended(offer, name, running)
            del self._running[name]
            self._wake()

    async def _has_ended(self, offer: _Offer, name: str, running: _Running) -> None:
        """Remove a runner whose machine is gone. What takes too long, a sweep does later."""
        if running.failed and running.reason is not None:
            self._failed(offer.pool.id, running.reason)
        with anyio.move_on_after(_REMOVE_SECONDS):
            with suppress(PandastackError):
                await self._move(self._runners[name], Phase.ENDING, reason=running.reason)
            await self._remove_safely(self._runners[name])

    async def _register(self, pool: ActionsPool, name: str) -> JitConfig:
        token = await self._token(pool.workspace)
        config = await self._actions.generate_jit_config(token, pool.scope, name, pool.labels, pool.group_id)
        await self._move(self._runners[name], Phase.REGISTERED, runner_id=config.runner_id)
        return config

    async def _listens(self, offer: _Offer, name: str) -> None:
        offer.failures, offer.error = 0, None
        runner = self._runners[name]
        if Phase.LISTENING in MOVES[runner.phase]:
            await self._move(runner, Phase.LISTENING)

    async def _remove_safely(self, record: RunnerRecord) -> None:
        try:
            if await self._is_removed(record):
                async with self._store.write() as connection:
                    await table.remove_runner(connection, record.name)
                self._runners.pop(record.name, None)
        except PandastackError as error:
            log.warning("github.runner_left", runner=record.name, reason=error.message)

    async def _is_removed(self, record: RunnerRecord) -> bool:
        """Remove a runner at GitHub. Without a connection nobody can; GitHub itself does it after a day."""
        connection = await self._connections.find(record.workspace)
        if connection is None:
            return True
        ids = [record.runner_id] if record.runner_id is not None else []
        if not ids:
            found = await self._actions.list_runners(connection.token, record.scope, record.name)
            ids = [each.id for each in found]
        return all([await self._actions.delete_runner(connection.token, record.scope, each) for each in ids])

    async def _move(self, runner: RunnerRecord, to: Phase, **values: object) -> None:
        check_move(runner.phase, to)
        values |= {"phase": to, "since": time.time()}
        self._runners[runner.name] = replace(runner, **values)  # type: ignore[arg-type]
        async with self._store.write() as connection:
            await table.change_runner(connection, runner.name, **values)

    def _end_late(self, now: float) -> None:
        for each in list(self._runners.values()):
            if (due := self._due(each)) is None or due > now:
                continue
            if each.phase is Phase.LISTENING:
                self._running[each.name].is_asked_about = True
                self._tasks.start_soon(self._end_if_idle, each)
            else:
                failed = each.phase in (Phase.PLANNED, Phase.REGISTERED)
                self._end(each.name, f"{each.phase}: it took too long", failed=failed)

    async def _end_if_idle(self, record: RunnerRecord) -> None:
        """End a runner that no job came for. GitHub decides: it keeps one that has got a job, unknown to us."""
        try:
            if await self._is_removed(record):
                self._end(record.name, "no job came")
            elif Phase.BUSY in MOVES[self._runners[record.name].phase]:
                await self._move(self._runners[record.name], Phase.BUSY)
        except PandastackError as error:
            log.warning("github.runner_unknown", runner=record.name, reason=error.message)
        if (running := self._running.get(record.name)) is not None:
            await anyio.sleep(SWEEP_SECONDS if running.reason is None else 0)
            running.is_asked_about = False
        self._wake()

    def _end(self, name: str, reason: str, *, failed: bool = False) -> None:
        if (running := self._running.get(name)) is not None and running.reason is None:
            running.reason, running.failed = reason, failed
            running.scope.cancel()

    def _next_time(self, now: float) -> float:
        """When something is due that no event announces."""
        late = [due for each in self._runners.values() if (due := self._due(each)) is not None]
        pauses = [each.paused_until for each in self._offers.values() if each.paused_until > now]
        return min([now + SWEEP_SECONDS, *late, *pauses])

    def _due(self, runner: RunnerRecord) -> float | None:
        running = self._running.get(runner.name)
        if running is None or running.reason is not None or running.is_asked_about:
            return None
        offer = self._offers.get(runner.pool)
        return None if offer is None else deadline_of(runner, offer.pool.job_seconds)

    def _failed(self, pool_id: str, what: str) -> None:
        log.warning("github.pool_failed", pool=pool_id, reason=what)
        if (offer := self._offers.get(pool_id)) is not None:
            offer.failures, offer.error = offer.failures + 1, what
            offer.paused_until = time.time() + plan_pause(offer.failures)

    def _of(self, pool_id: str) -> list[RunnerRecord]:
        return [each for each in self._runners.values() if each.pool == pool_id]

    def _wait_for(self, job: WaitingJob) -> None:
        if len(self._jobs) < _MOST_WAITING and any(_serves(each.pool, job) for each in self._offers.values()):
            self._jobs.setdefault((job.workspace, job.id), job)

    def _workspaces(self, told: str | None) -> set[str]:
        """Whom an event is for: the workspace whose webhook it came by, or by the server's own, all that have pools."""
        return {each.pool.workspace for each in self._offers.values()} if told is None else {told}

    async def _token(self, workspace: str) -> str:
        connection = await self._connections.find(workspace)
        if connection is None:
            raise UnavailableError("the workspace is not connected to GitHub")
        return connection.token

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _serves(pool: ActionsPool, job: WaitingJob) -> bool:
    return pool.workspace == job.workspace and pool.serves(job.repository, job.labels)
