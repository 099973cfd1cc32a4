"""Volumes of real machines, through the engine itself."""

from __future__ import annotations

import errno
import os
import signal
import uuid
from pathlib import Path

import anyio
import pytest

from pandastack.contract.volumes import AttachVolume, CreateVolume, MountRef, VolumeRef
from pandastack.engine.engine import Engine
from pandastack.engine.machines.sandbox import Hibernated, Sandbox
from pandastack.engine.origins.volumes import MIB, VolumeStore
from pandastack.errors import BadRequestError, ConflictError, NotFoundError, StorageFullError
from pandastack.host import files
from tests.support.installation import Installation, eventually
from tests.support.machines import opened, run, spec

pytestmark = pytest.mark.anyio

DATA = "/mnt/data"


def new_id() -> str:
    return str(uuid.uuid4())


async def new_volume(engine: Engine, size_mb: int = 64) -> str:
    return (await engine.volumes.create(CreateVolume(new_id(), size_mb))).id


async def with_volumes(engine: Engine, *volumes: AttachVolume) -> Sandbox:
    return await engine.sandboxes.create(spec(), "base", volumes=volumes)


async def writer(engine: Engine, volume: str, path: str = DATA) -> Sandbox:
    return await with_volumes(engine, AttachVolume(volume, path))


async def content(engine: Engine, volume: str, name: str = "file") -> str:
    """What a file in the volume has, seen by a sandbox that has nothing else of it."""
    reader = await with_volumes(engine, AttachVolume(volume, DATA, read_only=True))
    try:
        return await run(reader, f"cat {DATA}/{name} 2>/dev/null || echo none")
    finally:
        await engine.sandboxes.delete(reader.id)


async def test_a_volume_outlives_the_sandboxes_that_write_to_it(engine: Engine) -> None:
    volume = await new_volume(engine)
    assert engine.volumes.get(volume).size_bytes < 4 * MIB
    first = await writer(engine, volume)
    assert await run(first, f"findmnt -no SOURCE,FSTYPE {DATA}") == "/dev/vdb ext4"
    assert await run(first, f"ls -A {DATA}") == "lost+found"
    await run(first, f"echo first > {DATA}/file")
    assert engine.volumes.get(volume).writer == first.id
    with pytest.raises(ConflictError, match="is attached to sandbox") as held:
        await engine.volumes.delete(volume)
    assert held.value.detail == {"holder": first.id}
    await engine.sandboxes.delete(first.id)
    assert engine.volumes.get(volume).writer is None
    second = await writer(engine, volume, "/srv/deep/er")
    assert await run(second, "cat /srv/deep/er/file") == "first"
    await run(second, "echo second >> /srv/deep/er/file")
    await engine.lifecycle.pause(second.id)
    await engine.sandboxes.delete(second.id)
    assert await content(engine, volume) == "first\nsecond"
    await engine.volumes.delete(volume)
    assert engine.volumes.list() == ()
    with pytest.raises(NotFoundError) as missing:
        await writer(engine, volume)
    assert missing.value.field == "volumes[0].volume"


async def test_volumes_have_their_devices_in_the_order_of_the_request(engine: Engine) -> None:
    volumes = [await new_volume(engine, 32 * (n + 1)) for n in range(3)]
    for order in (volumes, volumes[::-1]):
        sandbox = await with_volumes(engine, *(AttachVolume(each, f"/mnt/{each[:8]}") for each in order))
        for letter, each in zip("bcd", order, strict=True):
            assert await run(sandbox, f"findmnt -no SOURCE /mnt/{each[:8]}") == f"/dev/vd{letter}"
            size = int(await run(sandbox, f"blockdev --getsize64 /dev/vd{letter}"))
            assert size == engine.volumes.get(each).size_mb * MIB
        await engine.sandboxes.delete(sandbox.id)
    with pytest.raises(BadRequestError, match="has places for 4") as many:
        await with_volumes(engine, *(AttachVolume(new_id(), f"/mnt/{n}") for n in range(5)))
    assert many.value.field == "volumes"


