"""Baking: a template's image is booted once, warmed up and captured. Every sandbox is a restore of what this makes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from pandastack.disks.ext4 import make_ext4
from pandastack.engine.boot import Booted, boot, run_in_guest
from pandastack.engine.dress import dress, dress_text
from pandastack.engine.orphans import work_name
from pandastack.engine.plans import BootSpec
from pandastack.engine.progress import Steps, megabytes
from pandastack.engine.workshop import Workshop
from pandastack.guest import ExecRequest
from pandastack.host import files
from pandastack.images.cache import content_key, file_sha256
from pandastack.snapshots.manifest import FORMAT, Manifest, Snapshot, load
from pandastack.vmm.plan import Disk

WARM_UP_DEADLINE = 600.0
QUIESCE_DEADLINE = 20.0

SETTLE_SECONDS = 3.0
"""How long the guest is left alone before its capture. What the kernel still has to do after a command (write-back,
deferred work, timers) would otherwise be done anew at the start of every sandbox: ten milliseconds of each create."""

LAYOUT = 2
"""Raised when the virtual hardware of the machines changes: a captured device state fits one layout only."""


@dataclass(frozen=True)
class Dough:
    """What is baked: an image and the machine it runs in. ``warm_up`` are shell commands run before the capture."""

    name: str
    image: Path
    image_key: str
    cpus: int
    memory_mb: int
    disk_mb: int
    warm_up: tuple[str, ...]
    env: dict[str, str]


def bake_key(workshop: Workshop, dough: Dough) -> str:
    """The name of the snapshot: everything that has a part in what comes out."""
    return content_key(
        "baked",
        [FORMAT, LAYOUT, workshop.vmm, workshop.accelerator.value, workshop.cpu_flags],
        [workshop.kernel.sha256, file_sha256(workshop.initramfs)],
        [dough.image_key, dough.cpus, dough.memory_mb, dough.disk_mb, dough.warm_up, dough.env],
        dress_text(),
    )


async def bake(workshop: Workshop, dough: Dough, steps: Steps) -> Snapshot:
    """The snapshot of ``dough``, from the cache or made now. A failure leaves nothing behind."""
    key = bake_key(workshop, dough)
    async with workshop.cache.entry("baked", key) as entry:
        if not entry.ready:
            await _bake(workshop, dough, key, entry.work, steps)
            entry.commit()
        return load(entry.path)


async def _bake(workshop: Workshop, dough: Dough, key: str, work: Path, steps: Steps) -> None:
    snapshot = Snapshot(work, _manifest(workshop, dough, key))
    await make_ext4(snapshot.disk, dough.disk_mb)
    with snapshot.memory.open("wb") as file:
        file.truncate(dough.memory_mb * 1024 * 1024)
    steps.next(f"boot {dough.name}")
    with TemporaryDirectory() as logs:
        async with boot(workshop.qemu, _spec(workshop, dough, snapshot, key), Path(logs)) as booted:
            await dress(booted, steps)
            for command in dough.warm_up:
                steps.next(f"warm up: {command[:60]}")
                await _warm_up(booted, command, dough.env, steps)
            steps.next(f"capture {dough.name}")
            await _capture(booted, snapshot)
    steps.note(megabytes(files.allocated_bytes(snapshot.memory)))
    (work / "manifest.json").write_bytes(snapshot.manifest.to_json())


async def _warm_up(booted: Booted, command: str, env: dict[str, str], steps: Steps) -> None:
    request = ExecRequest(cmd=command, env=env, timeout_s=WARM_UP_DEADLINE)
    await run_in_guest(booted.channel, request, f"warm-up command {command!r}", steps.progress)


async def _capture(booted: Booted, snapshot: Snapshot) -> None:
    """Take the machine's state. Its RAM is a shared mapping of the file ``memory``, so that is there already."""
    await booted.channel.sync(timeout_s=QUIESCE_DEADLINE)
    await anyio.sleep(SETTLE_SECONDS)
    async with booted.channel.quiesced(timeout_s=QUIESCE_DEADLINE):
        await booted.machine.pause()
        await booted.machine.save_devices(snapshot.devices)


def _spec(workshop: Workshop, dough: Dough, snapshot: Snapshot, key: str) -> BootSpec:
    return BootSpec(
        name=work_name("bake"),
        boot=workshop.boot,
        cpus=dough.cpus,
        memory_mb=dough.memory_mb,
        memory=snapshot.memory,
        disks=(Disk(dough.image, readonly=True), Disk(snapshot.disk)),
        sockets=workshop.sockets / key[:12],
        accelerator=workshop.accelerator,
        keep_memory=True,
        confinement=workshop.confinement,
    )


def _manifest(workshop: Workshop, dough: Dough, key: str) -> Manifest:
    return Manifest(
        key=key,
        format=FORMAT,
        accelerator=workshop.accelerator.value,
        vmm=workshop.vmm,
        cpu_flags=workshop.cpu_flags,
        cpus=dough.cpus,
        memory_mb=dough.memory_mb,
        disk_mb=dough.disk_mb,
        image=dough.image_key,
        kernel_release=workshop.kernel.release,
        kernel_version=workshop.kernel.version,
        kernel_sha256=workshop.kernel.sha256,
        quiet=True,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
