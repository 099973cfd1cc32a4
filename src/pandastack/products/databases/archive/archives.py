"""The archives of all databases: each receives the log of its database while that runs, and gets base backups."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio.abc import ByteStream, TaskGroup

from pandastack.errors import (
    BadRequestError,
    ConflictError,
    PandastackError,
    UnavailableError,
    UnsupportedError,
)
from pandastack.model.caller import Caller
from pandastack.model.databases import is_database_id
from pandastack.products.databases.archive import feed, plan
from pandastack.products.databases.archive.archive import Archive, Backups, Description, Health
from pandastack.products.databases.archive.drills import Drills, find_due
from pandastack.products.databases.archive.feed import Source
from pandastack.products.databases.archive.place import place_of
from pandastack.products.databases.archive.plan import Base, Epoch
from pandastack.products.databases.archive.receiver import Receiver
from pandastack.products.databases.archive.target import Target
from pandastack.products.databases.archive.wal import position_of
from pandastack.products.databases.disk import disk_gb, grow_disk
from pandastack.products.databases.faults import known
from pandastack.products.databases.server import SOCKET, server_of
from pandastack.products.databases.spec import SIZES
from pandastack.products.databases.wire import Gone, Session, SqlError
from pandastack.services import ControlPlane
from pandastack.store.databases import DatabaseRecord
from pandastack.store.sandboxes import Status

_TICK_SECONDS = 1.0
_SETTLE_SECONDS = 10.0
"""How long a new database is left alone before its first base backup is taken."""
_DRILL_TICK_SECONDS = 60.0
_AGAIN_SECONDS = 60.0
"""Before a base backup that failed is tried again."""
_MOST_LOG = 4 * 1024**3
"""As much of the log gets a new base backup: no restore takes more, and what came before may go when room is short."""
_FLUSH_SECONDS = 60.0
_FUTURE_SECONDS = 2.0
"""How much another clock may be ahead of ours."""

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Kept:
    """An archive that grows. ``due``: when it may get its next base backup, on the clock of the loop."""

    record: DatabaseRecord
    archive: Archive
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    loaded: anyio.Event = field(default_factory=anyio.Event)
    left: anyio.Event = field(default_factory=anyio.Event)
    receiving: anyio.CancelScope | None = None
    taking: anyio.CancelScope | None = None
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    """Held by the base backup that is taken, and by who deletes the archive."""
    due: float = 0.0


class Archives:
    """``target`` None: this server keeps none, and what needs one is refused."""

    def __init__(self, plane: ControlPlane, tasks: TaskGroup, target: Target | None, pending: Path) -> None:
        self._plane = plane
        self._tasks = tasks
        self._target = target
        self._pending = pending
        self._kept: dict[str, _Kept] = {}
        self._found: dict[str, Archive] = {}
        """Archives of databases that this server does not know."""
        self.drills = Drills(plane)
        self._one = anyio.Lock()
        """Held by the one base backup that is taken by itself."""

    async def run(self) -> None:
        """End what receives from databases that sleep, and have base backups taken."""
        while self._target is not None:
            await anyio.sleep(_TICK_SECONDS)
            for each in list(self._kept.values()):
                if each.receiving is not None and not self._runs(each):
                    each.receiving.cancel()
                elif not self._one.locked() and self._is_due(each):
                    self._tasks.start_soon(self._take_due, each)
                    break

    def begin(self, record: DatabaseRecord) -> None:
        """Archive a database from now on, as long as it exists."""
        if self._target is not None and record.id not in self._kept:
            kept = self._kept[record.id] = _Kept(record, Archive(self._target, self._pending, record.id))
            self._tasks.start_soon(self._keep, kept)

    async def remove(self, database_id: str) -> None:
        """Delete the archive of a database that is being deleted."""
        if self._target is None:
            return
        kept = self._kept.pop(database_id, None)
        if kept is None:
            await Archive(self._target, self._pending, database_id).remove()
            return
        kept.scope.cancel()
        if kept.taking is not None:
            kept.taking.cancel()
        await kept.left.wait()
        async with kept.lock:  # nothing writes to it any more
            await kept.archive.remove()

    def backups(self, database_id: str) -> Backups | None:
        """What there is of a database; None: it is not archived."""
        kept = self._kept.get(database_id)
        if kept is None:
            return None
        archive = kept.archive
        latest = archive.as_of or 0.0
        bases = tuple(base for epoch in archive.epochs for base in epoch.bases)
        found = tuple(plan.windows(archive.epochs, latest))
        told = archive.health, archive.size, archive.as_of, archive.error, archive.drill, archive.durable
        return Backups(found, bases, *told)

    async def find(self, caller: Caller, database_id: str) -> Description | None:
        """The archive of a database that this server does not know, such as one of another host, or None."""
        if self._target is None or database_id in self._kept or not is_database_id(database_id):
            return None
        archive = Archive(self._target, self._pending, database_id)
        found = await archive.description()
        if found is None or found.workspace != caller.workspace:
            return None
        await archive.load()
        self._found[database_id] = archive
        return found

    async def check(self, database_id: str, target_time: float | None) -> None:
        """Raise unless a database can be restored: :class:`UnsupportedError`, :class:`ConflictError` before the first
        base backup, and :class:`BadRequestError` with the times that there are."""
        archive = await self._archive(database_id)
        if archive is None:
            hint = "PANDASTACK_DATABASE_BACKUPS tells it where" if self._target is None else None
            message = "this server keeps no archive of the database"
            name = "size" if target_time is None else "target_time"
            raise UnsupportedError(f"{name}: {message}", field=name, hint=hint)
        _check_time(archive, target_time)

    async def _archive(self, database_id: str) -> Archive | None:
        kept = self._kept.get(database_id)
        if kept is None:
            return self._found.get(database_id)
        await kept.loaded.wait()
        return kept.archive

    async def grown(self, record: DatabaseRecord) -> None:
        """Note that a database has a larger disk. A failure is in the log; the next server notes it."""
        kept = self._kept.get(record.id)
        if kept is not None and kept.loaded.is_set():
            try:
                await self._describe(kept)
            except Exception as error:
                known(error, record)

    async def make_room(self, record: DatabaseRecord, key: str, machine_id: str) -> None:
        """Give a new machine of the size of ``record`` a disk as large as that of the database ``key``, whose archive
        is to be restored into it.

        Raises :class:`QuotaError` and :class:`StorageFullError`.
        """
        await self.find(server_of(record), key)
        archive, kept = await self._archive(key), self._kept.get(key)
        needed = max(archive.disk_gb if archive else 0, disk_gb(self._plane, kept.record) if kept else 0)
        if needed > SIZES[record.size].disk_gb:
            await grow_disk(self._plane, server_of(record), machine_id, needed)

    async def restore(self, record: DatabaseRecord) -> None:
        """Restore what ``record`` asks for into its machine, which is new."""
        key = record.cloned_from or ""
        await self.find(server_of(record), key)  # as an earlier server may have found it
        archive = await self._archive(key)
        if archive is None:
            raise ConflictError("the database that it is restored from is gone")
        if (kept := self._kept.get(key)) is not None:
            await self._catch_up(kept, record.target_time)
        await self._restore(archive, record, record.id, record.target_time)

    async def _restore(
        self, archive: Archive, record: DatabaseRecord, sandbox_id: str, target_time: float | None
    ) -> None:
        archive.readers += 1
        try:
            epoch, base = _check_time(archive, target_time)
            source, memory = Source(archive, epoch, base, target_time), SIZES[record.size].memory_mb
            await feed.restore(self._plane.interior, server_of(record), sandbox_id, source, memory)
        finally:
            archive.readers -= 1

    async def drill(self) -> None:
        """Try out restores of the archives, one after another, each when its time has come."""
        every = self._plane.settings.database_drill_seconds
        await self.drills.sweep()
        while self._target is not None and every:
            await anyio.sleep(min(_DRILL_TICK_SECONDS, every))
            try:
                await self.drill_next(time.time())
            except Exception as error:
                log.error("database.drill_broken", exc_info=error)

    async def drill_next(self, now: float) -> bool:
        """Try out a restore of the archive whose turn it is; returns whether there is one."""
        times = [(name, last) for name, each in self._kept.items() if (last := each.archive.last_drill) is not None]
        name = find_due(times, now, self._plane.settings.database_drill_seconds)
        if name is None:
            return False
        kept = self._kept[name]
        restore = partial(self._restore, kept.archive, kept.record, target_time=None)
        room = partial(self.make_room, kept.record, name)
        done = await self.drills.run(kept.record, room, restore)
        if done is not None and name in self._kept:
            await kept.archive.keep_drill(done)
        return True

    def states(self) -> Counter[str]:
        """How many archives are in which state."""
        found = Counter({each.value: 0 for each in Health})
        found.update(each.archive.health.value for each in self._kept.values())
        return found

    async def back_up(self, record: DatabaseRecord) -> Base:
        """Take a base backup now; one that sleeps is woken. What was committed before is archived then."""
        kept = self._kept.get(record.id)
        if kept is None:
            raise UnsupportedError("this server keeps no archive of the database")
        await self._catch_up(kept, None)
        return await self._take(kept)

    async def _catch_up(self, kept: _Kept, target_time: float | None) -> None:
        """Have everything archived that was committed before. A machine that is lost has nothing to add."""
        archive = kept.archive
        if target_time is not None and archive.as_of is not None and target_time < archive.as_of:
            return
        machine = self._plane.registry.find(kept.record.id)
        if machine is None or machine.status is Status.FAILED:
            return
        try:
            with anyio.fail_after(_FLUSH_SECONDS):
                async with self._connected(kept.record, look=False) as stream:
                    session = Session(stream)
                    await session.start(archive.user, "postgres")
                    ((position,),) = await session.query("SELECT pg_current_wal_flush_lsn()")
                    await archive.reached(position_of(position or ""))
        except (TimeoutError, SqlError, Gone, ValueError) as error:
            hint = "GET /v1/databases/{id}/backups shows why"
            raise UnavailableError("what the database has written is not archived yet", hint=hint) from error

    async def _keep(self, kept: _Kept) -> None:
        """Receive the log of a database whenever it runs."""
        archive, record = kept.archive, kept.record
        receiver = Receiver(archive, partial(self._connected, record, look=True))
        try:
            with kept.scope:
                await archive.load(tidy=True)
                kept.loaded.set()
                await archive.description()
                await self._describe(kept)
                while True:
                    if self._runs(kept):
                        kept.due = max(kept.due, anyio.current_time() + _SETTLE_SECONDS)
                        await self._receive(kept, receiver)
                        if len(archive.epochs) > 1:
                            await self._tidy(archive)
                    await anyio.sleep(_TICK_SECONDS)
        except Exception as error:
            archive.health, archive.error = Health.BROKEN, known(error, record).message
        finally:
            kept.loaded.set()
            kept.left.set()

    async def _describe(self, kept: _Kept) -> None:
        record = kept.record
        described = Description(record.id, record.workspace, record.label, record.size, disk_gb(self._plane, record))
        await kept.archive.describe(described)

    async def _receive(self, kept: _Kept, receiver: Receiver) -> None:
        archive = kept.archive
        try:
            with anyio.CancelScope() as kept.receiving:
                await receiver.run()
        except Exception as error:
            if self._runs(kept):
                cause = error.message if isinstance(error, PandastackError) else "the database server ended it"
                if archive.health is not Health.BROKEN:
                    log.warning("database.archive_broken", database_id=archive.id, exc_info=error)
                archive.health, archive.error = Health.BROKEN, cause
                return
        finally:
            kept.receiving = None
        archive.health = Health.WAITING

    def _is_due(self, kept: _Kept) -> bool:
        epoch, archive = kept.archive.current, kept.archive
        if archive.health is not Health.ARCHIVING or epoch is None or anyio.current_time() < kept.due:
            return False
        if not epoch.bases:
            return True
        written, age = archive.durable - epoch.backed_up, time.time() - epoch.bases[-1].ended_at
        return written > _MOST_LOG or (written > 0 and age > self._plane.settings.database_base_seconds)

    async def _take_due(self, kept: _Kept) -> None:
        async with self._one:
            kept.due = anyio.current_time() + _AGAIN_SECONDS
            try:
                await self._take(kept)
            except Exception as error:
                known(error, kept.record)

    async def _take(self, kept: _Kept) -> Base:
        async with kept.lock:
            try:
                with anyio.CancelScope() as kept.taking:
                    if self._kept.get(kept.record.id) is kept:
                        base = await kept.archive.take_base(partial(self._connected, kept.record, look=False))
                        await self._tidy(kept.archive)
                        return base
            except (SqlError, Gone) as error:
                raise UnavailableError("the database server ended the backup") from error
            finally:
                kept.taking = None
        raise ConflictError("the archive of the database was deleted meanwhile")

    async def _tidy(self, archive: Archive) -> None:
        """Delete what no restore needs, and the oldest backups of all databases when all take too much."""
        settings = self._plane.settings
        oldest = time.time() - settings.database_retention_seconds
        await archive.delete(plan.plan_retention(archive.epochs, oldest))
        free = {name: each.archive.epochs for name, each in self._kept.items() if not each.archive.readers}
        busy = sum(each.archive.size for each in self._kept.values() if each.archive.readers)
        gone = plan.plan_budget(free, settings.database_backups_bytes - busy)
        for name, parts in gone.items():
            for each in parts:
                if (kept := self._kept.get(name)) is not None:
                    await kept.archive.delete(each)

    def _runs(self, kept: _Kept) -> bool:
        machine = self._plane.registry.find(kept.record.id)
        return machine is not None and machine.status is Status.RUNNING

    @asynccontextmanager
    async def _connected(self, record: DatabaseRecord, *, look: bool) -> AsyncIterator[ByteStream]:
        async with self._plane.interior.connect(server_of(record), record.id, SOCKET, look=look) as stream:
            yield stream


def _check_time(archive: Archive, target_time: float | None) -> tuple[Epoch, Base]:
    """The base that a restore begins with. Raises as :meth:`Archives.check`."""
    now = time.time()
    spans = plan.windows(archive.epochs, now)
    if not spans:
        hint, name = (
            f"POST /v1/databases/{archive.id}/backups makes one",
            "size" if target_time is None else "target_time",
        )
        raise ConflictError(f"{name}: there is no backup of database {archive.id} yet", field=name, hint=hint)
    wanted = math.inf if target_time is None else target_time
    found = plan.find_base(archive.epochs, wanted, math.inf)
    if found is None or (target_time is not None and target_time > now + _FUTURE_SECONDS):
        ranges = ", ".join(f"{each.earliest_text} to {each.latest_text}" for each in spans)
        detail = {"earliest": spans[0].earliest_text, "latest": spans[-1].latest_text}
        message = "target_time: the database cannot be restored to this time"
        raise BadRequestError(message, field="target_time", hint=f"there is {ranges}", detail=detail)
    return found


@asynccontextmanager
async def open_archives(plane: ControlPlane, database_url: str) -> AsyncIterator[Archives]:
    """The archives of a control plane, as long as the block."""
    target, pending = await anyio.to_thread.run_sync(place_of, plane.settings.database_backups, database_url)
    async with anyio.create_task_group() as tasks:
        archives = Archives(plane, tasks, target, pending)
        tasks.start_soon(archives.run)
        tasks.start_soon(archives.drill)
        yield archives
        tasks.cancel_scope.cancel()
