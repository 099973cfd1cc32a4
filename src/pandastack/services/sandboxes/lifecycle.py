"""Pause, resume, hibernate, wake: one transition of a sandbox at a time. A call into a hibernated sandbox wakes it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import anyio
import structlog

from pandastack.cluster import Engines
from pandastack.contract.sandboxes import Started
from pandastack.errors import ConflictError, NotFoundError, PandastackError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.services.captures.rewind import Rewinding
from pandastack.services.captures.storage_budget import StorageBudget
from pandastack.services.records.activity import Activity
from pandastack.services.records.deadlines import Deadlines
from pandastack.services.records.events import NewEvent
from pandastack.services.records.memory import after_start, may_boot
from pandastack.services.records.registry import Change, Registry
from pandastack.store.sandboxes import SandboxRecord, Status

_LONGEST_SECONDS = 300.0
"""How long a transition may take: that of a busy host on which a machine boots. It finishes even when its caller has
disconnected."""

log = structlog.get_logger(__name__)


class Lifecycle:
    """Moves sandboxes under a lock for each; requests that need one running wait for a transition in progress."""

    def __init__(
        self,
        registry: Registry,
        engines: Engines,
        activity: Activity,
        deadlines: Deadlines,
        storage_budget: StorageBudget,
        rewinding: Rewinding,
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._activity = activity
        self._deadlines = deadlines
        self._storage_budget = storage_budget
        self._rewinding = rewinding
        self._locks: dict[str, anyio.Lock] = {}
        self._in_transition: set[str] = set()
        self.at_work: dict[str, Callable[[SandboxRecord], Awaitable[bool]]] = {}
        """By product: whether an idle machine of it does something that is to end before it is hibernated."""

    async def pause(self, caller: Caller, sandbox_id: str) -> None:
        """Pause its CPUs; its memory stays. Does nothing when it is paused."""
        async with self._asked(caller, sandbox_id) as record:
            if record.status == Status.PAUSED:
                return
            if record.status != Status.RUNNING:
                raise await self._registry.refusal(record)
            await self._engines.of(record).pause(record.id)
            await self._registry.move(record, Status.PAUSED, NewEvent("sandbox.paused"))

    async def resume(self, caller: Caller, sandbox_id: str) -> None:
        """Resume the CPUs of a paused sandbox. Does nothing when it is running."""
        async with self._asked(caller, sandbox_id) as record:
            if record.status == Status.RUNNING:
                return
            if record.status != Status.PAUSED:
                raise await self._registry.refusal(record)
            await self._resume(record)

    async def hibernate(self, caller: Caller, sandbox_id: str) -> None:
        """Store memory and disk, and free the host. Does nothing when it is hibernated."""
        async with self._asked(caller, sandbox_id) as record:
            if record.status == Status.HIBERNATED:
                return
            if record.status == Status.FAILED:
                raise await self._registry.refusal(record)
            await self._hibernate(record, "request")

    async def hibernate_idle(self, sandbox_id: str) -> None:
        """Hibernate a sandbox whose time is over, unless it has been used meanwhile, or its product says that it works
        by itself: then it is tried again."""
        idle = self._registry.get(sandbox_id)
        is_at_work = self.at_work.get(idle.product or "")
        if idle.status is Status.RUNNING and is_at_work is not None and await is_at_work(idle):
            return
        async with self._transition(sandbox_id) as record:
            at = self._deadlines.of(record)
            if record.status in (Status.RUNNING, Status.PAUSED) and at is not None and at <= time.time():
                await self._hibernate(record, "idle")

    async def hibernate_for_stop(self, sandbox_id: str) -> None:
        """Hibernate it because the server stops. If it was running, the next server wakes it."""
        async with self._transition(sandbox_id) as record:
            if record.status in (Status.RUNNING, Status.PAUSED):
                await self._hibernate(record, "stop", wake_at_start=record.status is Status.RUNNING)

    async def wake_after_start(self, sandbox_id: str) -> None:
        """Wake what a stopping server hibernated while it ran, unless something else has happened to it since."""
        async with self._transition(sandbox_id) as record:
            if record.status is Status.HIBERNATED and record.wake_at_start:
                await self._wake(record)

    async def wake(self, caller: Caller, sandbox_id: str) -> None:
        """Bring it to ``running``: from hibernated or paused, or from failed by its last checkpoint.

        Does nothing when it is running. Raises :class:`ConflictError` when it has failed and has no checkpoint.
        """
        async with self._asked(caller, sandbox_id) as record:
            if record.status == Status.HIBERNATED:
                await self._wake(record)
            elif record.status == Status.PAUSED:
                await self._resume(record)
            elif record.status == Status.FAILED:
                await self._rewinding.restore(record)

    async def ready(self, sandbox_id: str, admit: Callable[[SandboxRecord], object] | None = None) -> SandboxRecord:
        """The running sandbox, woken if it was hibernated, after a transition in progress. Hold its activity meanwhile.

        ``admit`` is called just before a wake begins; an error of it prevents that.
        Raises :class:`ConflictError`, at once when it is paused, or :class:`UnavailableError` when it cannot wake.
        """
        record = self._registry.get(sandbox_id)
        if sandbox_id not in self._in_transition:
            if record.status == Status.RUNNING:
                return record
            if record.status != Status.HIBERNATED:
                raise await self._registry.refusal(record)
        async with self.exclusive(sandbox_id, admit) as running:
            return running

    @asynccontextmanager
    async def exclusive(
        self, sandbox_id: str, admit: Callable[[SandboxRecord], object] | None = None
    ) -> AsyncIterator[SandboxRecord]:
        """Like :meth:`ready`, and no transition begins until the block ends. Commands keep running meanwhile."""
        async with self.lock(sandbox_id):
            record = self._registry.get(sandbox_id)
            if record.status == Status.HIBERNATED:
                if admit is not None:
                    admit(record)
                record = await self._wake_for_use(record)
            if record.status != Status.RUNNING:
                raise await self._registry.refusal(record)
            yield record

    @asynccontextmanager
    async def lock(self, sandbox_id: str) -> AsyncIterator[None]:
        """Hold off transitions of the sandbox until the block ends."""
        async with self._locks.setdefault(sandbox_id, anyio.Lock()):
            yield

    @asynccontextmanager
    async def in_transition(self, sandbox_id: str) -> AsyncIterator[None]:
        """Inside a :meth:`lock`: requests wait for the end of the block. Cancellation does not interrupt it."""
        self._in_transition.add(sandbox_id)
        try:
            with anyio.move_on_after(_LONGEST_SECONDS, shield=True) as scope:
                yield
            if scope.cancelled_caught:
                raise UnavailableError("the engine does not answer; the sandbox's state is unknown")
        finally:
            self._in_transition.discard(sandbox_id)

    def is_in_transition(self, sandbox_id: str) -> bool:
        """Whether a transition is in progress."""
        return sandbox_id in self._in_transition

    def forget(self, sandbox_id: str) -> None:
        """Remove the lock of a sandbox that is gone."""
        self._locks.pop(sandbox_id, None)

    @asynccontextmanager
    async def _asked(self, caller: Caller, sandbox_id: str) -> AsyncIterator[SandboxRecord]:
        self._registry.get_usable(caller, sandbox_id)
        with self._activity.hold(sandbox_id):
            async with self._transition(sandbox_id) as record:
                if record.status in (Status.CREATING, Status.STOPPING):
                    raise await self._registry.refusal(record)
                yield record

    @asynccontextmanager
    async def _transition(self, sandbox_id: str) -> AsyncIterator[SandboxRecord]:
        async with self.lock(sandbox_id), self.in_transition(sandbox_id):
            yield self._registry.get(sandbox_id)

    async def _resume(self, record: SandboxRecord) -> None:
        await self._engines.of(record).resume(record.id)
        await self._registry.move(record, Status.RUNNING, NewEvent("sandbox.resumed"))

    async def _hibernate(self, record: SandboxRecord, cause: str, *, wake_at_start: bool = False) -> None:
        cost = await self._storage_budget.retry_after_evicting(
            record.node, lambda: self._engines.of(record).hibernate(record.id), need_mb=record.memory_mb
        )
        payload = {"cause": cause, **asdict(cost)}
        event = NewEvent("sandbox.hibernated", payload)
        await self._registry.move(record, Status.HIBERNATED, event, wake_at_start=wake_at_start)
        log.info("sandbox.hibernated", sandbox_id=record.id, cause=cause)

    async def _wake(self, record: SandboxRecord) -> SandboxRecord:
        try:
            machine = await self._storage_budget.retry_after_evicting(
                record.node, lambda: self._engines.of(record).wake(record.id, boot=may_boot(record))
            )
        except NotFoundError as error:
            reason = "what it was hibernated to is gone"
            event = NewEvent("recover.orphaned", {"reason": reason})
            raise await self._registry.refusal(
                await self._registry.move(record, Status.FAILED, event, reason=reason)
            ) from error
        values, events = after_start(record, machine)
        events = [*events, NewEvent("sandbox.woken", _boot(machine))]
        values = {**values, "boot_ms": machine.boot_ms, "boot_mode": machine.boot_mode, "wake_at_start": False}
        await self._registry.apply(Change(record.id, values, events, (record.status, Status.RUNNING)))
        return self._registry.get(record.id)

    async def _wake_for_use(self, record: SandboxRecord) -> SandboxRecord:
        """The error for a failed wake. It omits the cause: clients act on words in it, and would misread them."""
        try:
            async with self.in_transition(record.id):
                return await self._wake(record)
        except ConflictError:
            raise
        except PandastackError as error:
            log.warning("sandbox.wake_failed", sandbox_id=record.id, cause=repr(error))
            raise UnavailableError(
                f"sandbox {record.id} is hibernated and cannot be woken now", detail={"cause": error.code}
            ) from error


def _boot(machine: Started) -> dict[str, Any]:
    return {"boot_ms": machine.boot_ms, "boot_mode": machine.boot_mode, "phases": machine.phases}
