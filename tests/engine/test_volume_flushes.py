"""A volume at every flush of its guest: QEMU records each write and flush, and the records are replayed.

The format is that of the kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst).
"""

from __future__ import annotations

import json
import os
import re
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from pandastack.contract.volumes import AttachVolume, CreateVolume
from pandastack.engine.origins.volumes import MIB
from pandastack.host import files
from pandastack.host.processes.run import run as run_program
from pandastack.vmm.qemu import machine
from tests.support.installation import Installation
from tests.support.machines import opened, run, spec

pytestmark = pytest.mark.anyio

DATA = "/mnt/data"
SIZE_MB = 32
_SUPER, _ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
_MAGIC, _SECTOR = 0x6A736677736872, 512
_FLUSH, _DISCARD = 1, 4


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the records of the next machine's volume will be."""
    log, original = tmp_path / "log", machine.qemu_argv
    log.touch(mode=0o666)

    def with_log(*arguments: Any) -> list[str]:
        words = original(*arguments)
        for place, word in enumerate(words):
            node = json.loads(word) if words[place - 1] == "-blockdev" else {}
            if node.get("node-name") == "d1" and node["driver"] == "file":
                inner = {**node, "node-name": "d1-disk"}
                record = {"driver": "file", "filename": str(log), "node-name": "d1-log", "locking": "off"}
                outer = {"driver": "blklogwrites", "node-name": "d1", "file": "d1-disk", "log": "d1-log"}
                options = [option for each in (inner, record, outer) for option in ("-blockdev", json.dumps(each))]
                return [*words[: place - 1], *options, *words[place + 1 :]]
        return words

    monkeypatch.setattr(machine, "qemu_argv", with_log)
    return log


def entries(log: Path) -> Iterator[tuple[int, int, bytes]]:
    """Flags, place and data of each record, in order."""
    with log.open("rb") as file:
        magic, _, count, sector = _SUPER.unpack(file.read(_SUPER.size))
        assert magic == _MAGIC and sector == _SECTOR
        file.seek(_SECTOR)
        for _ in range(count):
            where, sectors, flags, _ = _ENTRY.unpack(file.read(_SECTOR)[: _ENTRY.size])
            discards = flags & _DISCARD
            yield flags, where * _SECTOR, bytes(sectors * _SECTOR) if discards else file.read(sectors * _SECTOR)


async def synced_in(disk: Path, work: Path) -> int:
    """The highest number that the recovered file system of ``disk`` has, and those before it."""
    copy = work / "recovered"
    files.clone(disk, copy)
    recovered = await run_program(["e2fsck", "-p", "-E", "journal_only", copy], check=False)
    assert recovered.returncode in (0, 1), recovered.text
    checked = await run_program(["e2fsck", "-fn", copy], check=False)
    assert checked.returncode == 0, checked.text
    told = (await run_program(["debugfs", "-R", "ls -p /", copy])).text
    numbers = sorted(int(each) for each in re.findall(r"/n(\d+)/", told))
    assert numbers == list(range(1, len(numbers) + 1))
    for number in numbers[-3:-1]:
        content = (await run_program(["debugfs", "-R", f"cat /n{number}", copy])).text
        assert content == f"{number}\n" * 2000, "a file that was synced has lost its content"
    return len(numbers)


async def test_the_file_system_is_whole_at_every_flush_and_has_what_was_synced(
    place: Installation, recorded: Path, tmp_path: Path
) -> None:
    async with opened(place) as engine:
        volume = (await engine.volumes.create(CreateVolume(str(uuid.uuid4()), SIZE_MB))).id
        disk = tmp_path / "disk"
        files.clone(engine.pool.directory / "volumes" / f"{volume}.img", disk)
        sandbox = await engine.sandboxes.create(spec(), "base", volumes=[AttachVolume(volume, DATA)])
        for_each = f"yes $n | head -n 2000 > {DATA}/n$n; sync {DATA}/n$n; sync {DATA}"
        await run(sandbox, f"for n in $(seq 1 20); do {for_each}; done")
        await engine.sandboxes.delete(sandbox.id)
        await engine.volumes.delete(volume)
    flushes, last = 0, 0
    with disk.open("r+b", buffering=0) as file:
        assert os.fstat(file.fileno()).st_size == SIZE_MB * MIB
        for flags, where, data in entries(recorded):
            if data:
                os.pwrite(file.fileno(), data, where)
            if flags & _FLUSH:
                flushes += 1
                found = await synced_in(disk, tmp_path)
                assert found >= last, "a flush has lost what one before it had"
                last = found
                await anyio.lowlevel.checkpoint()
    assert flushes >= 20 and last == 20
