"""The resources of its host that one machine holds, from before its VMM starts until after it has ended."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pandastack.engine.layout import Layout
from pandastack.engine.machines.journal import Entry
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.machines.slots import Slots
from pandastack.host import files
from pandastack.network.slot import NetworkSlot, NoNetwork
from pandastack.vmm.driver import Driver


@dataclass(frozen=True)
class MachineHost:
    """The resources that an engine shares out among its machines."""

    layout: Layout
    directory: Path
    """Holds a directory for each machine."""
    slots: Slots
    network: NoNetwork
    confinable: bool
    """Whether this engine may change users (it runs as root)."""
    driver: Driver
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
    confinable: bool
    """Whether this engine may change users (it runs as root)."""


@asynccontextmanager
async def allocate(host: MachineHost, entry: Entry | None = None) -> AsyncIterator[Allocation]:
    """Resources for a machine; with ``entry``, those that it holds already."""
    name = entry.machine if entry else secrets.token_hex(6)
    existing = entry is not None
    with host.slots.take(entry.slot if entry else None) as slot:
        async with (
            host.network.slot(slot) as network,
            files.directory_for_now(host.directory / name, existing=existing) as directory,
            files.directory_for_now(host.layout.sockets / name, existing=existing) as sockets,
        ):
            yield Allocation(name, slot, directory, sockets, network, host.confinable)
