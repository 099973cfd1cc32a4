"""The life of a sandbox as its owner sees it: create, look, use, change, delete."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import structlog

from pandastack.cluster import EngineClient
from pandastack.errors import (
    BadRequestError,
    CapacityError,
    NotFoundError,
    PandastackError,
    ServerError,
)
from pandastack.services.captures.rewind import Rewinding
from pandastack.services.captures.snapshots import Snapshots, unknown_snapshot
from pandastack.services.captures.storage_budget import StorageBudget
from pandastack.services.records.activity import Activity
from pandastack.services.records.alarm import Alarm
from pandastack.services.records.deadlines import Deadlines
from pandastack.services.records.events import NewEvent
from pandastack.services.records.registry import Change, Registry
from pandastack.services.records.spec import (
    NewSandbox,
    checked_every,
    checked_on_expire,
    checked_ttl,
    planned,
    unknown_template,
)
from pandastack.services.records.status import LIVE
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import SandboxRecord, Status
from pandastack.store.snapshots import CHECKPOINT, SNAPSHOT

_UNDO_SECONDS = 20.0
_NOTHING_CREATED = (CapacityError, BadRequestError, NotFoundError)
"""Answers of the engine's create that promise that it created nothing."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What sandboxes are made with."""

    registry: Registry
    engine: EngineClient
    activity: Activity
    alarm: Alarm
    deadlines: Deadlines
    lifecycle: Lifecycle
    snapshots: Snapshots
    storage_budget: StorageBudget
    rewinding: Rewinding
    settings: Settings


