"""Kernels that have started: a guest is captured once when all that it lacks is its root disk, and a machine that would
boot is restored from that instead.

A boot spends its first two seconds on what is the same each time: kernel, memory, drivers. The machine that is captured
has blank disks, and its agent waits for the root disk (``guest-agent/src/system/root.c``). Nothing of an image has been
read, no program of one has run, and no secret has been near it.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from pandastack.disks import overlay
from pandastack.engine.crash_points import crash_at
from pandastack.engine.machines.boot import BOOT_DEADLINE, explained
from pandastack.engine.machines.console import Console
from pandastack.engine.machines.plan import BootSpec, boot_plan
from pandastack.errors import GuestError
from pandastack.host import files
from pandastack.host.leases import shared_directory
from pandastack.images.cache import Cache, content_key
from pandastack.snapshots.manifest import stamp
from pandastack.vmm.driver import Driver, Machine
from pandastack.vmm.plan import MODULES, Blank, Disk, MachinePlan, TapNic

KIND = "started"
"""The kind of cache entry that has the files."""

_AWAITED = re.compile(rb"^agent: waiting for the root disk; the boot id is at ([0-9a-f]{1,16})\r?$", re.MULTILINE)
"""What the agent prints when it has come that far."""

_LAYOUT = 1
"""Increment it when the virtual hardware of machines changes, or what a guest does before it has a root."""


@dataclass(frozen=True)
class Started:
    """A captured guest that waits for its root disk."""

    directory: Path

    @property
    def memory(self) -> Path:
        return self.directory / "memory"

    @property
    def devices(self) -> Path:
        return self.directory / "devices"

    @property
    def _facts(self) -> Path:
        return self.directory / "facts.json"

    def seal(self, boot_id_at: int) -> None:
        """Note what the memory is like: machines map it, and one that was taken over might try to change it."""
        self._facts.write_text(json.dumps({"memory": stamp(self.memory), "boot_id_at": boot_id_at}))

    @property
    def intact(self) -> bool:
        return bool(self._read()["memory"] == stamp(self.memory))

    @property
    def boot_id_at(self) -> int:
        """Where the kernel has its boot id in the memory; 0 if that is not known."""
        return int(self._read()["boot_id_at"])

    def _read(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self._facts.read_bytes())
        return facts


def may_start(spec: BootSpec) -> bool:
    """Whether a machine of ``spec`` can be restored from such a capture. User-mode network has state of its own, and a
    disk that is only read is another device than one that is blank."""
    root, *others = spec.disks
    readonly = any(isinstance(each, Disk) and each.readonly and each.name != MODULES for each in others)
    return isinstance(root, Disk) and isinstance(spec.nic, TapNic | None) and not readonly


def started_key(driver: Driver, spec: BootSpec, *contents: object) -> str:
    """The key of the capture: everything that determines it. ``contents`` says what kernel, initial file system and
    modules are."""
    disks = [each.name if _is_modules(each) else "blank" for each in spec.disks]
    return content_key(
        KIND,
        [_LAYOUT, driver.identity, spec.accelerator.value, driver.cpus[spec.accelerator]],
        [spec.boot.cmdline, spec.cpus, spec.memory_mb, spec.nested, disks],
        [spec.nic.mtu] if spec.nic else [],
        *contents,
    )


@asynccontextmanager
async def started(
    cache: Cache, driver: Driver, spec: BootSpec, key: str, work: Path, note: Callable[[str], None]
) -> AsyncIterator[Started]:
    """The capture named ``key`` for a machine of ``spec``, from the cache or made now; no prune removes it while the
    block runs. ``work`` gets the logs of the machine that makes it. Raises :class:`GuestError`."""
    found = cache.find(KIND, key)
    if found is not None and not await anyio.to_thread.run_sync(lambda: Started(found).intact):
        await cache.forget(KIND, key)
    async with cache.entry(KIND, key) as entry:
        if not entry.ready:
            note("starting the kernel, once for this kind of machine")
            made = Started(entry.work)
            boot_id_at = await _make(driver, spec, made, work)
            await anyio.to_thread.run_sync(made.seal, boot_id_at)
            crash_at("started")
            await anyio.to_thread.run_sync(entry.commit)
    with cache.holding(entry.path):
        yield Started(entry.path)


async def _make(driver: Driver, spec: BootSpec, made: Started, work: Path) -> int:
    """Make the capture. Returns where the boot id is."""
    files.make_sparse(made.memory, spec.memory_mb * 1024 * 1024)
    plan, console = _blank_plan(spec, made), Console(work / "start-console.log")
    with shared_directory(spec.sockets.parent):
        async with (
            files.directory_for_now(spec.sockets),
            driver.launch(plan, work / "start-vmm.log") as machine,
            console.following(plan.sockets.console),
            await anyio.connect_unix(plan.sockets.channel),  # as it will be when a copy is restored
        ):
            if isinstance(spec.nic, TapNic):
                await machine.set_link(up=False)
            boot_id_at = await _wait_for_root(console)
            await machine.pause()
            await machine.save_devices(made.devices)
    return boot_id_at


def _blank_plan(spec: BootSpec, made: Started) -> MachinePlan:
    disks = tuple(each if _is_modules(each) else Blank(f"blank{index}") for index, each in enumerate(spec.disks))
    return replace(boot_plan(spec), memory=made.memory, memory_shared=True, disks=disks)


def _is_modules(disk: Disk | Blank) -> bool:
    return isinstance(disk, Disk) and disk.name == MODULES


async def _wait_for_root(console: Console) -> int:
    """Wait until the guest lacks only its root disk. Returns where it says that its boot id is."""
    with anyio.move_on_after(BOOT_DEADLINE):
        async for _ in console.pieces():
            if found := _AWAITED.search(console.tail()):
                return int(found[1], 16)
    raise explained(GuestError("it did not come to its root disk"), console)


def plan_of(spec: BootSpec, kernel: Started | None) -> MachinePlan:
    """The machine of ``spec``: one that boots, or one that goes on from ``kernel``."""
    plan = boot_plan(spec)
    if kernel is None:
        return plan
    return replace(plan, boot=None, memory=spec.memory if spec.keep_memory else kernel.memory)


async def provide_memory(spec: BootSpec, kernel: Started) -> None:
    """A machine whose memory is kept writes to a copy; any other maps the capture's own file privately."""
    if spec.keep_memory:
        await anyio.to_thread.run_sync(files.clone, kernel.memory, spec.memory)


async def go_on(machine: Machine, kernel: Started) -> None:
    """Load the guest into a machine that was launched with :func:`plan_of`, and show it its disks."""
    await machine.load(kernel.devices)
    for each in reversed(machine.plan.disks):  # the root is the last: the guest goes on when it has that
        if isinstance(each, Disk) and not each.readonly:
            size = await anyio.to_thread.run_sync(_size_of, each)
            await machine.resize_disk(each.name, size)


def _size_of(disk: Disk) -> int:
    return overlay.disk_size(disk.path) if disk.base is not None else disk.path.stat().st_size
