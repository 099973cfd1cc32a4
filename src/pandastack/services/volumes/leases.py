"""Which sandboxes have which volumes: one may write to a volume, any number read a copy of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.contract.volumes import OwnVolume
from pandastack.errors import BadRequestError, ConflictError, NotFoundError, PandastackError, QuotaError
from pandastack.model.caller import Caller
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.records.registry import Registry
from pandastack.services.records.spec import NewSandbox
from pandastack.services.settings import Settings
from pandastack.services.volumes.spec import checked_mounts
from pandastack.store import Store
from pandastack.store import volumes as table
from pandastack.store.sandboxes import SandboxRecord, Status
from pandastack.store.snapshots import SnapshotRecord
from pandastack.store.volumes import SNAPSHOT, VolumeRecord, VolumeState, VolumeUse

_NOTHING: tuple[VolumeUse, ...] = ()
_PLACE = re.compile(r"volumes\[(\d+)\](\.\w+)?")
_FIELDS = {"start_from.id": "from.volume", "start_from.path": "from.mount", "id": None}
"""An engine's names of fields, and ours."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A sandbox that has a volume, with the path that it is mounted at."""

    sandbox_id: str
    path: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Reserved:
    """What a new sandbox is made of: a snapshot, or None, its volumes, and the node that has them (None: any)."""

    snapshot: SnapshotRecord | None = None
    volumes: tuple[VolumeUse, ...] = ()
    node: str | None = None


class Leases:
    """A lease is part of its sandbox's record: it begins and ends with the record. So a hibernated sandbox has it, too.

    A failed sandbox has it as long as a checkpoint can restore the sandbox.
    """

    def __init__(self, store: Store, registry: Registry, snapshots: Snapshots, settings: Settings) -> None:
        self._store = store
        self._registry = registry
        self._snapshots = snapshots
        self._settings = settings
        self.turn = anyio.Lock()
        """Held from a decision about leases, names and quotas until it is in the store."""

    @asynccontextmanager
    async def reserved(self, caller: Caller, wanted: NewSandbox) -> AsyncIterator[Reserved]:
        """A block that writes the record of a new sandbox: with the volumes that it asks for, or clones of those that
        its snapshot has.

        Raises :class:`BadRequestError` with the field, :class:`NotFoundError` for a snapshot, :class:`ConflictError`
        with the sandbox that writes to a volume, and :class:`QuotaError` for clones.
        """
        uses = checked_mounts(wanted.volumes)
        snapshot = None if wanted.snapshot is None else await self._snapshots.to_restore(caller, wanted.snapshot)
        if not uses and not (snapshot and snapshot.volumes):
            yield Reserved(snapshot)
            return
        async with self.turn:
            if snapshot is not None:
                await self._check_clones(caller.workspace, snapshot.volumes)
                yield Reserved(snapshot, snapshot.volumes)
                return
            async with self._store.read() as connection:
                known = {each.name: each for each in await table.of_workspace(connection, caller.workspace)}
            records = [_usable(known.get(use.name or ""), place, use) for place, use in enumerate(uses)]
            node = _one_node(records)
            holders = await self.holders({each.id for each in records})
            for place, (use, record) in enumerate(zip(uses, records, strict=True)):
                _check_writer(record, use, place, holders[record.id])
            leased = tuple(replace(use, volume=each.id) for use, each in zip(uses, records, strict=True))
            yield Reserved(None, leased, node)

    @asynccontextmanager
    async def cloned(self, parent: SandboxRecord, count: int) -> AsyncIterator[tuple[VolumeUse, ...]]:
        """A block that writes the records of ``count`` copies of a sandbox; yields the disks of each.

        Raises :class:`QuotaError`.
        """
        if not parent.volumes:
            yield _NOTHING
            return
        async with self.turn:
            async with self._store.read() as connection:
                clones = await table.clones(connection, parent.volumes)
            await self._check_clones(parent.workspace, clones * count)
            yield clones

    @asynccontextmanager
    async def brought(self, record: SandboxRecord, own: Sequence[OwnVolume]) -> AsyncIterator[tuple[VolumeUse, ...]]:
        """A block that writes which volumes a new sandbox has by its template, once its engine has said so; yields
        these. They count as other clones.

        Raises :class:`QuotaError`.
        """
        if record.from_snapshot is not None or not own:
            yield _NOTHING
            return
        clones = tuple(VolumeUse(each.path, size_mb=each.size_mb) for each in own)
        async with self.turn:
            await self._check_clones(record.workspace, clones)
            yield clones

    @asynccontextmanager
    async def growing(self, record: SandboxRecord, path: str, size_mb: int) -> AsyncIterator[tuple[VolumeUse, ...]]:
        """A block that writes that a volume of a sandbox's own is larger; yields all its volumes as they are then.

        Raises :class:`BadRequestError` for a smaller size, :class:`ConflictError` for a volume with a name, and
        :class:`QuotaError`.
        """
        use = next((each for each in record.volumes if each.path == path), VolumeUse(path))
        if use.volume is not None or use.read_only:
            hint = "POST /v1/volumes/{name}/grow grows one with a name"
            raise ConflictError(f"the volume at {path} is not the sandbox's own", hint=hint)
        if size_mb < use.size_mb:
            message = f"size_mb: it has {use.size_mb} MiB, and a volume does not shrink"
            raise BadRequestError(message, field="size_mb")
        async with self.turn:
            async with self._store.read() as connection:
                await self.check_room(connection, record.workspace, 0, size_mb - use.size_mb)
            others = tuple(each for each in record.volumes if each.path != path)
            yield (replace(use, size_mb=size_mb), *others)

    async def holders(self, volumes: Collection[str]) -> dict[str, tuple[Holder, ...]]:
        """The sandboxes that have each of these volumes."""
        found: dict[str, list[Holder]] = {each: [] for each in volumes}
        for record in self._registry.all():
            mine = [use for use in record.volumes if use.volume in found]
            if mine and await self._holds(record):
                for use in mine:
                    found[use.volume or ""].append(Holder(record.id, use.path, use.read_only))
        return {volume_id: tuple(holders) for volume_id, holders in found.items()}

    async def check_room(self, connection: AsyncConnection, workspace: str, count: int, size_mb: int) -> None:
        """Raise :class:`QuotaError` unless the workspace may have so many more volumes and MiB."""
        volumes, used = await table.total(connection, workspace)
        most, most_mb = self._settings.max_volumes, self._settings.max_volume_mb
        if count and volumes + count > most:
            raise QuotaError(f"a workspace has at most {most} volumes", hint="DELETE /v1/volumes/{name} deletes one")
        used += sum(_own_mb(each.volumes) for each in self._registry.all() if each.workspace == workspace)
        if used + size_mb > most_mb:
            message = f"the volumes of a workspace have at most {most_mb} MiB together, of which {used} are used"
            hint = "delete a volume, or a sandbox that has clones of some"
            raise QuotaError(message, hint=hint, detail={"used_mb": used, "wanted_mb": size_mb, "max_mb": most_mb})

    async def _check_clones(self, workspace: str, clones: Iterable[VolumeUse]) -> None:
        async with self._store.read() as connection:
            await self.check_room(connection, workspace, 0, _own_mb(clones))

    async def _holds(self, record: SandboxRecord) -> bool:
        return record.status != Status.FAILED or await self._snapshots.last_checkpoint(record.id) is not None


