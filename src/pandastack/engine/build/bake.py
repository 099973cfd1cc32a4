"""Baking: a template's image is booted once, warmed up and captured. Every sandbox is restored from that capture."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from pandastack.disks.overlay import make_overlay, merge
from pandastack.engine.build.boot import Booted, build_identity, run_in_guest
from pandastack.engine.build.guest_support import guest_support_text, install_guest_support
from pandastack.engine.build.host import BuildHost
from pandastack.engine.build.progress import Steps, megabytes
from pandastack.engine.machines.boot import size_parameters
from pandastack.engine.machines.plan import BootSpec, disks_with
from pandastack.engine.machines.services import install_supervisor, start_service
from pandastack.engine.origins.origin import link
from pandastack.engine.origins.volumes import format_new
from pandastack.engine.work import work_name
from pandastack.errors import BuildError
from pandastack.guest import ExecRequest
from pandastack.guest.keys import VERSION
from pandastack.host import facts, files
from pandastack.host.processes.activity import busy_ms
from pandastack.host.tasks import ahead
from pandastack.images.cache import content_key, file_sha256
from pandastack.images.image import Image
from pandastack.images.initramfs import checked_initramfs
from pandastack.in_guest import service_program
from pandastack.model.baked_services import BakedService
from pandastack.model.baked_volumes import BakedVolume
from pandastack.snapshots.manifest import FORMAT, ROOT, Manifest, Snapshot, load, volume_name
from pandastack.vmm.plan import Disk, TapNic

WARM_UP_DEADLINE = 600.0
QUIESCE_DEADLINE = 20.0
RESIZE_DEADLINE = 60.0

SETTLE_SECONDS = 3.0
"""Seconds that the guest is left alone before its capture at most. The kernel's pending work after a command
(write-back, deferred work, timers) would otherwise be repeated at the start of every sandbox: five milliseconds of each
that is not made ahead."""

_LOOK_SECONDS = 0.1
"""How often it is looked whether the guest has come to rest."""

QUIET_MS = 2.0
"""How long a machine at rest is busy between two looks, at most: its clock ticks, and the VMM looks after itself."""

LAYOUT = 6
"""Increment it when the virtual hardware of machines changes, or how it is captured: a captured device state fits only
one layout."""


@dataclass(frozen=True)
class BakeSpec:
    """What is baked: an image and the machine it runs in. ``services`` are started in it, then the shell commands of
    ``warm_up`` run, and then it is captured.

    The machine has the maximum. Services and warm-up run within the smallest memory: so the rest is empty,
    and takes neither time nor luck to be put out of use.
    """

    name: str
    image: Image
    cpus: int
    memory_mb: int
    max_cpus: int
    min_memory_mb: int
    max_memory_mb: int
    services: tuple[BakedService, ...]
    warm_up: tuple[str, ...]
    env: dict[str, str]
    volumes: int
    """How many volumes its sandboxes may have."""
    nested: bool = False
    own: tuple[BakedVolume, ...] = ()
    """The volumes that it brings along, in its first places. They are mounted before its services are started."""
    owner: str = ""
    """For whom, if not for everybody: nobody else's template shares the snapshot."""


def bake_key(host: BuildHost, spec: BakeSpec) -> str:
    """The key of the snapshot: a hash of everything that determines its content."""
    return content_key(
        "baked",
        [FORMAT, LAYOUT, spec.volumes, facts.default_route_mtu()],
        [host.driver.identity, host.accelerator.value, host.cpu_flags],
        [host.kernel.sha256, host.kernel.modules_sha256, file_sha256(host.initramfs), host.boot.cmdline],
        [spec.cpus, spec.memory_mb, spec.max_cpus, spec.min_memory_mb, spec.max_memory_mb],
        file_sha256(host.fsck),
        [spec.image.key, spec.warm_up, spec.env, spec.nested],
        guest_support_text(),
        *([[asdict(each) for each in spec.services], service_program().decode()] if spec.services else ()),
        *([[asdict(each) for each in spec.own]] if spec.own else ()),
        *filter(None, [spec.owner]),
    )


async def bake(host: BuildHost, spec: BakeSpec, steps: Steps) -> Snapshot:
    """The snapshot of ``spec``, from the cache or made now. A failure leaves nothing behind."""
    key = bake_key(host, spec)
    waiting = partial(steps.note_line, f"another build captures {spec.name}: waiting for it")
    async with host.cache.entry("baked", key, waiting) as entry:
        if not entry.ready:
            await _bake(host, spec, key, entry.work, steps)
            await anyio.to_thread.run_sync(entry.commit)
        return load(entry.path)


async def _bake(host: BuildHost, spec: BakeSpec, key: str, work: Path, steps: Steps) -> None:
    """The machine writes to an overlay on the image, which is copied meanwhile: at the end that copy gets what the
    overlay has, and sandboxes begin with an empty one."""
    snapshot, started = Snapshot(work, _manifest(host, spec, key)), time.monotonic()
    make_overlay(snapshot.root, spec.image.disk_mb * 1024 * 1024)
    link(host.kernel.modules_disk, snapshot.modules)
    for disk, volume in zip(snapshot.disks[1:], spec.own, strict=True):
        await format_new(disk.path, volume.size_mb * 1024 * 1024)
    files.make_sparse(snapshot.memory, spec.max_memory_mb * 1024 * 1024)
    steps.next(f"boot {spec.name}")
    async with ahead(partial(anyio.to_thread.run_sync, _put_shared, host, spec, snapshot)) as shared:
        boot_id_at = await _run_and_capture(host, spec, snapshot, steps)
        await shared()
    await anyio.to_thread.run_sync(merge, snapshot.root, snapshot.base)
    make_overlay(snapshot.root, spec.image.disk_mb * 1024 * 1024)
    steps.note(megabytes(files.allocated_bytes(snapshot.memory)))
    seconds = round(time.monotonic() - started, 1)
    manifest = replace(snapshot.manifest, boot_id_at=boot_id_at, bake_seconds=seconds)
    (work / "manifest.json").write_bytes(manifest.to_json())


