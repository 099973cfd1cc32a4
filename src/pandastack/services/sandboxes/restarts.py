"""Orderly stops: a server that ends hibernates the sandboxes that must not be lost, and the next one wakes them.

Machines on this host end with their server. Those on other nodes keep running, and are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from pandastack.errors import PandastackError
from pandastack.model.node import LOCAL_NODE
from pandastack.services.records.deadlines import Deadlines
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import SandboxRecord

AT_ONCE = max(2, os.cpu_count() or 1)
"""Transitions in progress at a time: each copies memory, and more would only slow each other down."""

log = structlog.get_logger(__name__)


class Restarts:
    """Hibernates at the end, and wakes at the start."""

    def __init__(self, registry: Registry, lifecycle: Lifecycle, settings: Settings) -> None:
        self._registry = registry
        self._lifecycle = lifecycle
        self._seconds = settings.stop_seconds

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Wake what ran when the former server stopped, most recently used first. Requests need not wait for it."""
        task_status.started()
        left = [record for record in self._here() if record.wake_at_start]
        left.sort(key=lambda record: -record.last_active_at)
        await _each(left, self._lifecycle.wake_after_start, "restart.not_woken")

    async def hibernate_all(self) -> None:
        """Hibernate every sandbox that its owner expects to find again, in parallel, within the configured time."""
        kept = [record for record in self._here() if Deadlines.only_hibernates(record)]
        with anyio.move_on_after(self._seconds, shield=True) as scope:
            await _each(kept, self._lifecycle.hibernate_for_stop, "stop.not_hibernated")
        if scope.cancelled_caught:
            log.warning("stop.deadline_passed", seconds=self._seconds)

    def _here(self) -> list[SandboxRecord]:
        return [record for record in self._registry.all() if record.node == LOCAL_NODE]


async def _each(records: Iterable[SandboxRecord], move: Callable[[str], Awaitable[None]], failed: str) -> None:
    """Call ``move`` for all ``records``, some at a time. One that fails is reported and affects no other."""
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def one(sandbox_id: str) -> None:
        async with limiter:
            try:
                await move(sandbox_id)
            except PandastackError as error:
                log.warning(failed, sandbox_id=sandbox_id, cause=repr(error))

    async with anyio.create_task_group() as tasks:
        for record in records:
            tasks.start_soon(one, record.id)