async def test_a_reader_sees_the_volume_as_it_was_and_cannot_write(engine: Engine) -> None:
    volume = await new_volume(engine)
    writing = await writer(engine, volume)
    await run(writing, f"echo then > {DATA}/file")  # not synced: the attach of a reader has the guest do that
    reading = await with_volumes(engine, AttachVolume(volume, DATA, read_only=True))
    await run(writing, f"echo later > {DATA}/file; sync")
    assert await run(reading, f"cat {DATA}/file") == "then"
    assert "Read-only" in await run(reading, f"echo x > {DATA}/file 2>&1 || true")
    # Root may make the mount writable: it is a copy all the same.
    await run(reading, f"mount -o remount,rw {DATA} && echo mine > {DATA}/file && sync")
    assert await run(writing, f"cat {DATA}/file") == "later"
    found = engine.volumes.get(volume)
    assert (found.writer, found.readers) == (writing.id, (reading.id,))
    with pytest.raises(ConflictError) as second:
        await writer(engine, volume)
    assert second.value.detail == {"holder": writing.id} and second.value.field == "volumes[0].volume"
    await engine.sandboxes.delete(writing.id)
    with pytest.raises(ConflictError) as read:
        await engine.volumes.delete(volume)
    assert read.value.detail == {"holder": reading.id}
    await engine.sandboxes.delete(reading.id)
    assert await content(engine, volume) == "later"


async def test_copies_of_a_sandbox_have_copies_of_its_volumes(engine: Engine) -> None:
    volume, saved = await new_volume(engine), new_id()
    parent = await writer(engine, volume)
    await run(parent, f"echo shared > {DATA}/file")
    child = (await engine.copies.fork(parent.id, [spec()])).children[0].made
    await engine.copies.snapshot(parent.id, saved)
    assert isinstance(child, Sandbox), child
    restored = await engine.sandboxes.create_from(spec(), saved)
    for each in (parent, child, restored):
        await run(each, f"echo {each.id} >> {DATA}/file; sync; echo 3 > /proc/sys/vm/drop_caches")
    for each in (parent, child, restored):
        assert await run(each, f"cat {DATA}/file") == f"shared\n{each.id}"
    assert engine.volumes.get(volume).writer == parent.id
    for each in (child, restored):  # their own copies come along when they sleep
        await engine.lifecycle.hibernate(each.id)
        woken = await engine.lifecycle.wake(each.id)
        assert await run(woken, f"cat {DATA}/file") == f"shared\n{each.id}"
    kept = await engine.volumes.create(CreateVolume(new_id(), 64, MountRef(child.id, DATA)))
    for each in (child, restored, parent):
        await engine.sandboxes.delete(each.id)
    await engine.saved.remove(saved)
    assert await content(engine, volume) == f"shared\n{parent.id}"
    assert await content(engine, kept.id) == f"shared\n{child.id}"


async def test_a_volume_is_never_older_or_newer_than_the_memory(engine: Engine) -> None:
    """A hibernated sandbox keeps its volume, and a rewind takes the volume back."""
    volume, then = await new_volume(engine), new_id()
    sandbox = await writer(engine, volume)
    await run(sandbox, f"echo one > {DATA}/file")
    await engine.copies.snapshot(sandbox.id, then)
    await run(sandbox, f"echo two >> {DATA}/file; exec 9> {DATA}/open")
    await engine.lifecycle.hibernate(sandbox.id)
    assert engine.volumes.get(volume).writer == sandbox.id
    assert await content(engine, volume) == "one\ntwo"
    with pytest.raises(ConflictError, match="hibernated"):
        await engine.volumes.grow(volume, 128)
    with pytest.raises(ConflictError):
        await writer(engine, volume)
    sandbox = await engine.lifecycle.wake(sandbox.id)
    assert await run(sandbox, f"cat {DATA}/file; echo three >> {DATA}/file; sync") == "one\ntwo"
    assert sandbox.origin.snapshot.disks[1].path.samefile(engine.pool.directory / "volumes" / f"{volume}.img")
    sandbox = await engine.rewinder.rewind(sandbox.id, then)
    assert await run(sandbox, f"cat {DATA}/file") == "one"
    assert await content(engine, volume) == "one"
    await run(sandbox, f"echo other >> {DATA}/file")
    await engine.sandboxes.delete(sandbox.id)
    assert await content(engine, volume) == "one\nother"
    await engine.saved.remove(then)


async def test_a_sandbox_without_memory_boots_with_its_volumes(engine: Engine) -> None:
    volume = await new_volume(engine)
    sandbox = await writer(engine, volume)
    await run(sandbox, f"dd if=/dev/urandom of={DATA}/synced bs=1M count=3 conv=fsync 2>/dev/null")
    digest = await run(sandbox, f"sha256sum < {DATA}/synced")
    os.kill(sandbox.machine.pid, signal.SIGKILL)
    await anyio.to_thread.run_sync(
        eventually, lambda: isinstance(engine.registry.find(sandbox.id), Hibernated), 60, "its disks are kept"
    )
    assert engine.volumes.get(volume).writer == sandbox.id
    woken = await engine.lifecycle.wake(sandbox.id, boot=True)
    assert woken.memory_lost
    assert await run(woken, f"findmnt -no SOURCE {DATA}") == "/dev/vdb"
    assert await run(woken, f"sha256sum < {DATA}/synced; echo more > {DATA}/file") == digest
    await engine.sandboxes.delete(woken.id)
    assert await content(engine, volume) == "more"


