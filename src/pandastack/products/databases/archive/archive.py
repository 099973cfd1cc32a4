"""The archive of one database: what is in it, and how it grows."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import ByteStream

from pandastack.errors import UnavailableError
from pandastack.products.databases.archive import plan
from pandastack.products.databases.archive.drills import Drill, read_drill
from pandastack.products.databases.archive.plan import Base, Epoch, Retention, Window
from pandastack.products.databases.archive.replication import Identity, Replication
from pandastack.products.databases.archive.segments import Packer, Segments, compress, compressed, partial_of
from pandastack.products.databases.archive.target import Target
from pandastack.products.databases.archive.wal import SEGMENT, segment_name, segment_start
from pandastack.products.databases.wire import Session

Connect = Callable[[], AbstractAsyncContextManager[ByteStream]]
"""A connection to the Unix socket of a database's server."""

_run = anyio.to_thread.run_sync

_BATCH = 1024 * 1024
_REACH_SECONDS = 120.0
_SHARE_SECONDS = 5.0
"""How often a remote target gets the file of the log that is being written."""
_DESCRIPTION, _DRILL = "archive.json", "drill.json"


class Health(StrEnum):
    """Whether what a database writes reaches its archive."""

    ARCHIVING = "archiving"
    """It does, within a second."""
    WAITING = "waiting"
    """The database does not run, so it writes nothing; or it has just begun to."""
    BROKEN = "broken"
    """It does not; it is tried again."""


@dataclass(frozen=True, slots=True)
class Description:
    """Whose archive it is, for hosts that do not know the database. ``disk_gb``: what it may need at most."""

    id: str
    workspace: str
    label: str
    size: str
    disk_gb: int = 0


@dataclass(frozen=True, slots=True)
class Backups:
    """What there is of a database: the times that it can be restored to, its base backups, its health."""

    windows: tuple[Window, ...]
    bases: tuple[Base, ...]
    health: Health
    size: int
    as_of: float | None
    error: str | None
    drill: Drill | None = None
    durable: int = 0
    """Up to where the log is archived; 0: not known yet."""

    def lag(self, position: int) -> int | None:
        """How many bytes of the log before ``position`` are not archived; None: not known yet."""
        return max(0, position - self.durable) if self.durable else None

    @property
    def window(self) -> Window | None:
        """From the first time to the last one."""
        return Window(self.windows[0].earliest, self.windows[-1].latest) if self.windows else None


