"""Volumes: disks that outlive sandboxes. One sandbox at a time writes to a volume, and any number read copies of it.

Whatever a sandbox begins from, its machine gets clones of the disks, volumes too. Once it runs, the files that it
writes become the volumes' own (:meth:`Volumes.settle`), and so does a capture that it hibernates to. A start that fails
has therefore changed no volume, and no volume is ever older or newer than the memory that has it mounted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import structlog

from pandastack.contract.volumes import (
    AttachVolume,
    CreateVolume,
    MountRef,
    OwnVolume,
    VolumeInfo,
    VolumeRef,
    are_apart,
)
from pandastack.engine import origins
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.origins.origin import Origin
from pandastack.engine.origins.volumes import LEAST_MB, MIB, VolumeStore, format_new, not_found, resize
from pandastack.engine.sandboxes.admission import Admission
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.spec import Attachment, SandboxSpec
from pandastack.errors import BadRequestError, ConflictError, NotFoundError, PandastackError, StorageFullError
from pandastack.host import files
from pandastack.host.tasks import together
from pandastack.snapshots.manifest import Snapshot, volume_name

log = structlog.get_logger(__name__)

SYNC_DEADLINE = 20.0
"""Seconds a guest gets to write its page cache to its volumes before it is ended, or before one is copied."""


ATTEMPTS = 5
"""How often a sandbox that was replaced before it could be locked is looked up again."""


class Volumes:
    """The volumes of an engine, and who has them."""

    def __init__(self, store: VolumeStore, registry: Registry, admission: Admission) -> None:
        self._store = store
        self._registry = registry
        self._admission = admission
        self._starting: list[SandboxSpec] = []
        """The sandboxes whose machines are being made."""
        self._copying: list[str] = []
        """The volumes whose files are being read, while no sandbox writes to them."""

    def list(self) -> tuple[VolumeInfo, ...]:
        found = []
        for volume in self._store.ids():
            with suppress(NotFoundError):  # deleted meanwhile
                found.append(self.get(volume))
        return tuple(found)

    def get(self, volume: str) -> VolumeInfo:
        """Raises :class:`NotFoundError`."""
        size, writer = self._store.size(volume), self._writer(volume)
        readers = sorted(each.sandbox for each in self._specs() if _reads(each, volume))
        taken = files.allocated_bytes(self._store.path(volume))
        return VolumeInfo(volume, size // MIB, taken, writer, tuple(readers))

    async def create(self, wanted: CreateVolume) -> VolumeInfo:
        """A new volume, empty or a copy. Raises :class:`StorageFullError` when the pool has no room for it."""
        size, source = wanted.size_mb * MIB, wanted.start_from
        if self._store.has(wanted.volume):
            raise ConflictError(f"volume {wanted.volume} exists already", field="volume")
        if wanted.size_mb < LEAST_MB:
            raise BadRequestError(f"size_mb: a volume has at least {LEAST_MB} MiB", field="size_mb")
        self._admission.check_volumes(wanted.size_mb)
        with anyio.CancelScope(shield=True):
            async with self._store.adding(wanted.volume) as path:
                match source:
                    case None:
                        await format_new(path, size)
                    case VolumeRef(volume):
                        await self._copy_volume(volume, path, "start_from.id", size)
                    case MountRef(sandbox, mount):
                        await self._copy_mount(sandbox, mount, path, size)
                await anyio.to_thread.run_sync(resize, path, size)
        return self.get(wanted.volume)

    async def delete(self, volume: str) -> None:
        """Raises :class:`ConflictError` with the holder when a sandbox has it."""
        found = self.get(volume)
        holder = found.writer or next(iter(found.readers), None)
        if holder is not None:
            raise _held(volume, holder, "id", "delete the sandbox first")
        if volume in self._copying:
            raise ConflictError(f"volume {volume} is being copied", field="id", hint="try again in a moment")
        self._store.remove(volume)

    async def grow(self, volume: str, size_mb: int) -> VolumeInfo:
        """Give the volume ``size_mb`` MiB. The guest of a sandbox that writes to it sees its file system grow.

        Repeating it completes a growth that the guest did not complete.
        """
        size, found = size_mb * MIB, self.get(volume)
        if size < self._store.size(volume):
            raise _smaller(found.size_mb)
        self._admission.check_volumes(size_mb - found.size_mb)
        with anyio.CancelScope(shield=True):
            if found.writer is None:
                await anyio.to_thread.run_sync(self._store.grow, volume, size)
            else:
                await self._grow_attached(volume, found.writer, size)
        return self.get(volume)

    async def _grow_attached(self, volume: str, holder: str, size: int) -> None:
        sandbox = self._registry.find(holder)
        if not isinstance(sandbox, Sandbox):
            raise _held(volume, holder, "id", "it is hibernated or starts: wake it, or try again in a moment")
        async with sandbox.lock:
            if self._registry.reach(holder) is not sandbox:
                raise _held(volume, holder, "id", "it has just been replaced: try again")
            place = next(place for place, each in sandbox.spec.written.items() if each == volume)
            await self._grow_disk(sandbox, place, size)

    async def grow_own(self, sandbox_id: str, path: str, size_mb: int) -> OwnVolume:
        """:meth:`grow` for a volume without an id: what a running sandbox has mounted at ``path`` by its template, its
        source or its snapshot. Raises :class:`NotFoundError`, and :class:`ConflictError` unless it runs."""
        sandbox = self._registry.reach(sandbox_id)
        with anyio.CancelScope(shield=True):
            async with sandbox.lock:
                if self._registry.reach(sandbox_id) is not sandbox:
                    raise ConflictError(f"sandbox {sandbox_id} has just been replaced", hint="try again")
                place = _own_place(sandbox, path)
                has_mb = sandbox.origin.snapshot.disks[1 + place].path.stat().st_size // MIB
                if size_mb < has_mb:
                    raise _smaller(has_mb)
                self._admission.check_volumes(size_mb - has_mb)
                await self._grow_disk(sandbox, place, size_mb * MIB)
        return OwnVolume(path, size_mb)

    async def _grow_disk(self, sandbox: Sandbox, place: int, size: int) -> None:
        """Grow the file of a running sandbox's volume, then what its machine has, then the file system in its guest.
        The sandbox is locked."""
        volume = sandbox.spec.written.get(place)
        if volume is None:
            await anyio.to_thread.run_sync(resize, sandbox.origin.snapshot.disks[1 + place].path, size)
        else:
            await anyio.to_thread.run_sync(self._store.grow, volume, size)
        await sandbox.machine.resize_disk(volume_name(place), size)
        await sandbox.channel.grow_volume(place, size)

    @asynccontextmanager
    async def attaching(
        self, origin: Origin, wanted: Sequence[AttachVolume]
    ) -> AsyncIterator[tuple[Origin, tuple[Attachment, ...]]]:
        """A template's ``origin`` with volumes in its first blank places, and which they are, for a sandbox that begins
        inside the block. What is wanted where the template mounts a volume of its own is a new one: the clone of that.

        Raises errors that name the field, before anything is done: :class:`NotFoundError`, :class:`ConflictError` with
        the holder when another sandbox writes to a volume, :class:`BadRequestError` when there are not enough places.
        """
        attachments = _places(origin, wanted)
        mounts = len(origin.snapshot.manifest.mounts)
        others = [(index, each) for index, each in enumerate(attachments) if each.place >= mounts]
        for index, each in enumerate(attachments):
            if each.place < mounts:
                self._check_new(origin, each, f"volumes[{index}]")
            else:
                self._check(each.volume, "", f"volumes[{index}].volume", writes=not each.read_only)
        async with AsyncExitStack() as stack:
            contents = []
            for index, each in others:
                path = self._store.path(each.volume)
                if each.read_only:
                    path = await stack.enter_async_context(self._store.scratch())
                    await self._copy_volume(each.volume, path, f"volumes[{index}].volume")
                contents.append(path)
            used = [each for _, each in others]
            yield origins.attach(origin, used, contents) if used else origin, attachments

    def _check_new(self, origin: Origin, wanted: Attachment, field: str) -> None:
        if wanted.read_only:
            raise BadRequestError(f"{field}.read_only: the template's own volume is written to", field=field)
        if self._store.has(wanted.volume):
            raise ConflictError(
                f"template {origin.name} has a volume of its own at {wanted.path}",
                field=f"{field}.path",
                hint="mount this one elsewhere, or name a new volume",
            )
        disk = origin.snapshot.disks[1 + wanted.place]
        self._admission.check_volumes(disk.path.stat().st_size // MIB)

    @contextmanager
    def reserved(self, spec: SandboxSpec, *, new: Collection[int] = ()) -> Iterator[None]:
        """Nobody else gets the volumes of ``spec`` inside the block. Those in the places ``new`` need not be there yet.
        Raises as :meth:`attaching`."""
        for index, each in enumerate(spec.volumes):
            if not each.read_only and not (each.place in new and self._writer(each.volume) is None):
                self._check(each.volume, spec.sandbox, f"volumes[{index}].volume", writes=True)
        self._starting.append(spec)
        try:
            yield
        finally:
            self._starting.remove(spec)

    async def settle(self, spec: SandboxSpec, disks: Snapshot) -> None:
        """Make those of ``disks`` that are volumes of the sandbox the files of the volumes."""
        for place, volume in spec.written.items():
            await self._store.settle(volume, disks.disks[1 + place].path)

    async def settle_again(self, sandbox: Sandbox | Hibernated) -> None:
        """:meth:`settle` before the disks go, as a full pool may have prevented it in a recovery. Raises
        :class:`StorageFullError`, and nothing when the machine has just ended."""
        try:
            await self.settle(sandbox.spec, sandbox.origin.snapshot)
        except StorageFullError:
            raise
        except PandastackError as error:
            log.warning("volumes.not_settled", sandbox_id=sandbox.id, reason=str(error))

    async def flush(self, sandbox: Sandbox) -> None:
        """Have a sandbox that is about to end write what its volumes have not got yet. A guest that does not answer
        loses it, as a machine does whose power is cut."""
        if not sandbox.spec.written or sandbox.failure:
            return
        await self.settle_again(sandbox)
        with anyio.move_on_after(SYNC_DEADLINE), suppress(PandastackError):
            async with sandbox.lock:
                await sandbox.machine.resume()  # a paused one: its programs stay frozen
                await sandbox.channel.sync(timeout_s=SYNC_DEADLINE)

    async def flush_all(self) -> None:
        """:meth:`flush` for every sandbox, as their machines are about to end with the engine."""
        live = [each for each in self._registry.list() if isinstance(each, Sandbox)]
        with anyio.CancelScope(shield=True):
            await together(*(partial(self.flush, each) for each in live))

    def _check(self, volume: str, sandbox: str, field: str, *, writes: bool) -> None:
        if not self._store.has(volume):
            raise not_found(volume, field)
        holder = self._writer(volume) if writes else None
        if holder not in (None, sandbox):
            raise _held(volume, holder, field, "delete that sandbox, or attach the volume read-only")
        if writes and volume in self._copying:
            raise ConflictError(f"volume {volume} is being copied", field=field, hint="try again in a moment")

    def _specs(self) -> Iterator[SandboxSpec]:
        """Those of the sandboxes that have their volumes. One that has failed has lost them."""
        yield from self._starting
        for each in self._registry.list():
            if isinstance(each, Hibernated) or not each.failure:
                yield each.spec

    def _writer(self, volume: str) -> str | None:
        return next((each.sandbox for each in self._specs() if volume in each.written.values()), None)

    async def _copy_volume(self, volume: str, target: Path, field: str, most: int | None = None) -> None:
        """Make ``target`` a copy of the volume, which is consistent also while a sandbox writes to it."""
        if not self._store.has(volume):
            raise not_found(volume, field)
        holder = self._writer(volume)
        if holder is not None and self._registry.find(holder) is None:
            raise _held(volume, holder, field, "that is being created: try again in a moment")
        if holder is not None:
            async with self._still(holder):
                await self._clone(self._store.path(volume), target, most)
            return
        self._copying.append(volume)
        try:
            await self._clone(self._store.path(volume), target, most)
        finally:
            self._copying.remove(volume)

    async def _copy_mount(self, sandbox_id: str, mount: str, target: Path, most: int) -> None:
        async with self._still(sandbox_id) as sandbox:
            snapshot = sandbox.origin.snapshot
            if mount not in snapshot.manifest.mounts:
                raise NotFoundError(f"sandbox {sandbox_id} has no volume at {mount}", field="start_from.path")
            disk = snapshot.disks[1 + snapshot.manifest.mounts.index(mount)]
            await self._clone(disk.path, target, most)

    async def _clone(self, source: Path, target: Path, most: int | None) -> None:
        has = source.stat().st_size
        if most is not None and has > most:
            raise BadRequestError(
                f"size_mb: the source has {has // MIB} MiB", field="size_mb", hint="a copy is as large, or larger"
            )
        await anyio.to_thread.run_sync(partial(files.clone, source, target))

    @asynccontextmanager
    async def _still(self, sandbox_id: str) -> AsyncIterator[Sandbox | Hibernated]:
        """Inside the block nothing writes to the disks of the sandbox, which have what its guest has written before."""
        for _ in range(ATTEMPTS):
            sandbox = self._registry.get(sandbox_id)
            async with sandbox.lock:
                if self._registry.find(sandbox_id) is not sandbox:  # it was woken, hibernated or rewound meanwhile
                    continue
                async with _paused(sandbox):
                    yield sandbox
                return
        raise ConflictError(f"sandbox {sandbox_id} is busy", hint="try again in a moment")


@asynccontextmanager
async def _paused(sandbox: Sandbox | Hibernated) -> AsyncIterator[None]:
    """Inside the block the sandbox, which is locked, does not run. A guest that does not answer is paused all the same:
    its file system has a journal."""
    if isinstance(sandbox, Hibernated) or sandbox.paused or sandbox.failure:
        yield
        return
    with suppress(PandastackError):
        await sandbox.channel.sync(timeout_s=SYNC_DEADLINE)
    await sandbox.machine.pause()
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await sandbox.machine.resume()


def _places(origin: Origin, wanted: Sequence[AttachVolume]) -> tuple[Attachment, ...]:
    """The places of what is wanted: after the template's own volumes in the order of the request, or those of them."""
    manifest, attachments = origin.snapshot.manifest, []
    blank = len(manifest.mounts)
    for index, each in enumerate(wanted):
        own = each.path in manifest.mounts
        if not own and not are_apart([each.path, *manifest.mounts]):
            message = f"volumes[{index}].path: template {origin.name} mounts a volume above or below {each.path}"
            raise BadRequestError(message, field=f"volumes[{index}].path")
        place = manifest.mounts.index(each.path) if own else blank
        blank += not own
        attachments.append(Attachment(each.volume, each.path, place, each.read_only))
    if blank > manifest.volumes:
        raise BadRequestError(
            f"volumes: a sandbox of template {origin.name} has places for {manifest.volumes - len(manifest.mounts)}",
            field="volumes",
            hint="`disks` in template.toml says how many",
        )
    return tuple(attachments)


def _own_place(sandbox: Sandbox, path: str) -> int:
    """The place of a volume without an id."""
    mounts = sandbox.origin.snapshot.manifest.mounts
    if path not in mounts:
        raise NotFoundError(f"sandbox {sandbox.id} has no volume at {path}", field="path")
    place = mounts.index(path)
    if any(each.place == place for each in sandbox.spec.volumes):
        raise ConflictError(f"the volume at {path} has an id", field="path", hint="grow it by its id")
    return place


def _smaller(size_mb: int) -> BadRequestError:
    message = f"size_mb: the volume has {size_mb} MiB"
    return BadRequestError(message, field="size_mb", hint="a volume never shrinks")


def _reads(spec: SandboxSpec, volume: str) -> bool:
    return any(each.volume == volume and each.read_only for each in spec.volumes)


def _held(volume: str, holder: str | None, field: str, hint: str) -> ConflictError:
    message = f"volume {volume} is attached to sandbox {holder}"
    return ConflictError(message, field=field, hint=hint, detail={"holder": holder})