def _put_shared(host: BuildHost, spec: BakeSpec, snapshot: Snapshot) -> None:
    """The image, and what a machine boots from when this memory may not be restored, or is lost."""
    files.clone(spec.image.path, snapshot.base)
    link(host.kernel.vmlinux, snapshot.kernel)
    snapshot.initramfs.write_bytes(checked_initramfs(host.initramfs, host.fsck))


async def _run_and_capture(host: BuildHost, spec: BakeSpec, snapshot: Snapshot, steps: Steps) -> int:
    """Run what the template has running, and capture it. Returns where the kernel has its boot id."""
    with TemporaryDirectory() as logs:
        async with host.boot_machine(_spec(host, spec, snapshot), Path(logs), steps) as booted:
            await install_guest_support(booted, steps)
            for place, each in enumerate(spec.own):
                await booted.channel.mount_volume(place, each.size_mb * 1024 * 1024, each.path)
            await _start_services(booted, spec, steps)
            for command in spec.warm_up:
                steps.next(f"warm up: {command[:60]}")
                await _warm_up(booted, command, spec.env, steps)
            steps.next(f"capture {spec.name}")
            await booted.channel.resume(
                replace(build_identity(), size=snapshot.manifest.size),
                at_frame_boundary=True,
                timeout_s=RESIZE_DEADLINE,
            )
            await booted.channel.remember_files()
            await _capture(booted, snapshot)
            return booted.kernel.boot_id_at if booted.kernel else 0


async def _start_services(booted: Booted, spec: BakeSpec, steps: Steps) -> None:
    if spec.services:
        await install_supervisor(booted.channel)
    for service in spec.services:
        steps.next(f"start the service {service.name}")
        if reason := await start_service(booted.channel, service, spec.env):
            raise BuildError(reason)


async def _warm_up(booted: Booted, command: str, env: dict[str, str], steps: Steps) -> None:
    request = ExecRequest(cmd=command, env=env, timeout_s=WARM_UP_DEADLINE)
    await run_in_guest(booted.channel, request, f"warm-up command {command!r}", steps.progress)


async def _capture(booted: Booted, snapshot: Snapshot) -> None:
    """Capture the machine's state. Its RAM needs no copy: it is a shared mapping of the file ``memory``."""
    await booted.channel.sync(timeout_s=QUIESCE_DEADLINE)
    await booted.machine.set_link(up=True)  # as most sandboxes have it: those restored then learn of no change
    await settle(booted.machine.pid)
    async with booted.channel.quiesced(timeout_s=QUIESCE_DEADLINE):
        await booted.machine.pause()
        await booted.machine.save_devices(snapshot.devices)


async def settle(pid: int) -> None:
    """Wait until the machine whose process is ``pid`` has come to rest. One whose programs never rest is not waited for
    any longer than :data:`SETTLE_SECONDS`."""
    before = await anyio.to_thread.run_sync(busy_ms, pid)
    for _ in range(int(SETTLE_SECONDS / _LOOK_SECONDS)):
        await anyio.sleep(_LOOK_SECONDS)
        now = await anyio.to_thread.run_sync(busy_ms, pid)
        if now - before < QUIET_MS:
            return
        before = now


def _spec(host: BuildHost, spec: BakeSpec, snapshot: Snapshot) -> BootSpec:
    parameters = size_parameters(snapshot.manifest, spec.min_memory_mb)
    root = Disk(ROOT, snapshot.root, base=spec.image.path)
    volumes = (Disk(each.name, each.path) for each in snapshot.disks[1:])
    return BootSpec(
        name=work_name("bake"),
        boot=replace(host.boot, cmdline=f"{host.boot.cmdline} {parameters}".strip()),
        cpus=spec.max_cpus,
        memory_mb=spec.max_memory_mb,
        memory=snapshot.memory,
        disks=disks_with([root, *volumes], snapshot.manifest.volumes, snapshot.modules),
        sockets=host.sockets / snapshot.manifest.key[:12],
        accelerator=host.accelerator,
        keep_memory=True,
        nested=spec.nested,
        nic=TapNic(snapshot.manifest.mtu),
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
        max_cpus=spec.max_cpus,
        max_memory_mb=spec.max_memory_mb,
        min_memory_mb=spec.min_memory_mb,
        disk_mb=spec.image.disk_mb,
        image=spec.image.key,
        kernel_release=host.kernel.release,
        kernel_version=host.kernel.version,
        kernel_sha256=host.kernel.sha256,
        modules=host.kernel.modules_sha256,
        nested=spec.nested,
        mtu=facts.default_route_mtu(),
        volumes=spec.volumes,
        disks=(ROOT, *map(volume_name, range(len(spec.own)))),
        mounts=tuple(each.path for each in spec.own),
        protocol=VERSION,
        at_frame_boundary=True,
        boot_id_at=0,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