class Archive:
    """One archive. ``user`` is the superuser of the server."""

    def __init__(self, target: Target, pending: Path, database_id: str, user: str = "postgres") -> None:
        self.id = database_id
        self.user = user
        self.epochs: list[Epoch] = []
        self.health = Health.WAITING
        self.error: str | None = None
        self.durable = 0
        """Up to where the log of the last epoch is archived."""
        self.as_of: float | None = None
        """A time of the database's clock; everything that was committed before is archived."""
        self.drill: Drill | None = None
        """The last restore that was tried out."""
        self.disk_gb = 0
        """The GiB of the largest disk that the database has had."""
        self.readers = 0
        """How many restores read it: nothing is deleted meanwhile."""
        self.turn = anyio.Lock()
        """Held as a base is taken."""
        self._target = target
        self._pending = pending / database_id
        self._shared, self._shared_at = 0, -math.inf
        self._changed = anyio.Event()

    @property
    def current(self) -> Epoch | None:
        """The epoch that goes on."""
        last = self.epochs[-1] if self.epochs else None
        return last if last is not None and last.ended_at is None else None

    @property
    def size(self) -> int:
        """The bytes of it that are kept."""
        return plan.size_of(self.epochs)

    @property
    def last_drill(self) -> float | None:
        """When a restore was tried out last, or could have been for the first time; None: it cannot yet."""
        first = next((base.ended_at for epoch in self.epochs for base in epoch.bases), None)
        return first if first is None or self.drill is None else self.drill.at

    async def keep_drill(self, drill: Drill) -> None:
        """Note how a restore has ended."""
        self.drill = drill
        await _run(self._target.put_bytes, f"{self.id}/{_DRILL}", drill.to_json())

    async def load(self, *, tidy: bool = False) -> None:
        """Read what there is. ``tidy``: delete what interrupted work has left."""
        self.epochs, self.drill = await _run(self._load, tidy)

    def _load(self, tidy: bool) -> tuple[list[Epoch], Drill | None]:
        prefix = f"{self.id}/"
        sizes = {name.removeprefix(prefix): size for name, size in self._target.sizes(self.id).items()}
        documents = {}
        for name in sizes:
            if name.endswith(".json"):
                with self._target.open(prefix + name) as file:
                    documents[name] = file.read()
        epochs = plan.read_epochs(sizes, documents)
        for name in plan.find_leftovers(sizes, epochs) if tidy else ():
            self._target.delete(prefix + name)
        return epochs, read_drill(documents.get(_DRILL, b""))

    async def describe(self, description: Description) -> None:
        """Write down whose archive it is. A disk that was larger before is not forgotten."""
        self.disk_gb = max(self.disk_gb, description.disk_gb)
        told = replace(description, disk_gb=self.disk_gb)
        text = json.dumps({name: getattr(told, name) for name in Description.__slots__})
        await _run(self._target.put_bytes, f"{self.id}/{_DESCRIPTION}", text.encode())

    async def description(self) -> Description | None:
        """Whose archive it is; None: there is none."""
        found = await _run(self._description)
        self.disk_gb = max(self.disk_gb, found.disk_gb if found else 0)
        return found

    def _description(self) -> Description | None:
        try:
            with self._target.open(f"{self.id}/{_DESCRIPTION}") as file:
                return Description(**json.load(file))
        except (FileNotFoundError, TypeError, ValueError):
            return None

    async def go_on(self, identity: Identity, *, anew: bool) -> tuple[Segments, bool]:
        """Where the log goes on: in the present epoch, or, when that is impossible or ``anew``, in another one; then
        True. The server's slot has to be made anew with it."""
        epoch = self.current
        begins = (
            anew
            or epoch is None
            or (epoch.system, epoch.timeline) != (identity.system, identity.timeline)
            or identity.flushed < epoch.next_segment
        )
        if begins:
            epoch = await self._begin(identity)
        assert epoch is not None
        segments = Segments(self._pending / epoch.name, epoch.timeline)
        await _run(segments.begin, epoch.next_segment)
        await self.collect(segments)
        await _run(segments.begin, self.epochs[-1].next_segment)
        self.durable = max(self.durable if not begins else 0, segments.position)
        return segments, begins

    async def _begin(self, identity: Identity) -> Epoch:
        number = max((each.number for each in self.epochs), default=0) + 1
        if (last := self.current) is not None:
            ended = self.as_of or max((base.ended_at for base in last.bases), default=time.time())
            await self._keep(replace(last, ended_at=ended))
        self.as_of = None
        await _run(_remove_tree, self._pending / f"{number:04d}")
        epoch = Epoch(number, identity.system, identity.timeline, segment_start(identity.flushed))
        await self._keep(epoch)
        return epoch

    async def _keep(self, epoch: Epoch) -> None:
        await _run(self._target.put_bytes, f"{self.id}/{epoch.name}/epoch.json", plan.epoch_to_json(epoch))
        self._replace(epoch)

    def _replace(self, epoch: Epoch) -> None:
        others = [each for each in self.epochs if each.number != epoch.number]
        self.epochs = sorted([*others, epoch], key=lambda each: each.number)

    async def collect(self, segments: Segments) -> None:
        """Move the files that are complete to the target."""
        for path in await _run(segments.complete):
            number = self.epochs[-1].number
            size = await _run(self._store, self.epochs[-1], path)
            epoch = self._epoch(number)  # it may have another base by now
            self._replace(replace(epoch, segments={**epoch.segments, path.name: size}))

    def _epoch(self, number: int) -> Epoch:
        return next(each for each in self.epochs if each.number == number)

    def _store(self, epoch: Epoch, path: Path) -> int:
        packed = path.with_suffix(".gz")
        compress(path, packed)
        size = packed.stat().st_size
        self._target.put(f"{self.id}/{epoch.name}/wal/{path.name}.gz", packed)
        packed.unlink()
        path.unlink()
        if self._target.is_remote:
            self._target.delete(f"{self.id}/{epoch.name}/partial/{path.name}.gz")
        return size

    async def share(self, segments: Segments) -> None:
        """Have a remote target get what is written of the last file, now and then."""
        now, epoch = anyio.current_time(), self.epochs[-1]
        if not self._target.is_remote or segments.position == self._shared or now - self._shared_at < _SHARE_SECONDS:
            return
        position, self._shared_at = segments.position, now
        if position % SEGMENT:
            await _run(self._share, epoch, segment_name(epoch.timeline, position))
        self._shared = position

    def _share(self, epoch: Epoch, name: str) -> None:
        content = partial_of(self._pending / epoch.name, name)
        if content is not None:
            self._target.put_bytes(f"{self.id}/{epoch.name}/partial/{name}.gz", compressed(content))

    def advance(self, durable: int, as_of: float | None) -> None:
        """Note that the log is archived up to a position, and with it everything before a time."""
        self.durable = max(self.durable, durable)
        self.as_of = as_of or self.as_of
        self._changed.set()
        self._changed = anyio.Event()

    async def reached(self, position: int) -> None:
        """Wait until the log is archived up to there."""
        while self.durable < position:
            await self._changed.wait()

    async def take_base(self, connect: Connect) -> Base:
        """Take a base backup of the server, whose log arrives at the same time."""
        async with self.turn:
            epoch, number = self.epochs[-1], max((each.number for each in self.epochs[-1].bases), default=0) + 1
            path = self._pending / f"{epoch.name}-{number:04d}.tar.gz"
            packer = await _run(Packer, path)
            try:
                async with connect() as stream:
                    session = Replication(stream)
                    await session.begin(self.user)
                    waiting = _Batches(packer)
                    _, start, end = await session.base_backup(waiting.add)
                    await waiting.flush()
                size = await _run(packer.close)
                ended_at = await self._clock(connect)
                await self._reached_in(epoch, end)
                base = Base(number, start, end, ended_at, size)
                await _run(self._target.put, f"{self.id}/{epoch.name}/bases/{number:04d}.tar.gz", path)
                name = f"{self.id}/{epoch.name}/bases/{number:04d}.json"
                await _run(self._target.put_bytes, name, plan.base_to_json(base))
            finally:
                with anyio.CancelScope(shield=True):
                    await _run(partial(path.unlink, missing_ok=True))
            latest = self._epoch(epoch.number)
            self._replace(replace(latest, bases=(*latest.bases, base)))
            return base

    async def _reached_in(self, epoch: Epoch, position: int) -> None:
        with anyio.move_on_after(_REACH_SECONDS):
            await self.reached(position)
            if self.epochs[-1].number == epoch.number:
                return
        raise UnavailableError("the log of the database was not archived as the backup was taken")

    async def _clock(self, connect: Connect) -> float:
        async with connect() as stream:
            session = Session(stream)
            await session.start(self.user, "postgres")
            ((now,),) = await session.query("SELECT extract(epoch FROM clock_timestamp())")
            return float(now or 0)

    async def delete(self, gone: Retention) -> None:
        """Delete what no restore needs."""
        if self.readers or gone == Retention():
            return
        self.epochs = plan.without(self.epochs, gone)
        for number in gone.epochs:
            await _run(self._target.delete_all, f"{self.id}/{number:04d}")
            await _run(_remove_tree, self._pending / f"{number:04d}")
        for number, base in gone.bases:
            for kind in ("json", "tar.gz"):
                await _run(self._target.delete, f"{self.id}/{number:04d}/bases/{base:04d}.{kind}")
        for number, name in gone.segments:
            await _run(self._target.delete, f"{self.id}/{number:04d}/wal/{name}.gz")

    async def remove(self) -> None:
        """Delete all of it."""
        self.epochs = []
        await _run(self._target.delete_all, self.id)
        await _run(_remove_tree, self._pending)

    async def base_pieces(self, epoch: Epoch, base: Base) -> AsyncIterator[bytes]:
        """The file of a base, a gzip file of tar."""
        name = f"{self.id}/{epoch.name}/bases/{base.number:04d}.tar.gz"
        file = await _run(self._target.open, name)
        try:
            while piece := await _run(file.read, _BATCH):
                yield piece
        finally:
            file.close()

    async def segment(self, epoch: Epoch, name: str) -> bytes | None:
        """A file of the log, compressed; None: there is none."""
        return await _run(self._segment, epoch, name)

    def _segment(self, epoch: Epoch, name: str) -> bytes | None:
        for _ in range(2):  # it may be on its way to the target between both looks
            try:
                with self._target.open(f"{self.id}/{epoch.name}/wal/{name}.gz") as file:
                    return file.read()
            except FileNotFoundError:
                found = partial_of(self._pending / epoch.name, name)
                if found is not None:
                    return compressed(found)
        try:
            with self._target.open(f"{self.id}/{epoch.name}/partial/{name}.gz") as file:
                return file.read()
        except FileNotFoundError:
            return None


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


class _Batches:
    """Bytes on their way into a file, a batch at a time."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._pieces: list[bytes] = []
        self._size = 0

    async def add(self, piece: bytes) -> None:
        """Add bytes."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _BATCH:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        await anyio.to_thread.run_sync(self._packer.write, pieces)
