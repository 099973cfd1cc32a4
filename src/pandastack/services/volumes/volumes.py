"""The volumes of workspaces: their records, and their disks at the engines."""

from __future__ import annotations

import builtins
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

import anyio
import structlog

from pandastack.cluster import Engines
from pandastack.contract.volumes import MountRef, VolumeFrom, VolumeInfo, VolumeRef
from pandastack.errors import BadRequestError, ConflictError, NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.services.captures.storage_budget import StorageBudget
from pandastack.services.records.events import NewEvent
from pandastack.services.records.registry import Registry
from pandastack.services.records.status import LIVE
from pandastack.services.volumes.leases import Holder, Leases, by_name, in_use, lost, unknown_volume
from pandastack.services.volumes.spec import (
    DEFAULT_SIZE_MB,
    NewVolume,
    OfMount,
    checked_new,
    checked_size,
)
from pandastack.store import Store
from pandastack.store import volumes as table
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.volumes import SNAPSHOT, VolumeRecord, VolumeState

_UNDO_SECONDS = 20.0
_HIDDEN = (VolumeState.CREATING, VolumeState.DELETING)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as its owner sees it. ``size_bytes``: what it takes on the node's disk; None: the node did not say."""

    record: VolumeRecord
    holders: tuple[Holder, ...] = ()
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    """What a volume is cloned from: for the engine, its size (0: only the engine knows), its node, and the name of the
    volume that it is, by id."""

    reference: VolumeFrom
    size_mb: int
    node: str
    volumes: Mapping[str, str]


