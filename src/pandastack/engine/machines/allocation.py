"""The resources of its host that one machine holds, from before its VMM starts until after it has ended."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from pandastack.engine.layout import Layout
from pandastack.engine.machines.journal import Entry
from pandastack.engine.machines.rehearsal import Rehearsals
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.machines.slots import Slots
from pandastack.errors import ServerError
from pandastack.host import files
from pandastack.host.cgroups import Groups, Limits
from pandastack.network.slot import NetworkSlot, NoNetwork
from pandastack.snapshots.manifest import Manifest
from pandastack.vmm.driver import Driver

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
    network: NoNetwork
    cgroups: Groups | None
    """``None`` where this engine may not make control groups."""
    confinable: bool
    """Whether this engine may change users (it runs as root)."""
    driver: Driver
    rehearsals: Rehearsals
    ended: Callable[[Sandbox], None]
    """Called once nothing is left of a sandbox's machine."""
    stalled: Callable[[str, bool], None]
    """Called with a sandbox's id and True when its machine stalls for lack of storage, False when it runs again."""


@dataclass(frozen=True)
class Allocation:
    """The resources of one machine: its name, its directories, its host user, its place in the network."""

    name: str
    slot: int
    directory: Path
    sockets: Path
    network: NetworkSlot
    cgroups: tuple[Path, ...]
    """The directories of its control groups; empty where there are none."""
    confinable: bool
    """Whether this engine may change users (it runs as root)."""


@asynccontextmanager
async def allocate(host: MachineHost, limits: Limits, entry: Entry | None = None) -> AsyncIterator[Allocation]:
    """Resources for a machine within ``limits``; with ``entry``, those that it holds already."""
    name = entry.machine if entry else secrets.token_hex(6)
    existing = entry is not None
    with host.slots.take(entry.slot if entry else None) as slot:
        async with (
            group_of(host.cgroups, name, limits) as cgroups,
            host.network.slot(slot) as network,
            files.directory_for_now(host.directory / name, existing=existing) as directory,
            files.directory_for_now(host.layout.sockets / name, existing=existing) as sockets,
        ):
            yield Allocation(name, slot, directory, sockets, network, cgroups, host.confinable)


def limits_of(manifest: Manifest) -> Limits:
    """What the VMM of a machine with this manifest may take."""
    return Limits(
        memory_bytes=(manifest.memory_mb + VMM_MB) * 1024 * 1024,
        cpus=manifest.cpus + VMM_CPUS,
        threads=VMM_THREADS,
    )


@asynccontextmanager
async def group_of(groups: Groups | None, name: str, limits: Limits) -> AsyncIterator[tuple[Path, ...]]:
    """The directories of a control group for as long as the block runs; none where ``groups`` is ``None``."""
    if groups is None:
        yield ()
        return
    try:
        made = await anyio.to_thread.run_sync(groups.make, name, limits)
    except OSError as error:
        raise ServerError(
            f"no control group for a machine: {error}", hint="`pandastack doctor` says what control groups need"
        ) from error
    try:
        yield made
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(groups.remove, name)
