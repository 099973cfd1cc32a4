"""Holds automatic checkpoints to their budget, and gives up their storage to more urgent uses."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import structlog

from pandastack.cluster import Engines
from pandastack.contract.snapshots import Measured
from pandastack.errors import PandastackError, StorageFullError
from pandastack.services.captures import eviction
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.records.events import NewEvent
from pandastack.services.records.registry import Registry
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import SandboxRecord, Status
from pandastack.store.snapshots import SnapshotRecord

_MIB = 1024 * 1024
_TRUSTED_SECONDS = 60.0
"""How long a measurement is trusted: snapshots grow while running sandboxes overwrite the blocks that they share."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Storage:
    """The measured storage of one node: bytes that each checkpoint frees, time of the measurement, bytes in total."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    frees: dict[str, int] = field(default_factory=dict)
    measured_at: float = 0.0
    total: int | None = None


class StorageBudget:
    """The one place where checkpoints are evicted, on each node by its own budget.

    The plans are those of :mod:`~pandastack.services.captures.eviction`. A capture reports an upper bound of its size.
    Measuring the real size costs the engine a look at every file, so it is asked only when the sum of the upper bounds
    exceeds the budget.
    """

    def __init__(self, registry: Registry, engines: Engines, snapshots: Snapshots, settings: Settings) -> None:
        self._registry = registry
        self._engines = engines
        self._snapshots = snapshots
        self._budget = settings.snapshot_budget
        self._most = settings.max_checkpoints
        self._nodes: defaultdict[str, _Storage] = defaultdict(_Storage)

    async def retry_after_evicting(
        self, node: str, action: Callable[[], Awaitable[T]], need_mb: int | None = None
    ) -> T:
        """Return what ``action`` returns. If it finds the node's storage full, evict checkpoints and try once more.

        ``need_mb``: upper bound, for actions allowed to dip into the engine's reserve. For all others, evict nothing
        unless the full reserve can be freed.
        """
        try:
            return await action()
        except StorageFullError:
            if not await self._evict_for(node, need_mb):
                raise
            return await action()

    async def tidy(self, sandbox: SandboxRecord) -> None:
        """After a checkpoint of the sandbox: evict its checkpoints over the limit, then the node's over the budget.

        A failure is only logged: the checkpoint exists, and the next one tries again.
        """
        async with self._nodes[sandbox.node].lock:
            try:
                for each in eviction.beyond_count(await self._snapshots.checkpoints(sandbox.id), self._most):
                    await self._snapshots.delete(each)
                await self._keep_budget(sandbox.node)
            except PandastackError as error:
                log.warning("checkpoint.evict_failed", sandbox_id=sandbox.id, cause=repr(error))

    async def _keep_budget(self, node: str) -> None:
        candidates, storage = await self._candidates(node), self._nodes[node]
        if time.monotonic() - storage.measured_at > _TRUSTED_SECONDS:
            storage.frees = {}
        supposed = sum(storage.frees.get(each.id, each.size_bytes) for each in candidates)
        if storage.total is not None and supposed <= self._budget.bytes_of(storage.total):
            return
        measured = await self._measure(node, candidates)
        gone = eviction.beyond_budget(measured.frees, self._budget.bytes_of(measured.total_bytes))
        await self._evict(candidates, gone, "budget", measured.frees)

    async def _evict_for(self, node: str, need_mb: int | None) -> bool:
        async with self._nodes[node].lock:
            candidates = await self._candidates(node)
            if not candidates:
                return False
            measured = await self._measure(node, candidates)
            wanted = measured.reserve_bytes if need_mb is None else need_mb * _MIB
            missing = max(1, wanted - measured.free_bytes)
            gone = eviction.for_room(measured.frees, missing, all_or_nothing=need_mb is None)
            await self._evict(candidates, gone, "storage", measured.frees)
            return bool(gone)

    async def _candidates(self, node: str) -> list[SnapshotRecord]:
        failed = {record.id for record in self._registry.all() if record.status == Status.FAILED}
        there = [each for each in await self._snapshots.all() if each.node == node]
        return eviction.in_eviction_order(there, self._snapshots.used_at, failed)

    async def _measure(self, node: str, candidates: Sequence[SnapshotRecord]) -> Measured:
        measured, storage = await self._engines.at(node).measure([each.id for each in candidates]), self._nodes[node]
        storage.frees, storage.measured_at = dict(measured.frees), time.monotonic()
        storage.total = measured.total_bytes
        return measured

    async def _evict(
        self, candidates: Sequence[SnapshotRecord], gone: Sequence[str], cause: str, frees: Mapping[str, int]
    ) -> None:
        records = {each.id: each for each in candidates}
        for checkpoint_id in gone:
            record = records[checkpoint_id]
            await self._snapshots.delete(record)
            self._nodes[record.node].frees.pop(checkpoint_id, None)
            payload = {"id": record.id, "cause": cause, "freed_bytes": frees[record.id]}
            log.info("checkpoint.evicted", sandbox_id=record.sandbox_id, **payload)
            if self._registry.find(record.sandbox_id):
                await self._registry.note(record.sandbox_id, NewEvent("checkpoint.evicted", payload))