class Volumes:
    """Every look-up names a workspace; volumes of others are not found.

    A record is written before its disk and removed after it, with a state that says which of both is in progress. So
    after a crash each disk has a record, and each unfinished one is finished by :meth:`reconcile`.
    """

    def __init__(
        self, store: Store, registry: Registry, engines: Engines, leases: Leases, storage_budget: StorageBudget
    ) -> None:
        self._store = store
        self._registry = registry
        self._engines = engines
        self._leases = leases
        self._storage_budget = storage_budget
        self._busy = Counter[str]()
        """Volumes whose disks are being made, read, grown or deleted at an engine."""

    async def create(self, caller: Caller, wanted: NewVolume) -> Volume:
        """Make a volume: empty, a clone of another one, or of what a sandbox has mounted.

        Raises :class:`BadRequestError`, :class:`NotFoundError`, :class:`ConflictError` for a name that exists,
        :class:`QuotaError`, and :class:`StorageFullError`. A failure leaves nothing behind.
        """
        checked_new(wanted)
        with ExitStack() as using:
            async with self._leases.turn:
                source = await self._source(caller, wanted)
                record = _planned(caller, wanted, source, next(iter(self._engines.all())))
                using.enter_context(self._using(record.id, *(source.volumes if source else ())))
                await self._add(record)
            info = await self._make(record, source)
        if isinstance(wanted.source, OfMount) and self._registry.find(wanted.source.sandbox):
            kept = {"volume": record.name, "path": wanted.source.path}
            await self._registry.note(wanted.source.sandbox, NewEvent("volume.kept", kept))
        return Volume(replace(record, state=VolumeState.READY), size_bytes=info.size_bytes)

    async def list(self, caller: Caller) -> builtins.list[Volume]:
        """The workspace's volumes, by name."""
        async with self._store.read() as connection:
            records = await table.of_workspace(connection, caller.workspace)
        records = [each for each in records if each.state not in _HIDDEN]
        infos: dict[str, VolumeInfo] = {}
        for node in {each.node for each in records}:
            with suppress(PandastackError):  # the sizes on its disk are not known then
                infos |= {each.id: each for each in await self._engines.at(node).volumes.list()}
        holders = await self._leases.holders({each.id for each in records})
        return [await self._seen(each, holders[each.id], infos.get(each.id)) for each in records]

    async def get(self, caller: Caller, name: str) -> Volume:
        """One volume; raises :class:`NotFoundError`."""
        return await self._shown(await self._find(caller, name))

    async def by_id(self, caller: Caller, volume_id: str) -> Volume:
        """One volume by its id; raises :class:`NotFoundError`."""
        async with self._store.read() as connection:
            record = await table.by_id(connection, volume_id)
        if record is None or record.workspace != caller.workspace or record.state in _HIDDEN:
            raise unknown_volume(volume_id)
        return await self._shown(record)

    async def grow(self, caller: Caller, name: str, size_mb: int) -> Volume:
        """Make a volume larger, while a sandbox writes to it, too. The size that it has already is fine.

        Raises :class:`BadRequestError` for a smaller one, :class:`QuotaError`, :class:`StorageFullError` and
        :class:`ConflictError`.
        """
        checked_size(size_mb)
        await self.get(caller, name)  # its size may be out of date
        with ExitStack() as using:
            async with self._leases.turn:
                record = await self._find(caller, name)
                _check_growth(record, size_mb)
                self._check_free(record)
                using.enter_context(self._using(record.id))
                async with self._store.write() as connection:
                    await self._leases.check_room(connection, caller.workspace, 0, size_mb - record.size_mb)
                    await table.change(connection, record.id, size_mb=size_mb)
            info = await self._grow(record, size_mb)
        holders = (await self._leases.holders([record.id]))[record.id]
        if size_mb > record.size_mb:
            grown = NewEvent("volume.grown", {"volume": name, "size_mb": info.size_mb})
            for each in holders:
                if not each.read_only and self._registry.find(each.sandbox_id):
                    await self._registry.note(each.sandbox_id, grown)
        return Volume(replace(record, size_mb=info.size_mb), holders, info.size_bytes)

    async def delete(self, caller: Caller, name: str) -> None:
        """Delete a volume. Raises :class:`NotFoundError`, and :class:`ConflictError` while a sandbox has it."""
        with ExitStack() as using:
            async with self._leases.turn:
                async with self._store.read() as connection:
                    record = await table.get(connection, caller.workspace, name)
                if record is None or record.state is VolumeState.CREATING:
                    raise unknown_volume(name)
                self._check_free(record)
                if holders := (await self._leases.holders([record.id]))[record.id]:
                    raise in_use(name, holders, hint="delete that sandbox first")
                using.enter_context(self._using(record.id))
                await self._set(record, VolumeState.DELETING)
            await self._free(record)

    async def reconcile(self, node: str) -> None:
        """After a start of this side or of the engine: finish what was interrupted on a node, and compare the rest.

        A disk without a record is left alone: it may be what a restored older database does not know.
        """
        async with self._store.read() as connection:
            records = [each for each in await table.of_node(connection, node) if not self._busy[each.id]]
        infos = {each.id: each for each in await self._engines.at(node).volumes.list()}
        for record in records:
            if self._busy[record.id]:
                continue
            if record.state in _HIDDEN:
                with self._using(record.id):
                    await self._free(record)
            elif (info := infos.get(record.id)) is not None:
                await self._seen(record, (), info)
            elif record.state is VolumeState.READY:
                log.warning("volume.without_disk", node=node, volume_id=record.id, name=record.name)
                await self._set(record, VolumeState.LOST)
        async with self._store.read() as connection:  # again: some may have been made meanwhile
            known = {each.id for each in [*records, *await table.of_node(connection, node)]}
        for volume_id in infos.keys() - known:
            log.warning("volume.without_record", node=node, volume_id=volume_id)

    async def _add(self, record: VolumeRecord) -> None:
        async with self._store.write() as connection:
            if await table.get(connection, record.workspace, record.name) is not None:
                hint = f"GET /v1/volumes/{record.name} shows it"
                raise ConflictError(f"name: the volume {record.name} exists already", field="name", hint=hint)
            await self._leases.check_room(connection, record.workspace, 1, record.size_mb)
            await table.add(connection, record)

    async def _find(self, caller: Caller, name: str, field: str | None = None) -> VolumeRecord:
        async with self._store.read() as connection:
            record = await table.get(connection, caller.workspace, name)
        if record is None or record.state in _HIDDEN:
            raise unknown_volume(name, field)
        return record

    async def _shown(self, record: VolumeRecord) -> Volume:
        info = None
        with suppress(PandastackError):
            info = await self._engines.at(record.node).volumes.get(record.id)
        return await self._seen(record, (await self._leases.holders([record.id]))[record.id], info)

    async def _seen(self, record: VolumeRecord, holders: tuple[Holder, ...], info: VolumeInfo | None) -> Volume:
        """The volume, with what its engine says. The size of a disk is the engine's: a rewind may have changed it."""
        if info is None:
            return Volume(record, holders)
        actual = replace(record, size_mb=info.size_mb, state=VolumeState.READY)
        if actual != record and not self._busy[record.id]:
            async with self._store.write() as connection:
                if await table.by_id(connection, record.id) == record:
                    await table.change(connection, record.id, size_mb=actual.size_mb, state=actual.state)
        return Volume(actual, holders, info.size_bytes)

    async def _source(self, caller: Caller, wanted: NewVolume) -> _Source | None:
        if wanted.source is None:
            return None
        if isinstance(wanted.source, OfMount):
            sandbox = self._registry.get_usable(caller, wanted.source.sandbox)
            return await self._mounted(sandbox, wanted.source.path)
        record = await self._find(caller, wanted.source.name, "from.volume")
        if record.state is VolumeState.LOST:
            raise lost(record.name, "from.volume")
        return _Source(VolumeRef(record.id), record.size_mb, record.node, {record.id: record.name})

    async def _mounted(self, sandbox: SandboxRecord, path: str) -> _Source:
        if sandbox.status not in LIVE:
            raise await self._registry.refusal(sandbox)
        use = next((each for each in sandbox.volumes if each.path == path), None)
        if use is None:  # its template may have brought a volume along: only the engine knows that, and its size
            return _Source(MountRef(sandbox.id, path), 0, sandbox.node, {})
        async with self._store.read() as connection:
            size = (await table.clones(connection, [use]))[0].size_mb
        names = {} if use.volume is None else {use.volume: use.name or ""}
        return _Source(MountRef(sandbox.id, path), size, sandbox.node, names)

    async def _make(self, record: VolumeRecord, source: _Source | None) -> VolumeInfo:
        """Have the engine make the disk. A failure undoes the record."""
        engine, reference = self._engines.at(record.node), None if source is None else source.reference
        try:
            with anyio.CancelScope(shield=True):  # undone once it is done
                info = await self._storage_budget.retry_after_evicting(
                    record.node, lambda: engine.volumes.create(record.id, record.size_mb, reference)
                )
            await anyio.lowlevel.checkpoint_if_cancelled()
            await self._set(record, VolumeState.READY)
        except BaseException as error:
            with anyio.move_on_after(_UNDO_SECONDS, shield=True):
                try:
                    await self._free(record)
                except PandastackError as second:  # it stays `creating`, and the next comparison undoes it
                    log.error("volume.undo_failed", cause=repr(second))
            if isinstance(error, PandastackError) and source is not None:
                raise _of_source(error, source) from error
            raise
        return info

    async def _grow(self, record: VolumeRecord, size_mb: int) -> VolumeInfo:
        """Have the engine grow the disk. After a refusal the record has its former size again."""
        engine = self._engines.at(record.node)
        try:
            with anyio.CancelScope(shield=True):
                info = await self._storage_budget.retry_after_evicting(
                    record.node, lambda: engine.volumes.grow(record.id, size_mb)
                )
        except PandastackError as error:
            async with self._store.write() as connection:
                await table.change(connection, record.id, size_mb=record.size_mb)
            missing = isinstance(error, NotFoundError)
            raise lost(record.name) if missing else by_name(error, {record.id: record.name}) from error
        return info

    async def _free(self, record: VolumeRecord) -> None:
        """Delete the disk, then the record."""
        try:
            with suppress(NotFoundError):  # it was not made, or is deleted already
                await self._engines.at(record.node).volumes.delete(record.id)
        except ConflictError as error:
            if record.state is not VolumeState.CREATING:
                await self._set(record, VolumeState.READY)
            raise by_name(error, {record.id: record.name}) from error
        async with self._store.write() as connection:
            await table.remove(connection, record.id)

    async def _set(self, record: VolumeRecord, state: VolumeState) -> None:
        async with self._store.write() as connection:
            await table.change(connection, record.id, state=state)

    def _check_free(self, record: VolumeRecord) -> None:
        if self._busy[record.id]:
            raise ConflictError(f"the volume {record.name} is being changed or copied", hint="try again in a moment")

    @contextmanager
    def _using(self, *volumes: str) -> Iterator[None]:
        self._busy.update(volumes)
        try:
            yield
        finally:
            self._busy.subtract(volumes)
            self._busy = +self._busy


