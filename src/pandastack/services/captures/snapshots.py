"""Snapshots and checkpoints: their records, and their data at the engine."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

import anyio
import structlog

from pandastack.cluster import EngineClient, Engines
from pandastack.contract.snapshots import MemoryFound
from pandastack.errors import NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.services.records.command_log import NOTHING, Ran
from pandastack.services.records.events import EventLog, NewEvent
from pandastack.services.records.listing import Page
from pandastack.store import Store, volumes
from pandastack.store import snapshots as table
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.snapshots import CHECKPOINT, OF_PRODUCTS, SNAPSHOT, SnapshotRecord

_UNDO_SECONDS = 20.0
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_WHOLE = Page()

log = structlog.get_logger(__name__)


class Snapshots:
    """A record is written after its data and deleted before it, so every listed snapshot can be restored.

    Data that a crash leaves without a record is deleted at the next start.
    """

    def __init__(self, store: Store, engines: Engines, events: EventLog) -> None:
        self._store = store
        self._engines = engines
        self._events = events
        self._unrecorded: set[str] = set()
        self.used_at: dict[str, float] = {}
        """When each snapshot was last restored, since the server's start (epoch seconds)."""

    async def take(
        self,
        sandbox: SandboxRecord,
        kind: str,
        label: str,
        ran: Ran = NOTHING,
        *,
        automatic: bool = False,
        snapshot_id: str | None = None,
    ) -> SnapshotRecord:
        """Capture a running sandbox, under ``snapshot_id`` (None: a new id). A failure leaves nothing behind."""
        snapshot_id = snapshot_id or str(uuid.uuid4())
        self._unrecorded.add(snapshot_id)
        try:
            async with self._store.read() as connection:
                clones = await volumes.clones(connection, sandbox.volumes)
            with anyio.CancelScope(shield=True):  # undone once it is done
                made = await self._engines.of(sandbox).snapshot(sandbox.id, snapshot_id)
            record = SnapshotRecord(
                id=snapshot_id,
                workspace=sandbox.workspace,
                sandbox_id=sandbox.id,
                template=sandbox.template,
                kind=kind,
                label=label,
                cpu=sandbox.cpu,
                memory_mb=sandbox.memory_mb,
                size_bytes=made.size_bytes,
                dirty_bytes=made.dirty_bytes,
                created_at=time.time(),
                automatic=automatic,
                commands=ran.commands,
                command_count=ran.count,
                node=sandbox.node,
                volumes=clones,
            )
            await self._add(record, NewEvent(f"{kind}.taken", {"id": snapshot_id, "label": label, **asdict(made)}))
        except BaseException:
            await self._undo(self._engines.of(sandbox), snapshot_id)
            raise
        finally:
            self._unrecorded.discard(snapshot_id)
        return record

    async def page(
        self, caller: Caller, sandbox_id: str | None = None, page: Page = _WHOLE
    ) -> tuple[list[SnapshotRecord], str | None]:
        """The caller's snapshots (of one sandbox), newest first, and the cursor of the next page."""
        more = None if page.limit is None else page.limit + 1
        async with self._store.read() as connection:
            found = await table.of_workspace(connection, caller.workspace, SNAPSHOT, sandbox_id, page.after, more)
        return page.cut(found)

    async def checkpoints(self, sandbox_id: str) -> list[SnapshotRecord]:
        """A sandbox's checkpoints, oldest first."""
        async with self._store.read() as connection:
            return await table.checkpoints(connection, sandbox_id)

    async def all(self) -> list[SnapshotRecord]:
        """The snapshots of every workspace, oldest first."""
        async with self._store.read() as connection:
            return await table.load_all(connection)

    def used(self, snapshot_id: str) -> None:
        """Note that a sandbox is restored from it now."""
        self.used_at[snapshot_id] = time.time()

    async def last_checkpoint(self, sandbox_id: str) -> SnapshotRecord | None:
        """The sandbox's newest checkpoint."""
        async with self._store.read() as connection:
            return await table.last_checkpoint(connection, sandbox_id)

    async def get(self, caller: Caller, snapshot_id: str, *kinds: str) -> SnapshotRecord:
        """One snapshot of any of ``kinds``; raises :class:`NotFoundError`."""
        async with self._store.read() as connection:
            record = await table.get(connection, snapshot_id)
        if record is None or record.workspace != caller.workspace or record.kind not in (kinds or (SNAPSHOT,)):
            raise unknown_snapshot(snapshot_id)
        return record

    async def to_restore(self, caller: Caller, snapshot_id: str) -> SnapshotRecord:
        """The snapshot or checkpoint that a sandbox is made of now, for the server also what a product has taken;
        raises :class:`NotFoundError`."""
        kinds = (SNAPSHOT, CHECKPOINT, *OF_PRODUCTS) if caller.is_server else (SNAPSHOT, CHECKPOINT)
        record = await self.get(caller, snapshot_id, *kinds)
        self.used(record.id)
        return record

    async def expect(self, record: SnapshotRecord, count: int, seconds: float) -> None:
        """Say that sandboxes will be created from it: ``count`` machines that have loaded it shall wait for the next
        ``seconds``, within what the node has for all snapshots. A hint: it replaces the last one, and a restart of the
        node forgets it."""
        await self._engines.of(record).expect_creates(record.id, count, seconds)

    async def search_memory(self, record: SnapshotRecord, values: Sequence[bytes]) -> MemoryFound:
        """Which of these values are in its memory, by their bytes: of 8 bytes or more, without NUL and line breaks."""
        return await self._engines.of(record).search_memory(record.id, values)

    async def delete(self, record: SnapshotRecord) -> None:
        """Delete its record, then free its data. A crash in between leaves data that the next start frees; in the other
        order it would leave a snapshot that is listed and cannot be restored."""
        async with self._store.write() as connection:
            await table.remove(connection, record.id)
        self.used_at.pop(record.id, None)
        await _free(self._engines.of(record), record.id)

    async def delete_checkpoints(self, sandbox_id: str) -> None:
        """Delete all checkpoints of a sandbox that ends."""
        for record in await self.checkpoints(sandbox_id):
            await self.delete(record)

    async def reconcile(self, node: str, sandboxes: set[str]) -> None:
        """After a start: delete data without a record, and the checkpoints of sandboxes that are gone, on one node."""
        records, engine = [each for each in await self.all() if each.node == node], self._engines.at(node)
        for record in records:
            if record.kind == CHECKPOINT and record.sandbox_id not in sandboxes:
                await self.delete(record)
        known = {record.id for record in records} | self._unrecorded
        for found in await engine.snapshots():
            if found.id not in known and _ID.fullmatch(found.id):
                log.warning("snapshot.without_record", snapshot_id=found.id)
                await _free(engine, found.id)

    async def _add(self, record: SnapshotRecord, event: NewEvent) -> None:
        async with self._store.write() as connection:
            await table.add(connection, record)
            await self._events.append(connection, (record.workspace, record.sandbox_id, event))
        self._events.announce(record.sandbox_id)

    async def _undo(self, engine: EngineClient, snapshot_id: str) -> None:
        with anyio.move_on_after(_UNDO_SECONDS, shield=True):
            try:
                await _free(engine, snapshot_id)
            except PandastackError as error:
                log.error("snapshot.undo_failed", cause=repr(error))


async def _free(engine: EngineClient, snapshot_id: str) -> None:
    with suppress(NotFoundError):  # already freed
        await engine.delete_snapshot(snapshot_id)


def unknown_snapshot(snapshot_id: str) -> NotFoundError:
    """The error for an unknown id, or one of another workspace."""
    return NotFoundError(f"snapshot not found: {snapshot_id[:64]}", hint="GET /v1/snapshots lists the snapshots")