async def test_what_was_synced_survives_the_end_of_the_vmm(engine: Engine) -> None:
    """Each line is written and synced before it is told: none that was told may be lost."""
    volume = await new_volume(engine)
    sandbox = await writer(engine, volume)
    script = f"for n in $(seq 1 100000); do echo $n >> {DATA}/log; sync {DATA}/log; echo $n > /run/told; done"
    await run(sandbox, f"({script}) >/dev/null 2>&1 &")
    await anyio.sleep(3)
    told = int(await run(sandbox, "cat /run/told"))
    os.kill(sandbox.machine.pid, signal.SIGKILL)
    await anyio.to_thread.run_sync(
        eventually, lambda: isinstance(engine.registry.find(sandbox.id), Hibernated), 60, "its disks are kept"
    )
    await engine.sandboxes.delete(sandbox.id)
    lines = (await content(engine, volume, "log")).split()
    assert told > 3 and lines == [str(n + 1) for n in range(len(lines))] and len(lines) >= told


async def test_a_volume_grows_while_it_is_written_to(engine: Engine) -> None:
    volume = await new_volume(engine)
    assert (await engine.volumes.grow(volume, 96)).size_mb == 96
    sandbox = await writer(engine, volume)
    size = f"df --output=size -BM {DATA} | tail -1 | tr -d M"
    before = int(await run(sandbox, size))
    await run(sandbox, f"(while true; do date >> {DATA}/busy; done) >/dev/null 2>&1 &")
    assert (await engine.volumes.grow(volume, 512)).size_mb == 512
    after = int(await run(sandbox, size))
    assert before < 96 < 400 < after
    await run(sandbox, f"fallocate -l 300M {DATA}/large")
    with pytest.raises(BadRequestError, match="never shrinks") as smaller:
        await engine.volumes.grow(volume, 128)
    assert smaller.value.field == "size_mb"
    await engine.lifecycle.hibernate(sandbox.id)
    woken = await engine.lifecycle.wake(sandbox.id)
    assert int(await run(woken, size)) == after
    await engine.sandboxes.delete(sandbox.id)
    assert engine.volumes.get(volume).size_mb == 512


async def test_a_clone_is_as_large_as_its_source_or_larger(engine: Engine) -> None:
    volume = await new_volume(engine)
    sandbox = await writer(engine, volume)
    await run(sandbox, f"echo cloned > {DATA}/file")
    larger = await engine.volumes.create(CreateVolume(new_id(), 256, VolumeRef(volume)))
    with pytest.raises(BadRequestError) as small:
        await engine.volumes.create(CreateVolume(new_id(), 32, VolumeRef(volume)))
    assert small.value.field == "size_mb"
    with pytest.raises(NotFoundError) as nowhere:
        await engine.volumes.create(CreateVolume(new_id(), 256, MountRef(sandbox.id, "/mnt/other")))
    assert nowhere.value.field == "start_from.path"
    with pytest.raises(NotFoundError) as missing:
        await engine.volumes.create(CreateVolume(new_id(), 256, VolumeRef(new_id())))
    assert missing.value.field == "start_from.id"
    with pytest.raises(ConflictError):
        await engine.volumes.create(CreateVolume(volume, 64))
    copy = await writer(engine, larger.id, "/mnt/copy")
    assert await run(copy, "cat /mnt/copy/file") == "cloned"
    assert int(await run(copy, "df --output=size -BM /mnt/copy | tail -1 | tr -d M")) > 200
    for each in (sandbox, copy):
        await engine.sandboxes.delete(each.id)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/passwd/below"])
async def test_a_volume_cannot_be_mounted_at_a_file(engine: Engine, path: str) -> None:
    good, volume = await new_volume(engine), await new_volume(engine)
    with pytest.raises(BadRequestError, match="cannot be a directory") as refused:
        await with_volumes(engine, AttachVolume(good, DATA), AttachVolume(volume, path))
    assert refused.value.field == "volumes[1]"
    assert engine.volumes.get(volume).writer is None
    sandbox = await writer(engine, volume)
    await engine.sandboxes.delete(sandbox.id)