class Sandboxes:
    """Sandboxes of all workspaces; every look-up names the caller's, and objects of others are not found."""

    def __init__(self, parts: Parts) -> None:
        self._registry = parts.registry
        self._engine = parts.engine
        self._activity = parts.activity
        self._alarm = parts.alarm
        self._deadlines = parts.deadlines
        self._lifecycle = parts.lifecycle
        self._snapshots = parts.snapshots
        self._storage_budget = parts.storage_budget
        self._settings = parts.settings

    async def create(self, workspace: str, wanted: NewSandbox) -> SandboxRecord:
        """Returns when the sandbox executes commands. The record is written before the engine acts.

        A failure leaves neither record nor machine; a :class:`CapacityError` is a promise of that.
        """
        record = await self._plan(workspace, wanted)
        await self._registry.add(record)
        try:
            machine = await self._storage_budget.retry_after_evicting(
                lambda: self._engine.create(record.id, record.template, record.from_snapshot)
            )
            return await self.started(record.id, machine)
        except NotFoundError as error:
            await self.undo(record.id, error)
            raise _unknown(record) from error
        except BaseException as error:
            await self.undo(record.id, error)
            raise

    def list(self, workspace: str) -> list[SandboxRecord]:
        """The workspace's sandboxes, newest first."""
        return [record for record in self._registry.all() if record.workspace == workspace]

    def get(self, workspace: str, sandbox_id: str) -> SandboxRecord:
        """One sandbox; raises :class:`NotFoundError`."""
        return self._registry.get_owned(workspace, sandbox_id)

    @asynccontextmanager
    async def use(self, workspace: str, sandbox_id: str, *, exclusive: bool = False) -> AsyncIterator[SandboxRecord]:
        """For the time of an operation inside the sandbox; wakes it first when it is hibernated.

        With ``exclusive`` it is neither paused nor hibernated before the block ends. Raises :class:`ConflictError` when
        it cannot be used now, :class:`UnavailableError` when it cannot be woken.
        """
        record = self.get(workspace, sandbox_id)
        if record.status not in LIVE and not self._lifecycle.is_in_transition(record.id):
            raise await self._registry.refusal(record)
        with self._activity.hold(record.id):
            if not exclusive:
                yield await self._lifecycle.ready(record.id)
                return
            await self._lifecycle.ready(record.id)  # a paused one is refused at once
            async with self._lifecycle.exclusive(record.id) as running:
                yield running

    async def usage(self, workspace: str, sandbox_id: str) -> dict[str, Any]:
        """What the sandbox's machine uses on its host."""
        record = self.get(workspace, sandbox_id)
        if record.status not in (Status.RUNNING, Status.PAUSED):
            raise await self._registry.refusal(record)
        usage: dict[str, Any] = (await self._engine.sandbox(record.id)).get("usage") or {}
        return usage

    async def set_lifecycle(
        self,
        workspace: str,
        sandbox_id: str,
        ttl_seconds: int | None,
        persistent: bool | None,
        on_expire: str | None = None,
        checkpoint_every: float | None = None,
        checkpoint_after_exec: bool | None = None,
    ) -> SandboxRecord:
        """Change the idle limit (seconds), whether it applies and what it does, and when checkpoints are taken.

        None leaves as is; a ``checkpoint_every`` of 0 is never.
        """
        record = self.get(workspace, sandbox_id)
        values: dict[str, Any] = {}
        if ttl_seconds is not None:
            values["ttl_seconds"] = checked_ttl(ttl_seconds, self._settings)
        if persistent is not None:
            values["persistent"] = persistent
        if on_expire is not None:
            values["on_expire"] = checked_on_expire(on_expire)
        if checkpoint_every is not None:
            values["checkpoint_every"] = checked_every(checkpoint_every)
        if checkpoint_after_exec is not None:
            values["checkpoint_after_exec"] = checkpoint_after_exec
        if values:
            record = await self._registry.change(record.id, **values)
            self._deadlines.expect(record)
        return record

    def idle_seconds(self, record: SandboxRecord) -> int:
        """Whole seconds without activity."""
        return int(self._activity.idle_seconds(record.id))

    def expires_at(self, record: SandboxRecord) -> float | None:
        """When the idle limit is over unless the sandbox is used before (epoch seconds); None: it does not apply."""
        return self._deadlines.expires_at(record)

    async def delete(self, workspace: str, sandbox_id: str) -> None:
        """End the sandbox and all it has; afterwards it is not found."""
        record = self.get(workspace, sandbox_id)
        if record.status == Status.CREATING:
            raise await self._registry.refusal(record)
        await self.end(record.id)

    async def end(self, sandbox_id: str) -> None:
        """Delete whoever's sandbox. After a failure it stays ``stopping``, and the reaper tries again."""
        record = self._registry.get(sandbox_id)
        if record.status != Status.STOPPING:
            await self._registry.move(record, Status.STOPPING)
        try:
            async with self._lifecycle.lock(sandbox_id):
                await self._end_machine(sandbox_id)
                await self._snapshots.delete_checkpoints(sandbox_id)
        except PandastackError:
            self._alarm.expect(time.time() + self._settings.reaper_interval_seconds)
            raise
        await self._registry.remove(sandbox_id)
        self._activity.forget(sandbox_id)
        self._lifecycle.forget(sandbox_id)

    async def expire(self, sandbox_id: str) -> None:
        """Do to a sandbox whose time is over what its owner wants then."""
        if Deadlines.only_hibernates(self._registry.get(sandbox_id)):
            await self._lifecycle.hibernate_idle(sandbox_id)
            return
        await self.end(sandbox_id)
        log.info("sandbox deleted", sandbox_id=sandbox_id, cause="idle")

    async def fail(self, sandbox_id: str, event: NewEvent, reason: str) -> None:
        """The sandbox's machine is gone. Its record stays, with the reason, until it is deleted or its TTL is over."""
        record = self._registry.find(sandbox_id)
        if record is None or record.status in (Status.STOPPING, Status.FAILED):
            return
        if record.status == Status.CREATING:
            await self._registry.change(sandbox_id, reason=reason)  # the create, still under way, sees it
            return
        await self._registry.move(record, Status.FAILED, event, reason=reason)
        log.warning("sandbox failed", sandbox_id=sandbox_id, reason=reason)

    async def started(self, sandbox_id: str, machine: Mapping[str, Any]) -> SandboxRecord:
        """The engine made the machine of a sandbox that was being created."""
        await self._registry.apply(self.start(sandbox_id, machine))
        return self.begun(sandbox_id)

    def start(self, sandbox_id: str, machine: Mapping[str, Any]) -> Change:
        """What changes when the engine made this machine; :meth:`begun` follows it. Raises when it died since."""
        current = self._registry.find(sandbox_id)
        if current is None or current.reason is not None:
            raise ServerError("the sandbox's machine died as it started", detail={"reason": current and current.reason})
        boot = {"boot_ms": machine["boot_ms"], "boot_mode": machine["boot_mode"]}
        template = machine.get("template") or current.template
        payload = {"template": template, **boot, "phases": machine.get("phases") or {}}
        facts = {"template": template, "cpu": machine["cpu"], "memory_mb": machine["memory_mb"]}
        running = NewEvent("sandbox.running", payload)
        return Change(sandbox_id, {**facts, **boot}, (running,), (Status.CREATING, Status.RUNNING))

    def begun(self, sandbox_id: str) -> SandboxRecord:
        """The sandbox is running from now on, and its idle limit counts."""
        self._activity.start(sandbox_id)
        record = self._registry.get(sandbox_id)
        self._deadlines.expect(record)
        return record

    async def undo(self, sandbox_id: str, error: BaseException) -> None:
        """Leave nothing of a sandbox whose creation failed with ``error``."""
        with anyio.move_on_after(_UNDO_SECONDS, shield=True):
            try:
                if isinstance(error, _NOTHING_CREATED):
                    await self._registry.remove(sandbox_id)
                elif self._registry.find(sandbox_id):
                    await self.end(sandbox_id)
            except PandastackError as second:
                log.error("undoing a failed create failed; the reaper goes on", cause=repr(second))
        self._activity.forget(sandbox_id)

    async def _plan(self, workspace: str, wanted: NewSandbox) -> SandboxRecord:
        snapshot = None
        if wanted.snapshot is not None:
            snapshot = await self._snapshots.get(workspace, wanted.snapshot, SNAPSHOT, CHECKPOINT)
            self._snapshots.used(snapshot.id)
        return planned(workspace, wanted, self._settings, snapshot)

    async def _end_machine(self, sandbox_id: str) -> None:
        with suppress(NotFoundError):  # ended before: what was asked for
            await self._engine.delete(sandbox_id)


def _unknown(record: SandboxRecord) -> PandastackError:
    return unknown_template(record.template) if record.from_snapshot is None else unknown_snapshot(record.from_snapshot)
