"""The resources of its host that one machine holds, from before its VMM starts until after it has ended."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from pandastack.engine.layout import Layout
from pandastack.engine.machines.cable import UNPLUGGED, Cable
from pandastack.engine.machines.host_network import HostNetwork
from pandastack.engine.machines.journal import Entry
from pandastack.engine.machines.rehearsal import Rehearsals
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.machines.slots import Slots
from pandastack.errors import ServerError
from pandastack.host import files
from pandastack.host.cgroups import Groups, Limits
from pandastack.model.size import Size
from pandastack.vmm.driver import Driver
from pandastack.vmm.plan import DiskRate

VMM_MB = 320
"""What a VMM may take beyond its guest's memory: its own, translated code, and buffers."""

VMM_CPUS = 0.5
"""What a VMM may use beyond its guest's CPUs, for disks and network."""

VMM_THREADS = 256
"""Each virtual CPU is a thread, and each request to a disk in flight may be one."""


@dataclass(frozen=True)
class MachineHost:
    """The resources that an engine shares out among its machines."""

    layout: Layout
    directory: Path
    """Holds a directory for each machine."""
    slots: Slots
    network: HostNetwork
    cgroups: Groups | None
    """``None`` where this engine may not make control groups."""
    confinable: bool
    """Whether this engine may change users (it runs as root)."""
    driver: Driver
    rehearsals: Rehearsals
    disk_rate: DiskRate
    """What the disks of a sandbox may do whose template does not say."""
    keep: Callable[[Entry, str], Awaitable[None]]
    """Called with a machine that was lost and the reason, to keep its disks before its directory is removed."""
    ended: Callable[[Sandbox], None]
    """Called once nothing is left of a sandbox's machine."""
    stalled: Callable[[str, bool], None]
    """Called with a sandbox's id and True when its machine stalls for lack of storage, False when it runs again."""


@dataclass(frozen=True)
class Allocation:
    """The resources of one machine: its name, its directories, its host user, its cable."""

    name: str
    slot: int
    directory: Path
    sockets: Path
    netns: Path | None
    """The namespace that its VMM runs in: an empty one, whatever its guest reaches through its cable; ``None``: the
    host's."""
    cgroups: tuple[Path, ...]
    """The directories of its control groups; empty where there are none."""
    confinable: bool
    """Whether this engine may change users (it runs as root)."""
    cable: Cable = UNPLUGGED


@asynccontextmanager
async def allocate(host: MachineHost, limits: Limits, entry: Entry | None = None) -> AsyncIterator[Allocation]:
    """Resources for a machine within ``limits``; with ``entry``, those that it holds already."""
    name = entry.machine if entry else secrets.token_hex(6)
    existing = entry is not None
    with host.slots.take(entry.slot if entry else None) as slot:
        async with (
            group_of(host.cgroups, name, limits) as cgroups,
            host.network.cable(entry.network_slot if entry else None) as cable,
            files.directory_for_now(host.directory / name, existing=existing) as directory,
            files.directory_for_now(host.layout.sockets / name, existing=existing) as sockets,
        ):
            empty = host.network.empty
            yield Allocation(name, slot, directory, sockets, empty, cgroups, host.confinable, cable)


def limits_of(size: Size) -> Limits:
    """What the VMM of a machine of this size may take."""
    return Limits(
        memory_bytes=(size.memory_mb + VMM_MB) * 1024 * 1024,
        cpus=size.cpus + VMM_CPUS,
        threads=VMM_THREADS,
    )


async def change_limits(groups: Groups | None, name: str, limits: Limits) -> None:
    """Give the control group of a machine other limits: what its guest says about its size is not enough."""
    if groups is not None:
        await _make_group(groups, name, limits)


async def _make_group(groups: Groups, name: str, limits: Limits) -> tuple[Path, ...]:
    try:
        return await anyio.to_thread.run_sync(groups.make, name, limits)
    except OSError as error:
        raise ServerError(
            f"no control group for a machine: {error}", hint="`pandastack doctor` says what control groups need"
        ) from error


@asynccontextmanager
async def group_of(groups: Groups | None, name: str, limits: Limits) -> AsyncIterator[tuple[Path, ...]]:
    """The directories of a control group for as long as the block runs; none where ``groups`` is ``None``."""
    if groups is None:
        yield ()
        return
    made = await _make_group(groups, name, limits)
    try:
        yield made
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(groups.remove, name)
