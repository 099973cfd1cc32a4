"""The life cycle of a sandbox as its owner sees it: create, inspect, use, change, delete."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from pandastack.cluster import Engines
from pandastack.contract.network import SetSecrets
from pandastack.contract.references import SnapshotRef, StartFrom
from pandastack.contract.sandboxes import SandboxSpec, Started, Usage, secrets_needed
from pandastack.contract.volumes import AttachVolume
from pandastack.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    PandastackError,
    ServerError,
)
from pandastack.model.caller import Caller
from pandastack.model.network_rules import to_json
from pandastack.model.previews import PreviewDefaults, with_defaults
from pandastack.services.captures.snapshots import unknown_snapshot
from pandastack.services.captures.storage_budget import StorageBudget
from pandastack.services.records.activity import Activity
from pandastack.services.records.events import NewEvent
from pandastack.services.records.listing import Page, SandboxFilter
from pandastack.services.records.memory import after_start, may_boot
from pandastack.services.records.registry import Change, Registry
from pandastack.services.records.service_kinds import ServiceKinds
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
from pandastack.services.secrets.secrets import Secrets, split_metadata
from pandastack.services.settings import Settings
from pandastack.services.templates.owners import template_of
from pandastack.services.volumes.leases import Leases, by_name
from pandastack.store.sandboxes import SandboxRecord, Status

_ALL, _WHOLE = SandboxFilter(), Page()


class Sandboxes:
    """Sandboxes of all workspaces. Every look-up names the caller's workspace; objects of others are not found."""

    def __init__(
        self,
        registry: Registry,
        engines: Engines,
        activity: Activity,
        lifecycle: Lifecycle,
        endings: Endings,
        storage_budget: StorageBudget,
        secrets: Secrets,
        leases: Leases,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._engines = engines
        self._activity = activity
        self._lifecycle = lifecycle
        self._endings = endings
        self._storage_budget = storage_budget
        self._secrets = secrets
        self._leases = leases
        self.service_kinds = ServiceKinds(registry)
        """What policies may list as services; products add theirs."""
        self._settings = settings

    async def create(self, caller: Caller, wanted: NewSandbox) -> SandboxRecord:
        """Create a sandbox; returns once it executes commands. The record is written before the engine acts.

        A failure leaves neither record nor machine; a :class:`CapacityError` guarantees that.
        """
        return (await self.create_told(caller, wanted))[0]

    async def create_told(self, caller: Caller, wanted: NewSandbox) -> tuple[SandboxRecord, Started]:
        """As :meth:`create`, with what the engine tells of the start."""
        if wanted.network is not None:
            self.service_kinds.check(caller.workspace, wanted.network.services, "network.services")
        shown, hidden = split_metadata(wanted.metadata)
        granted = await self._secrets.granted(caller.workspace, secrets_wanted(wanted))
        record, machine = await self._add(caller, replace(wanted, metadata=shown)), None
        try:
            await self._secrets.keep_metadata(caller.workspace, record.id, hidden)
            machine = await self._start(record, wanted, granted)
            async with self._leases.brought(record, machine.own_volumes) as brought:
                facts = {"volumes": brought + record.volumes} if brought else {}
                await self._registry.apply(running_change(self._registry.find(record.id), machine, **facts))
        except NotFoundError as error:
            await self._endings.undo(record.id, error)
            raise _unknown(record, error) from error
        except BaseException as error:
            await self._endings.undo(record.id, error, is_made=machine is not None)
            if isinstance(error, PandastackError) and (error.field or "").startswith("volumes"):
                raise by_name(
                    error, {each.volume: each.name or "" for each in record.volumes if each.volume}
                ) from error
            raise
        self._activity.start(record.id)
        return self._registry.get(record.id), machine

    async def _start(self, record: SandboxRecord, wanted: NewSandbox, granted: SetSecrets) -> Started:
        """Have the engine make the machine. Only the engine knows whether the template's policy names secrets: then it
        refuses, and gets them."""
        try:
            return await self._ask_for(record, wanted, granted)
        except BadRequestError as error:
            if not (names := secrets_needed(error)):
                raise
            try:
                granted = await self._secrets.granted(record.workspace, names)
            except BadRequestError as missing:
                message = f"{missing.message}, which the template's policy names"
                hint = missing.hint and f"{missing.hint}; a create with `network` does not have the template's policy"
                raise BadRequestError(message, field=missing.field, hint=hint) from missing
        return await self._ask_for(record, wanted, granted)

    async def _ask_for(self, record: SandboxRecord, wanted: NewSandbox, granted: SetSecrets) -> Started:
        return await self._storage_budget.retry_after_evicting(
            record.node,
            lambda: self._engines.of(record).create(
                SandboxSpec(record.id),
                _start_from(record),
                wanted.size,
                boot=may_boot(record),
                network=wanted.network,
                secrets=granted if granted.env else None,
                volumes=_attached(record),
            ),
        )

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
        record = self._registry.get_usable(caller, sandbox_id)
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
        record = self._registry.get_usable(caller, sandbox_id)
        values = planned_values(patch, self._settings)
        return await self._registry.change(record.id, **values) if values else record

    def idle_seconds(self, record: SandboxRecord) -> int:
        """Whole seconds without activity."""
        return int(self._activity.idle_seconds(record.id))

    async def delete(self, caller: Caller, sandbox_id: str) -> None:
        """Delete the sandbox and everything that belongs to it; afterwards it is not found."""
        record = self._registry.get_usable(caller, sandbox_id)
        if record.status == Status.CREATING:
            raise await self._registry.refusal(record)
        await self._endings.delete(record.id)

    async def _add(self, caller: Caller, wanted: NewSandbox) -> SandboxRecord:
        """Write the record of a new sandbox. Its volumes are its own from then on."""
        async with self._leases.reserved(caller, wanted) as reserved:
            node = place(self._engines.all(), reserved.snapshot, reserved.node)
            record = planned(caller, wanted, node, self._settings, reserved.snapshot, reserved.volumes)
            await self._registry.add(record)
        return record


def secrets_wanted(wanted: NewSandbox) -> tuple[str, ...]:
    """The secrets that the request's network policy names."""
    return () if wanted.network is None else wanted.network.secrets


def running_change(record: SandboxRecord | None, machine: Started, **facts: Any) -> Change:
    """The change to a record once the engine has made the sandbox's machine, with ``facts`` that are known by then.

    Raises :class:`ServerError` when the machine has died since.
    """
    if record is None or record.reason is not None:
        raise ServerError("the sandbox's machine died as it started", detail={"reason": record and record.reason})
    boot = {"boot_ms": machine.boot_ms, "boot_mode": machine.boot_mode}
    facts |= {
        "template": machine.template,
        "cpu": machine.cpu,
        "memory_mb": machine.memory_mb,
        "disk_mb": machine.disk_mb,
    }
    payload = {"template": machine.template, **boot, "phases": machine.phases}
    metadata = with_defaults(record.metadata, PreviewDefaults(machine.previews, machine.wake))
    if metadata != record.metadata:
        facts["metadata"] = metadata
    if machine.network is not None:
        facts["network"] = to_json(machine.network)
    lost, events = after_start(record, machine)
    attached = [
        NewEvent("volume.attached", {"volume": each.name, "path": each.path, "read_only": each.read_only})
        for each in record.volumes
    ]
    running = NewEvent("sandbox.running", payload)
    events = [*events, *attached, running]
    return Change(record.id, {**facts, **boot, **lost}, events, (Status.CREATING, Status.RUNNING))


def _start_from(record: SandboxRecord) -> StartFrom:
    return template_of(record) if record.from_snapshot is None else SnapshotRef(record.from_snapshot)


def _attached(record: SandboxRecord) -> list[AttachVolume]:
    """The volumes that the engine attaches. Clones come with the snapshot that they are part of."""
    return [AttachVolume(each.volume, each.path, each.read_only) for each in record.volumes if each.volume is not None]


def _unknown(record: SandboxRecord, error: NotFoundError) -> PandastackError:
    if (error.field or "").startswith("volumes"):
        hint = "GET /v1/volumes shows the state of each"
        return ConflictError("volumes: the disk of one is missing on its node", field="volumes", hint=hint)
    return unknown_template(record.template) if record.from_snapshot is None else unknown_snapshot(record.from_snapshot)
