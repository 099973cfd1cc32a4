"""The life cycle of a sandbox as its owner sees it: create, inspect, use, change, delete."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pandastack.cluster import Engines
from pandastack.contract.references import SnapshotRef, StartFrom, TemplateRef
from pandastack.contract.sandboxes import SandboxSpec, Started, Usage
from pandastack.errors import (
    NotFoundError,
    PandastackError,
    ServerError,
)
from pandastack.model.caller import Caller
from pandastack.services.captures.snapshots import Snapshots, unknown_snapshot
from pandastack.services.captures.storage_budget import StorageBudget
from pandastack.services.records.activity import Activity
from pandastack.services.records.deadlines import Deadlines
from pandastack.services.records.events import NewEvent
from pandastack.services.records.listing import Page, SandboxFilter
from pandastack.services.records.registry import Change, Registry
from pandastack.services.records.spec import (
    LifecyclePatch,
    NewSandbox,
    planned,
    planned_values,
    unknown_template,
)
from pandastack.services.records.status import LIVE
from pandastack.services.sandboxes.endings import Endings
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.sandboxes.placement import place
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import SandboxRecord, Status
from pandastack.store.snapshots import CHECKPOINT, SNAPSHOT

_ALL, _WHOLE = SandboxFilter(), Page()


class Sandboxes:
    """Sandboxes of all workspaces. Every look-up names the caller's workspace; objects of others are not found."""

    def __init__(
        self,
        registry: Registry,
        engines: Engines,
        activity: Activity,
        deadlines: Deadlines,
        lifecycle: Lifecycle,
        endings: Endings,
        snapshots: Snapshots,
        storage_budget: StorageBudget,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._activity = activity
        self._deadlines = deadlines
        self._lifecycle = lifecycle
        self._endings = endings
        self._snapshots = snapshots
        self._storage_budget = storage_budget
        self._settings = settings

    async def create(self, caller: Caller, wanted: NewSandbox) -> SandboxRecord:
        """Create a sandbox; returns once it executes commands. The record is written before the engine acts.

        A failure leaves neither record nor machine; a :class:`CapacityError` guarantees that.
        """
        record = await self._plan(caller, wanted)
        await self._registry.add(record)
        try:
            machine = await self._storage_budget.retry_after_evicting(
                record.node,
                lambda: self._engines.of(record).create(SandboxSpec(record.id), _start_from(record)),
            )
            await self._registry.apply(running_change(self._registry.find(record.id), machine))
        except NotFoundError as error:
            await self._endings.undo(record.id, error)
            raise _unknown(record) from error
        except BaseException as error:
            await self._endings.undo(record.id, error)
            raise
        self._activity.start(record.id)
        return self._registry.get(record.id)

    def list(self, caller: Caller) -> list[SandboxRecord]:
        """The caller's sandboxes, newest first."""
        return self.page(caller)[0]

    def page(
        self, caller: Caller, wanted: SandboxFilter = _ALL, page: Page = _WHOLE
    ) -> tuple[builtins.list[SandboxRecord], str | None]:
        """The caller's sandboxes that match the filter, and the cursor of the next page if there is one."""
        mine = (record for record in self._registry.all() if record.workspace == caller.workspace)
        return page.of_records(filter(wanted.matches, mine))

    def get(self, caller: Caller, sandbox_id: str) -> SandboxRecord:
        """One sandbox; raises :class:`NotFoundError`."""
        return self._registry.get_owned(caller, sandbox_id)

    @asynccontextmanager
    async def use(self, caller: Caller, sandbox_id: str, *, exclusive: bool = False) -> AsyncIterator[SandboxRecord]:
        """Use the sandbox for an operation inside it; wakes it first when it is hibernated.

        With ``exclusive`` it is neither paused nor hibernated before the block ends. Raises :class:`ConflictError` when
        it cannot be used now, :class:`UnavailableError` when it cannot be woken.
        """
        record = self.get(caller, sandbox_id)
        if record.status not in LIVE and not self._lifecycle.is_in_transition(record.id):
            raise await self._registry.refusal(record)
        with self._activity.hold(record.id):
            if not exclusive:
                yield await self._lifecycle.ready(record.id)
                return
            await self._lifecycle.ready(record.id)  # a paused sandbox is refused at once
            async with self._lifecycle.exclusive(record.id) as running:
                yield running

    async def usage(self, caller: Caller, sandbox_id: str) -> Usage | None:
        """The host resources that the sandbox's machine uses, if it still has one."""
        record = self.get(caller, sandbox_id)
        if record.status not in (Status.RUNNING, Status.PAUSED):
            raise await self._registry.refusal(record)
        return (await self._engines.of(record).sandbox(record.id)).usage

    async def set_lifecycle(self, caller: Caller, sandbox_id: str, patch: LifecyclePatch) -> SandboxRecord:
        """Change the idle limit, whether it applies, its action, and when checkpoints are taken."""
        record = self.get(caller, sandbox_id)
        values = planned_values(patch, self._settings)
        return await self._registry.change(record.id, **values) if values else record

    def idle_seconds(self, record: SandboxRecord) -> int:
        """Whole seconds without activity."""
        return int(self._activity.idle_seconds(record.id))

    def expires_at(self, record: SandboxRecord) -> float | None:
        """When the idle limit expires unless the sandbox is used before (epoch seconds); None: it does not apply."""
        return self._deadlines.expires_at(record)

    async def delete(self, caller: Caller, sandbox_id: str) -> None:
        """Delete the sandbox and everything that belongs to it; afterwards it is not found."""
        record = self.get(caller, sandbox_id)
        if record.status == Status.CREATING:
            raise await self._registry.refusal(record)
        await self._endings.delete(record.id)

    async def _plan(self, caller: Caller, wanted: NewSandbox) -> SandboxRecord:
        snapshot = None
        if wanted.snapshot is not None:
            snapshot = await self._snapshots.get(caller, wanted.snapshot, SNAPSHOT, CHECKPOINT)
            self._snapshots.used(snapshot.id)
        return planned(caller, wanted, place(self._engines.all(), snapshot), self._settings, snapshot)


def running_change(record: SandboxRecord | None, machine: Started) -> Change:
    """The change to a record once the engine has made the sandbox's machine.

    Raises :class:`ServerError` when the machine has died since.
    """
    if record is None or record.reason is not None:
        raise ServerError("the sandbox's machine died as it started", detail={"reason": record and record.reason})
    boot = {"boot_ms": machine.boot_ms, "boot_mode": machine.boot_mode}
    facts = {"template": machine.template, "cpu": machine.cpu, "memory_mb": machine.memory_mb}
    payload = {"template": machine.template, **boot, "phases": machine.phases}
    running = NewEvent("sandbox.running", payload)
    return Change(record.id, {**facts, **boot}, (running,), (Status.CREATING, Status.RUNNING))


def _start_from(record: SandboxRecord) -> StartFrom:
    return TemplateRef(record.template) if record.from_snapshot is None else SnapshotRef(record.from_snapshot)


def _unknown(record: SandboxRecord) -> PandastackError:
    return unknown_template(record.template) if record.from_snapshot is None else unknown_snapshot(record.from_snapshot)
