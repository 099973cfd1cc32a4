"""What snapshots of a real sandbox take, against what the file system says when they go."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import uuid
from pathlib import Path

import pytest

from pandastack.disks.pool import Pool
from pandastack.engine.engine import Engine
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.origins.disk_usage import measure
from tests.support.installation import eventually
from tests.support.machines import run, spec

pytestmark = pytest.mark.anyio

SLACK = 256 * 1024  # the file system's own: inodes and maps of extents


def used(engine: Engine) -> int:
    subprocess.run(["sync", "-f", engine.pool.directory], check=True)
    found = os.statvfs(engine.pool.directory)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


async def test_what_becomes_free_is_what_was_measured(engine: Engine) -> None:
    sandbox = await engine.sandboxes.create(spec(), "base")
    names = [str(uuid.uuid4()) for _ in range(3)]
    for name in names:
        await run(sandbox, "head -c 8000000 /dev/urandom > /root/file; sync")
        captured = await engine.copies.snapshot(sandbox.id, name)
        assert captured.size_bytes >= 8_000_000
    await run(sandbox, "head -c 8000000 /dev/urandom > /root/file; sync")
    await engine.lifecycle.pause(sandbox.id)  # so that nothing writes while it is measured
    found = measure(engine.pool, engine.saved, [*names, str(uuid.uuid4())])
    assert list(found.frees) == names
    assert 0 < found.reserve_bytes < found.free_bytes < found.total_bytes
    for name, expected in found.frees.items():
        before = used(engine)
        await engine.saved.remove(name)
        # XFS frees a deleted file's blocks in the background, and some more: what it set aside for more writes to it.
        eventually(lambda: before - used(engine) > expected - SLACK, 20, f"{expected} bytes are free")  # noqa: B023
        assert expected > 4_000_000
    await engine.sandboxes.delete(sandbox.id)


def test_machines_may_come_and_go_while_it_is_measured(tmp_path: Path) -> None:
    pool, saved = Pool(tmp_path, reflink=False), CaptureStore(tmp_path / "saved")
    (saved.path("kept") / "below").mkdir(parents=True)
    (saved.path("kept") / "memory").write_bytes(bytes(8192))
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            for number in range(20):
                (pool.machines / str(number) / "below").mkdir(parents=True)
                (pool.machines / str(number) / "below" / "disk.img").write_bytes(b"x")
            shutil.rmtree(pool.machines)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        assert [measure(pool, saved, ["kept"]).frees["kept"] for _ in range(100)] == [8192] * 100
    finally:
        over.set()
        thread.join()
