"""Baking: a template's image is booted once, warmed up and captured. Every sandbox is restored from that capture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from pandastack.disks.ext4 import make_ext4
from pandastack.engine.build.boot import Booted, boot, run_in_guest
from pandastack.engine.build.guest_support import guest_support_text, install_guest_support
from pandastack.engine.build.host import BuildHost
from pandastack.engine.build.progress import Steps, megabytes
from pandastack.engine.machines.plan import BootSpec
from pandastack.engine.work import work_name
from pandastack.guest import ExecRequest
from pandastack.host import files
from pandastack.images.cache import content_key, file_sha256
from pandastack.snapshots.manifest import FORMAT, ROOT, Manifest, Snapshot, load
from pandastack.vmm.plan import Disk

WARM_UP_DEADLINE = 600.0
QUIESCE_DEADLINE = 20.0

SETTLE_SECONDS = 3.0
"""Seconds that the guest is left idle before its capture. The kernel's pending work after a command (write-back,
deferred work, timers) would otherwise be repeated at the start of every sandbox: ten milliseconds of each create."""

LAYOUT = 2
"""Increment it when the virtual hardware of machines changes: a captured device state fits only one layout."""


@dataclass(frozen=True)
class BakeSpec:
    """What is baked: an image and the machine it runs in. ``warm_up`` are shell commands run before the capture."""

    name: str
    image: Path
    image_key: str
    cpus: int
    memory_mb: int
    disk_mb: int
    warm_up: tuple[str, ...]
    env: dict[str, str]


def bake_key(host: BuildHost, spec: BakeSpec) -> str:
    """The key of the snapshot: a hash of everything that determines its content."""
    return content_key(
        "baked",
        [FORMAT, LAYOUT, host.driver.identity, host.accelerator.value, host.cpu_flags],
        [host.kernel.sha256, file_sha256(host.initramfs), host.boot.cmdline],
        [spec.image_key, spec.cpus, spec.memory_mb, spec.disk_mb, spec.warm_up, spec.env],
        guest_support_text(),
    )


async def bake(host: BuildHost, spec: BakeSpec, steps: Steps) -> Snapshot:
    """The snapshot of ``spec``, from the cache or made now. A failure leaves nothing behind."""
    key = bake_key(host, spec)
    async with host.cache.entry("baked", key) as entry:
        if not entry.ready:
            await _bake(host, spec, key, entry.work, steps)
            entry.commit()
        return load(entry.path)


async def _bake(host: BuildHost, spec: BakeSpec, key: str, work: Path, steps: Steps) -> None:
    snapshot = Snapshot(work, _manifest(host, spec, key))
    await make_ext4(snapshot.root, spec.disk_mb)
    with snapshot.memory.open("wb") as file:
        file.truncate(spec.memory_mb * 1024 * 1024)
    steps.next(f"boot {spec.name}")
    with TemporaryDirectory() as logs:
        async with boot(host.driver, _spec(host, spec, snapshot, key), Path(logs)) as booted:
            await install_guest_support(booted, steps)
            for command in spec.warm_up:
                steps.next(f"warm up: {command[:60]}")
                await _warm_up(booted, command, spec.env, steps)
            steps.next(f"capture {spec.name}")
            await _capture(booted, snapshot)
    steps.note(megabytes(files.allocated_bytes(snapshot.memory)))
    (work / "manifest.json").write_bytes(snapshot.manifest.to_json())


async def _warm_up(booted: Booted, command: str, env: dict[str, str], steps: Steps) -> None:
    request = ExecRequest(cmd=command, env=env, timeout_s=WARM_UP_DEADLINE)
    await run_in_guest(booted.channel, request, f"warm-up command {command!r}", steps.progress)


async def _capture(booted: Booted, snapshot: Snapshot) -> None:
    """Capture the machine's state. Its RAM needs no copy: it is a shared mapping of the file ``memory``."""
    await booted.channel.sync(timeout_s=QUIESCE_DEADLINE)
    await anyio.sleep(SETTLE_SECONDS)
    async with booted.channel.quiesced(timeout_s=QUIESCE_DEADLINE):
        await booted.machine.pause()
        await booted.machine.save_devices(snapshot.devices)


def _spec(host: BuildHost, spec: BakeSpec, snapshot: Snapshot, key: str) -> BootSpec:
    return BootSpec(
        name=work_name("bake"),
        boot=host.boot,
        cpus=spec.cpus,
        memory_mb=spec.memory_mb,
        memory=snapshot.memory,
        disks=(Disk("image", spec.image, readonly=True), Disk(ROOT, snapshot.root)),
        sockets=host.sockets / key[:12],
        accelerator=host.accelerator,
        keep_memory=True,
        confinement=host.confinement,
    )


def _manifest(host: BuildHost, spec: BakeSpec, key: str) -> Manifest:
    return Manifest(
        key=key,
        format=FORMAT,
        accelerator=host.accelerator.value,
        vmm=host.driver.identity,
        cpu_flags=host.cpu_flags,
        cpus=spec.cpus,
        memory_mb=spec.memory_mb,
        disk_mb=spec.disk_mb,
        image=spec.image_key,
        kernel_release=host.kernel.release,
        kernel_version=host.kernel.version,
        kernel_sha256=host.kernel.sha256,
        at_frame_boundary=True,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
