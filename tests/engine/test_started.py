"""Kernels that have started: which machines may go on from one, and what makes one another."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.engine.build.started import KIND, Started, may_start, plan_of, started_key
from pandastack.engine.machines.plan import BootSpec
from pandastack.images.cache import Cache
from pandastack.images.prune import prune
from pandastack.model.accelerator import Accelerator
from pandastack.vmm.plan import Blank, Boot, Disk, TapNic, UserNic
from pandastack.vmm.qemu.driver import QemuDriver

pytestmark = pytest.mark.anyio

ROOT, MODULES = Disk("root", Path("/root.qcow2"), base=Path("/base.img")), Disk("modules", Path("/m"), readonly=True)
SPEC = BootSpec(
    name="pandastack-work-1.2-bake-3",
    boot=Boot(Path("/kernel"), Path("/initramfs"), "norandmaps"),
    cpus=2,
    memory_mb=2048,
    memory=Path("/memory"),
    disks=(ROOT, Blank("blank0"), MODULES),
    sockets=Path("/sockets"),
    accelerator=Accelerator.TCG,
    nic=TapNic(1500, 7),
)
DRIVER = QemuDriver(Path("/qemu"), "QEMU 7.2", dict.fromkeys(Accelerator, "max"))


def key(spec: BootSpec = SPEC, *contents: str) -> str:
    return started_key(DRIVER, spec, *contents)


def test_a_disk_that_is_only_read_and_the_hosts_own_network_need_a_boot() -> None:
    source = Disk("stage0", Path("/stage"), readonly=True)
    assert may_start(SPEC)
    assert may_start(replace(SPEC, disks=(ROOT,), nic=None))
    assert may_start(replace(SPEC, disks=(ROOT, Disk("volume0", Path("/v")), MODULES)))
    assert not may_start(replace(SPEC, disks=(ROOT, source)))
    assert not may_start(replace(SPEC, disks=(Blank("blank0"), ROOT)))
    assert not may_start(replace(SPEC, nic=UserNic(1500)))


def test_the_key_has_the_hardware_and_what_it_runs() -> None:
    others = [
        replace(SPEC, cpus=1),
        replace(SPEC, memory_mb=256),
        replace(SPEC, nested=True),
        replace(SPEC, accelerator=Accelerator.KVM),
        replace(SPEC, disks=(ROOT, MODULES)),
        replace(SPEC, disks=(ROOT, Blank("blank0"))),
        replace(SPEC, nic=None),
        replace(SPEC, nic=TapNic(1400)),
        replace(SPEC, boot=replace(SPEC.boot, cmdline="maxcpus=1")),
    ]
    keys = [key(), key(SPEC, "another agent"), key(SPEC, "an owner"), *map(key, others)]
    assert len(set(keys)) == len(keys)


def test_the_key_has_nothing_of_one_machine() -> None:
    volume = Disk("volume0", Path("/volume"))
    assert key(replace(SPEC, name="another", sockets=Path("/elsewhere"), memory=Path("/other"))) == key()
    assert key(replace(SPEC, disks=(replace(ROOT, path=Path("/another")), volume, MODULES))) == key()
    assert key(replace(SPEC, nic=TapNic(1500))) == key()


def test_only_a_memory_that_is_kept_is_a_copy() -> None:
    kernel = Started(Path("/cache/started/KEY"))
    mapped, copied = plan_of(SPEC, kernel), plan_of(replace(SPEC, keep_memory=True), kernel)
    assert (mapped.boot, mapped.memory, mapped.memory_shared) == (None, kernel.memory, False)
    assert (copied.boot, copied.memory, copied.memory_shared) == (None, SPEC.memory, True)
    assert plan_of(SPEC, None).boot == SPEC.boot


def test_a_memory_that_was_written_to_is_noticed(tmp_path: Path) -> None:
    kernel = Started(tmp_path)
    kernel.memory.write_bytes(bytes(4096))
    kernel.seal(0x1234)
    assert kernel.intact and kernel.boot_id_at == 0x1234
    kernel.memory.write_bytes(bytes(4097))
    assert not kernel.intact


async def test_a_prune_removes_what_no_build_holds(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    async with cache.entry(KIND, "key") as entry:
        (entry.work / "memory").write_bytes(b"x" * 8192)
        entry.commit()
    os.utime(entry.path, (0, 0))
    with cache.holding(entry.path):
        assert await prune(cache, 0) == []
    assert [(each.kind, each.key) for each in await prune(cache, 0)] == [(KIND, "key")]
    assert not entry.path.exists()
