"""Capturing a machine: the one way from a running machine to an origin that can be restored.

The guest is frozen only while its devices, its disks and the pages it has written are read; they are written to the
disk afterwards. Pages that a machine has not written are those of the memory image it was restored from, so that image
is linked, not copied.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import anyio

from pandastack.contract.sandboxes import Captured
from pandastack.engine import origins
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.errors import GuestError
from pandastack.host import files, pagemap
from pandastack.snapshots import pages as memory_pages
from pandastack.snapshots.manifest import Snapshot, stamp

QUIESCE_DEADLINE = 3.0
"""Seconds a guest gets to reach a frame boundary. A guest that does not answer is captured anyway."""

SYNC_DEADLINE = 20.0
"""Seconds a guest gets to write its page cache to its disks. What takes longer is in the memory, and is captured so."""

HELD_BYTES = 64 * 1024 * 1024
"""Up to this many bytes of written pages are held in memory until the guest runs again, and stored beside the memory
image that they differ from. More would slow down every restore, so they make a memory image of their own."""


async def capture(sandbox: Sandbox, directory: Path, *, end: bool = False, sync: bool = True) -> Captured:
    """Put the machine's state into ``directory`` (new and empty) as an origin.

    With ``sync`` its disks have what was written before, so that they can be booted should the memory not be restorable
    one day; a copy that lives as long as this engine does not need that.

    Afterwards the guest runs as before; with ``end`` it stays frozen, because its machine is about to be ended. On
    failure it runs as before in any case. Raises :class:`StorageFullError` when the disk is full,
    :class:`ConflictError` when the memory image that the machine shares has been modified.
    """
    former = sandbox.origin.snapshot
    former.check_memory()
    taken = Snapshot(directory, former.manifest)
    if sync and not sandbox.paused:
        await _sync(sandbox)
    # Write back what the host still caches, so that the next clone is quick.
    await anyio.to_thread.run_sync(_clone_disks, former, taken)
    async with _frozen(sandbox, end=end) as frozen:
        await sandbox.machine.save_devices(taken.devices)
        pages = await anyio.to_thread.run_sync(_take, sandbox.machine.pid, former, taken)
        if end:
            await anyio.to_thread.run_sync(_complete, sandbox, taken, pages, frozen.at_frame_boundary)
    if not end:
        await anyio.to_thread.run_sync(_complete, sandbox, taken, pages, frozen.at_frame_boundary)
    size = pages.bytes + taken.devices.stat().st_size + sum(files.allocated_bytes(disk.path) for disk in taken.disks)
    return Captured(size, pages.bytes, frozen.pause_ms)


async def _sync(sandbox: Sandbox) -> None:
    try:
        await sandbox.channel.sync(timeout_s=SYNC_DEADLINE)
    except GuestError:
        sandbox.channel.check()


@dataclass
class _Frozen:
    at_frame_boundary: bool
    """Whether the guest's end of the channel is at a frame boundary."""
    pause_ms: float = 0.0


@asynccontextmanager
async def _frozen(sandbox: Sandbox, *, end: bool) -> AsyncIterator[_Frozen]:
    """Freeze and pause the guest inside the block; if its owner had paused it, it stays paused afterwards."""
    if sandbox.paused:
        yield _Frozen(at_frame_boundary=False)
        return
    async with AsyncExitStack() as stack:
        frozen = _Frozen(await _quiesce(sandbox, stack))
        clock = Stopwatch()
        await sandbox.machine.pause()
        finished = False
        try:
            yield frozen
            finished = True
        finally:
            if not (end and finished):
                with anyio.CancelScope(shield=True):
                    await sandbox.machine.resume()
            frozen.pause_ms = clock.elapsed()


async def _quiesce(sandbox: Sandbox, stack: AsyncExitStack) -> bool:
    try:
        await stack.enter_async_context(sandbox.channel.quiesced(timeout_s=QUIESCE_DEADLINE, freeze=True))
    except GuestError:
        sandbox.channel.check()  # a closed channel is an error, a slow guest is not
        return False
    return True


@dataclass(frozen=True)
class _Pages:
    """The written pages as pairs of offset and content; ``None`` when they already make an image of their own."""

    held: list[tuple[int, bytes]] | None
    bytes: int


def _clone_disks(former: Snapshot, taken: Snapshot) -> None:
    for disk, copy in zip(former.disks, taken.disks, strict=True):
        files.clone(disk.path, copy.path)


def _take(pid: int, former: Snapshot, taken: Snapshot) -> _Pages:
    """Take the disks and written pages of the paused machine whose process is ``pid``."""
    _clone_disks(former, taken)
    extents = pagemap.own_pages(pid, former.memory)
    dirty = sum(each.length for each in extents)
    if dirty <= HELD_BYTES:
        return _Pages(list(pagemap.read_pages(pid, extents)), dirty)
    files.clone(former.memory, taken.memory)
    files.write_sparingly(taken.memory)
    with taken.memory.open("r+b", buffering=0) as file:
        for offset, data in pagemap.read_pages(pid, extents):
            _write_at(file.fileno(), taken.memory, offset, data)
    return _Pages(None, dirty)


def _complete(sandbox: Sandbox, taken: Snapshot, pages: _Pages, at_frame_boundary: bool) -> None:
    former = sandbox.origin
    if pages.held is not None:
        origins.link(former.snapshot.memory, taken.memory)
        _write_pages(taken.pages, pages.held)
    manifest = replace(
        taken.manifest,
        key=_key(taken, former.key, pages.held or []),
        parent=former.key,
        at_frame_boundary=at_frame_boundary,
        memory_stamp=stamp(taken.memory),
        disk_stamps=tuple(stamp(disk.path) for disk in taken.disks),
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    described = Snapshot(taken.directory, manifest)
    origins.describe(taken.directory, former, described)


def _write_pages(path: Path, held: list[tuple[int, bytes]]) -> None:
    try:
        memory_pages.write(path, [(offset, len(data)) for offset, data in held], (data for _, data in held))
    except OSError as error:
        raise files.map_error(error, path) from error


def _write_at(fd: int, path: Path, offset: int, data: bytes) -> None:
    try:
        while data:
            written = os.pwrite(fd, data, offset)
            offset, data = offset + written, data[written:]
    except OSError as error:
        raise files.map_error(error, path) from error


def _key(taken: Snapshot, parent: str, pages: list[tuple[int, bytes]]) -> str:
    """The content key: parent, devices, dirty pages. Disks are not hashed: each change of them dirties pages."""
    digest = hashlib.sha256(parent.encode() + taken.devices.read_bytes())
    for offset, data in pages:
        digest.update(offset.to_bytes(8, "little") + data)
    return digest.hexdigest()
