"""The life of a sandbox as its owner sees it: create, look, use, change, delete."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog

from pandastack.cluster import EngineClient
from pandastack.errors import (
    BadRequestError,
    CapacityError,
    ConflictError,
    NotFoundError,
    PandastackError,
    ServerError,
)
from pandastack.services.activity import Activity
from pandastack.services.alarm import Alarm
from pandastack.services.registry import Happening, Registry
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import CREATING, FAILED, PAUSED, RUNNING, STOPPING, SandboxRecord

_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_METADATA = 64 * 1024  # characters; every record is held in memory
_UNDO_SECONDS = 20.0
_NOTHING_CREATED = (CapacityError, BadRequestError, NotFoundError)
"""Answers of the engine's create that promise that it created nothing."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewSandbox:
    """What a caller wants. ``ttl_seconds`` None: the configured default."""

    template: str
    ttl_seconds: int | None = None
    persistent: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


class Sandboxes:
    """Sandboxes of all workspaces; every look-up names the caller's, and objects of others are not found."""

    def __init__(
        self, registry: Registry, engine: EngineClient, activity: Activity, alarm: Alarm, settings: Settings
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._activity = activity
        self._alarm = alarm
        self._settings = settings

    async def create(self, workspace: str, wanted: NewSandbox) -> SandboxRecord:
        """Returns when the sandbox executes commands. The record is written before the engine acts.

        A failure leaves neither record nor machine; a :class:`CapacityError` is a promise of that.
        """
        record = self._plan(workspace, wanted)
        await self._registry.add(record)
        try:
            machine = await self._engine.create(record.id, record.template)
            return await self._running(record.id, machine)
        except NotFoundError as error:
            await self._undo(record.id, error)
            raise _unknown_template(record.template) from error
        except BaseException as error:
            await self._undo(record.id, error)
            raise

    def list(self, workspace: str) -> list[SandboxRecord]:
        """The workspace's sandboxes, newest first."""
        return [record for record in self._registry.all() if record.workspace == workspace]

    def get(self, workspace: str, sandbox_id: str) -> SandboxRecord:
        """One sandbox; raises :class:`NotFoundError`."""
        record = self._registry.get(sandbox_id)
        if record is None or record.workspace != workspace:
            raise NotFoundError(f"sandbox not found: {sandbox_id[:64]}")
        return record

    @contextmanager
    def use(self, workspace: str, sandbox_id: str) -> Iterator[SandboxRecord]:
        """For the time of an operation inside the sandbox; raises :class:`ConflictError` when it cannot be used now."""
        record = self.get(workspace, sandbox_id)
        if record.status != RUNNING:
            raise _unusable(record)
        with self._activity.hold(record.id):
            yield record

    async def usage(self, workspace: str, sandbox_id: str) -> dict[str, Any]:
        """What the sandbox's machine uses on its host."""
        record = self.get(workspace, sandbox_id)
        if record.status not in (RUNNING, PAUSED):
            raise _unusable(record)
        usage: dict[str, Any] = (await self._engine.sandbox(record.id)).get("usage") or {}
        return usage

    async def set_lifecycle(
        self, workspace: str, sandbox_id: str, ttl_seconds: int | None, persistent: bool | None
    ) -> SandboxRecord:
        """Change the idle limit (seconds) and whether it applies; None leaves as is."""
        record = self.get(workspace, sandbox_id)
        values: dict[str, Any] = {}
        if ttl_seconds is not None:
            values["ttl_seconds"] = self._ttl(ttl_seconds)
        if persistent is not None:
            values["persistent"] = persistent
        if values:
            record = await self._registry.change(record.id, **values)
            self._expect(record)
        return record

    def idle_seconds(self, record: SandboxRecord) -> int:
        """Whole seconds without activity."""
        return int(self._activity.idle_seconds(record.id))

    def deadline(self, record: SandboxRecord) -> float | None:
        """When the sandbox is to be deleted unless it is used before (epoch seconds); None: never."""
        if record.persistent or record.status in (CREATING, STOPPING):
            return None
        limit = record.ttl_seconds or self._settings.reaper_interval_seconds
        return self._activity.last_active(record.id) + limit

    async def delete(self, workspace: str, sandbox_id: str) -> None:
        """End the sandbox and all it has; afterwards it is not found."""
        record = self.get(workspace, sandbox_id)
        if record.status == CREATING:
            raise _unusable(record)
        await self.end(record.id)

    async def end(self, sandbox_id: str) -> None:
        """Delete whoever's sandbox. After a failure it stays ``stopping``, and the reaper tries again."""
        await self._registry.change(sandbox_id, status=STOPPING)
        try:
            await self._engine.delete(sandbox_id)
        except NotFoundError:
            pass  # ended before: what was asked for
        except PandastackError:
            self._alarm.expect(time.time() + self._settings.reaper_interval_seconds)
            raise
        await self._registry.remove(sandbox_id)
        self._activity.forget(sandbox_id)

    async def fail(self, sandbox_id: str, happening: Happening, reason: str) -> None:
        """The sandbox's machine is gone. Its record stays, with the reason, until it is deleted or its TTL is over."""
        record = self._registry.get(sandbox_id)
        if record is None or record.status in (STOPPING, FAILED):
            return
        if record.status == CREATING:
            await self._registry.change(sandbox_id, reason=reason)  # the create, still under way, sees it
            return
        await self._registry.change(sandbox_id, happening, status=FAILED, reason=reason)
        log.warning("sandbox failed", sandbox_id=sandbox_id, reason=reason)

    def _plan(self, workspace: str, wanted: NewSandbox) -> SandboxRecord:
        if not _TEMPLATE_NAME.fullmatch(wanted.template):
            raise _unknown_template(wanted.template)
        if sum(len(key) + len(text) for key, text in wanted.metadata.items()) > _MAX_METADATA:
            raise BadRequestError(f"metadata: over {_MAX_METADATA} characters altogether", field="metadata")
        now = time.time()
        ttl = self._settings.default_ttl_seconds if wanted.ttl_seconds is None else self._ttl(wanted.ttl_seconds)
        return SandboxRecord(
            id=str(uuid.uuid4()),
            workspace=workspace,
            template=wanted.template,
            status=CREATING,
            ttl_seconds=ttl,
            persistent=wanted.persistent,
            metadata={**wanted.metadata, "workspace": workspace},
            created_at=now,
            last_active_at=now,
        )

    def _ttl(self, seconds: int) -> int:
        if seconds < 0:
            raise BadRequestError("ttl_seconds: must not be negative", field="ttl_seconds")
        if seconds > self._settings.max_ttl_seconds:
            raise BadRequestError(
                f"ttl_seconds exceeds tier maximum of {self._settings.max_ttl_seconds}", field="ttl_seconds"
            )
        return seconds

    async def _running(self, sandbox_id: str, machine: Mapping[str, Any]) -> SandboxRecord:
        current = self._registry.get(sandbox_id)
        if current is None or current.reason is not None:
            raise ServerError("the sandbox's machine died as it started", detail={"reason": current and current.reason})
        boot = {"boot_ms": machine["boot_ms"], "boot_mode": machine["boot_mode"]}
        payload = {"template": machine["template"], **boot, "phases": machine.get("phases") or {}}
        facts = {"template": machine["template"], "cpu": machine["cpu"], "memory_mb": machine["memory_mb"]}
        self._activity.start(sandbox_id)
        record = await self._registry.change(
            sandbox_id, Happening("sandbox.running", payload), status=RUNNING, **facts, **boot
        )
        self._expect(record)
        return record

    async def _undo(self, sandbox_id: str, error: BaseException) -> None:
        with anyio.move_on_after(_UNDO_SECONDS, shield=True):
            try:
                if isinstance(error, _NOTHING_CREATED):
                    await self._registry.remove(sandbox_id)
                elif self._registry.get(sandbox_id):
                    await self.end(sandbox_id)
            except PandastackError as second:
                log.error("undoing a failed create failed; the reaper goes on", cause=repr(second))
        self._activity.forget(sandbox_id)

    def _expect(self, record: SandboxRecord) -> None:
        deadline = self.deadline(record)
        if deadline is not None:
            self._alarm.expect(deadline)


def _unknown_template(name: str) -> BadRequestError:
    hint = "GET /v1/templates lists the templates"
    return BadRequestError(f"unknown template {name[:128]!r}", field="template", hint=hint)


def _unusable(record: SandboxRecord) -> ConflictError:
    why = {
        CREATING: "is still being created",
        PAUSED: "is paused",
        STOPPING: "is being deleted",
        FAILED: f"has failed: {record.reason or 'its machine is gone'}",
    }
    message = f"sandbox {record.id} {why.get(record.status, f'is {record.status}')}"
    detail = {"status": record.status} | ({"reason": record.reason} if record.reason else {})
    return ConflictError(message, detail=detail, hint="create a new sandbox" if record.status == FAILED else None)