async def test_a_volume_whose_file_system_was_overwritten(engine: Engine) -> None:
    volume = await new_volume(engine)
    sandbox = await writer(engine, volume)
    await run(sandbox, f"umount {DATA}; dd if=/dev/zero of=/dev/vdb bs=1M count=2 conv=fsync 2>/dev/null")
    await engine.sandboxes.delete(sandbox.id)
    with pytest.raises(ConflictError, match="no file system") as damaged:
        await writer(engine, volume)
    assert damaged.value.field == "volumes[0]"
    await engine.volumes.delete(volume)


async def test_a_full_pool_refuses_volumes_in_their_own_words(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(engine.pool), "free_bytes", lambda _: 10 * MIB)
    before = engine.volumes.list()
    with pytest.raises(StorageFullError, match="for volume") as full:
        await new_volume(engine)
    assert full.value.detail["reason"] == "free_space" and full.value.detail["fs_free_bytes"] == 10 * MIB
    assert engine.volumes.list() == before
    monkeypatch.undo()
    with pytest.raises(StorageFullError) as promised:
        await new_volume(engine, 1000 * engine.pool.total_bytes() // MIB)  # on a host of any size
    assert promised.value.detail["reason"] == "provisioned"


async def test_a_start_that_fails_leaves_the_volume_as_it_was(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = await new_volume(engine)
    file = engine.pool.directory / "volumes" / f"{volume}.img"
    before = file.read_bytes()

    async def fail(*_: object) -> None:
        raise files.map_error(OSError(errno.ENOSPC, "full"), Path("/pool"))

    monkeypatch.setattr(type(engine.volumes), "settle", fail)
    with pytest.raises(StorageFullError):
        await writer(engine, volume)
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert engine.volumes.get(volume).writer is None


async def test_the_next_engine_finds_the_volumes_and_who_has_them(place: Installation) -> None:
    async with opened(place) as engine:
        volumes = [await new_volume(engine) for _ in range(2)]
        running, asleep = [await writer(engine, each) for each in volumes]
        for each in (running, asleep):
            await run(each, f"echo kept > {DATA}/file; sync")
        await run(running, f"echo unsynced > {DATA}/unsynced")
        await engine.lifecycle.hibernate(asleep.id)
        store = engine.pool.directory / "volumes"
        (store / ".new-left").write_bytes(b"half a volume")
    async with opened(place) as engine:
        assert not (engine.pool.directory / "volumes" / ".new-left").exists()
        assert engine.volumes.get(volumes[0]).writer is None
        assert engine.volumes.get(volumes[1]).writer == asleep.id
        assert await content(engine, volumes[0]) == "kept"
        assert await content(engine, volumes[0], "unsynced") == "unsynced"
        woken = await engine.lifecycle.wake(asleep.id)
        assert await run(woken, f"cat {DATA}/file") == "kept"
        await engine.sandboxes.delete(asleep.id)
        for volume in engine.volumes.list():
            await engine.volumes.delete(volume.id)
        assert list((engine.pool.directory / "volumes").iterdir()) == []


async def test_an_engine_that_cannot_settle_a_volume_starts_all_the_same(
    place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool was full: the sandbox has its volume, and its deletion makes up for it."""
    async with opened(place) as engine:
        volume = await new_volume(engine)
        sandbox = await writer(engine, volume)
        await run(sandbox, f"echo old > {DATA}/file")
        file, older = engine.pool.directory / "volumes" / f"{volume}.img", engine.pool.directory / "older"
        await engine.lifecycle.hibernate(sandbox.id)
        files.clone(file, older)
        sandbox = await engine.lifecycle.wake(sandbox.id)
        await run(sandbox, f"echo new > {DATA}/file")
        await engine.lifecycle.hibernate(sandbox.id)
        older.rename(file)  # as if it had been killed before

    async def full(*_: object) -> None:
        raise files.map_error(OSError(errno.ENOSPC, "full"), Path("/pool"))

    monkeypatch.setattr(VolumeStore, "settle", full)
    async with opened(place) as engine:
        assert engine.volumes.get(volume).writer == sandbox.id
        assert await content(engine, volume) == "old"
        with pytest.raises(StorageFullError):
            await engine.sandboxes.delete(sandbox.id)
        monkeypatch.undo()
        await engine.sandboxes.delete(sandbox.id)
        assert await content(engine, volume) == "new"
        await engine.volumes.delete(volume)