def in_use(name: str, holders: Sequence[Holder], field: str | None = None, hint: str | None = None) -> ConflictError:
    """The error for a volume that ``holders`` have."""
    ids = [each.sandbox_id for each in holders]
    more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    message = f"{field}: " if field else ""
    message += f"the volume {name} is attached to sandbox {ids[0]}{more}"
    return ConflictError(message, field=field, hint=hint, detail={"sandbox_ids": ids[:16]})


def lost(name: str, field: str | None = None) -> ConflictError:
    """The error for a volume whose disk is gone."""
    message = (f"{field}: " if field else "") + f"the disk of the volume {name} is missing on its node"
    return ConflictError(message, field=field, hint=f"restore it there, or delete it: DELETE /v1/volumes/{name}")


def unknown_volume(name: str, field: str | None = None) -> NotFoundError:
    """The error for an unknown name, or one of another workspace."""
    message = f"{field}: unknown volume {name[:64]!r}" if field else f"volume not found: {name[:64]}"
    return NotFoundError(message, field=field, hint="GET /v1/volumes lists the volumes")


def by_name(error: PandastackError, names: Mapping[str, str]) -> PandastackError:
    """An engine's refusal with names of volumes (id → name) and our fields in it. Other errors come back unchanged."""
    if not isinstance(error, BadRequestError | NotFoundError):
        return error
    message, field = error.message, error.field or ""
    for volume_id, name in names.items():
        message = message.replace(volume_id, name)
    if place := _PLACE.fullmatch(field):
        field = f"volumes.{place[1]}.{'name' if place[2] == '.volume' else 'path'}"
        message = f"{field}: {message}"
    shown = _FIELDS.get(field, field or None)
    return type(error)(message, hint=error.hint, field=shown, detail=error.detail)


def _usable(record: VolumeRecord | None, place: int, use: VolumeUse) -> VolumeRecord:
    field, name = f"volumes.{place}.name", use.name or ""
    if record is None or record.state in (VolumeState.CREATING, VolumeState.DELETING):
        hint = "GET /v1/volumes lists the volumes"  # as for an unknown template, this is no 404
        raise BadRequestError(f"{field}: unknown volume {name!r}", field=field, hint=hint)
    if record.state is VolumeState.LOST:
        raise lost(name, field)
    if record.kind == SNAPSHOT and not use.read_only:
        hint = f'attach it with "read_only": true, or clone it: POST /v1/volumes {{"from": {{"volume": "{name}"}}}}'
        field = f"volumes.{place}.read_only"
        raise BadRequestError(f"{field}: {name} is a snapshot, which is only read", field=field, hint=hint)
    return record


def _one_node(records: Sequence[VolumeRecord]) -> str:
    first = records[0]
    other = next((each for each in records if each.node != first.node), None)
    if other is not None:
        message = f"volumes: {first.name} is on node {first.node}, {other.name} on {other.node}"
        raise BadRequestError(message, field="volumes", hint="a sandbox has volumes of one node")
    return first.node


def _check_writer(record: VolumeRecord, use: VolumeUse, place: int, holders: Sequence[Holder]) -> None:
    writers = [each for each in holders if not each.read_only]
    if writers and not use.read_only:
        hint = "attach it with read_only, clone it, or delete that sandbox"
        raise in_use(record.name, writers, f"volumes.{place}.name", hint)


def _own_mb(uses: Iterable[VolumeUse]) -> int:
    """The MiB of clones that belong to a sandbox; copies that it only reads are not counted."""
    return sum(each.size_mb for each in uses if each.volume is None and not each.read_only)
