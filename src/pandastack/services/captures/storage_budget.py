"""Keeps automatic checkpoints within their budget, and gives their storage to what needs it more."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import anyio
import structlog

from pandastack.cluster import EngineClient
from pandastack.contract.snapshots import Measured
from pandastack.errors import PandastackError, StorageFullError
from pandastack.services.captures import eviction
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.records.events import NewEvent
from pandastack.services.records.registry import Registry
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import Status
from pandastack.store.snapshots import SnapshotRecord

_MIB = 1024 * 1024
_TRUSTED_SECONDS = 60.0
"""How long a measurement is believed: what snapshots take grows while running sandboxes overwrite what they share."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class StorageBudget:
    """The one place where checkpoints are evicted. Plans are :mod:`~pandastack.services.captures.eviction`'s.

    What a capture says of its size is the most that it can take; what it really takes the engine measures, which costs
    it a look at every file. So it is asked only when the former would be too much.
    """

    def __init__(self, registry: Registry, engine: EngineClient, snapshots: Snapshots, settings: Settings) -> None:
        self._registry = registry
        self._engine = engine
        self._snapshots = snapshots
        self._budget = settings.snapshot_budget
        self._most = settings.max_checkpoints
        self._turn = anyio.Lock()
        self._measured: dict[str, int] = {}
        self._measured_at = 0.0
        self._total: int | None = None

    async def retry_after_evicting(self, action: Callable[[], Awaitable[T]], need_mb: int | None = None) -> T:
        """What ``action`` returns. When storage is full for it, automatic checkpoints go and it is tried once more.

        ``need_mb`` is the most that it needs, of an action that may use the engine's reserve. Others are refused until
        that is free: for them nothing goes unless all of it can be had.
        """
        try:
            return await action()
        except StorageFullError:
            if not await self._evict_for(need_mb):
                raise
            return await action()

    async def tidy(self, sandbox_id: str) -> None:
        """After a checkpoint of the sandbox was taken: neither its own are too many, nor do all take too much.

        A failure is logged: the checkpoint is there, and the next one is an occasion to try again.
        """
        async with self._turn:
            try:
                for each in eviction.beyond_count(await self._snapshots.checkpoints(sandbox_id), self._most):
                    await self._snapshots.delete(each)
                await self._keep_budget()
            except PandastackError as error:
                log.warning("checkpoints could not be evicted", sandbox_id=sandbox_id, cause=repr(error))

    async def _keep_budget(self) -> None:
        going = await self._candidates()
        if time.monotonic() - self._measured_at > _TRUSTED_SECONDS:
            self._measured = {}
        supposed = sum(self._measured.get(each.id, each.size_bytes) for each in going)
        if self._total is not None and supposed <= self._budget.bytes_of(self._total):
            return
        frees = (await self._measure(going)).frees
        assert self._total is not None
        await self._evict(going, eviction.beyond_budget(frees, self._budget.bytes_of(self._total)), "budget", frees)

    async def _evict_for(self, need_mb: int | None) -> bool:
        async with self._turn:
            going = await self._candidates()
            if not going:
                return False
            storage = await self._measure(going)
            wanted = storage.reserve_bytes if need_mb is None else need_mb * _MIB
            missing = max(1, wanted - storage.free_bytes)
            gone = eviction.for_room(storage.frees, missing, all_or_nothing=need_mb is None)
            await self._evict(going, gone, "storage", storage.frees)
            return bool(gone)

    async def _candidates(self) -> list[SnapshotRecord]:
        failed = {record.id for record in self._registry.all() if record.status == Status.FAILED}
        return eviction.candidates(await self._snapshots.all(), self._snapshots.used_at, failed)

    async def _measure(self, going: Sequence[SnapshotRecord]) -> Measured:
        storage = await self._engine.measure([each.id for each in going])
        self._measured, self._measured_at = dict(storage.frees), time.monotonic()
        self._total = storage.total_bytes
        return storage

    async def _evict(
        self, going: Sequence[SnapshotRecord], gone: Sequence[str], cause: str, frees: Mapping[str, int]
    ) -> None:
        records = {each.id: each for each in going}
        for checkpoint_id in gone:
            record = records[checkpoint_id]
            await self._snapshots.delete(record)
            self._measured.pop(checkpoint_id, None)
            payload = {"id": record.id, "cause": cause, "freed_bytes": frees[record.id]}
            log.info("a checkpoint is evicted", sandbox_id=record.sandbox_id, **payload)
            if self._registry.find(record.sandbox_id):
                await self._registry.note(record.sandbox_id, NewEvent("checkpoint.evicted", payload))