def _of_source(error: PandastackError, source: _Source) -> PandastackError:
    """An engine's refusal to clone, in our words."""
    if not isinstance(error, NotFoundError):
        return by_name(error, source.volumes)
    if isinstance(source.reference, MountRef) and not source.volumes:
        message = f"from.mount: sandbox {source.reference.sandbox} has no volume mounted at {source.reference.path}"
        return NotFoundError(
            message, field="from.mount", hint=f"GET /v1/sandboxes/{source.reference.sandbox} shows its volumes"
        )
    return ConflictError("from: the disk that it names is missing on its node", field="from")


def _check_growth(record: VolumeRecord, size_mb: int) -> None:
    if size_mb < record.size_mb:
        message = f"size_mb: {record.name} has {record.size_mb} MiB, and a volume does not shrink"
        raise BadRequestError(message, field="size_mb", hint="make a smaller one, and copy the files")
    if record.kind == SNAPSHOT:
        hint = "clone it with the larger size"
        raise ConflictError(f"{record.name} is a snapshot, which does not change", hint=hint)
    if record.state is VolumeState.LOST:
        raise lost(record.name)


def _planned(caller: Caller, wanted: NewVolume, source: _Source | None, node: str) -> VolumeRecord:
    size = wanted.size_mb or (source.size_mb if source else 0) or DEFAULT_SIZE_MB
    if source is not None and size < source.size_mb:
        message = f"size_mb: its source has {source.size_mb} MiB, and a copy is not smaller"
        raise BadRequestError(message, field="size_mb", hint="leave size_mb out")
    return VolumeRecord(
        id=wanted.id or str(uuid.uuid4()),
        workspace=caller.workspace,
        name=wanted.name,
        size_mb=size,
        kind=wanted.kind,
        state=VolumeState.CREATING,
        created_at=time.time(),
        node=node if source is None else source.node,
    )
