"""The interface to a VMM: a driver that starts machines, and a few operations on each machine.

A driver is a package below this one. What a plan asks for is data (:mod:`pandastack.vmm.plan`), and so is what a driver
can do (:class:`Capabilities`). Every driver passes the suite in ``tests/drivers/contract.py`` with real machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pandastack.host.processes.identity import ProcessIdentity
from pandastack.model.accelerator import Accelerator
from pandastack.vmm.plan import MachinePlan, Nic


@dataclass(frozen=True)
class Capabilities:
    """What a driver can do beyond what every driver must."""

    nics: frozenset[type[Nic]]
    """The kinds of network devices that it can give a machine."""
    resizes_disks: bool
    """Whether :meth:`Machine.resize_disk` works. A blank disk of a snapshot can then become any volume."""


class Machine(Protocol):
    """A running VMM.

    Its process ``pid`` maps the plan's ``memory`` file as the guest's RAM, byte for byte: a capture reads the pages
    that differ from the file, and a restore writes such pages, through that process.
    """

    @property
    def plan(self) -> MachinePlan: ...

    @property
    def pid(self) -> int: ...

    async def load(self, devices: Path) -> None:
        """Load a captured device state into a machine without a guest. Its CPUs run as soon as it is loaded."""

    async def pause(self) -> None:
        """Pause the virtual CPUs and flush the guest's writes to the disks."""

    async def resume(self) -> None:
        """Resume the virtual CPUs; does nothing if they run already."""

    async def wait_stalled(self) -> None:
        """Wait until the machine stalls: a write of the guest found the host's disk full, so its CPUs were paused."""

    @property
    def stalled(self) -> bool:
        """Whether the machine is stalled now."""

    async def retry(self) -> None:
        """Resume a stalled machine, which repeats the write; a machine that was also paused stays paused."""

    async def save_devices(self, path: Path) -> None:
        """Write the state of CPUs and devices, without RAM, to ``path``. The machine must be paused, and can be
        resumed afterwards."""

    async def resize_disk(self, name: str, size: int) -> None:
        """Tell the guest that the plan's disk ``name`` now has ``size`` bytes.

        A raw file has already been grown. An overlay grows now; beyond its base it has zeros.
        """

    async def set_link(self, *, up: bool) -> None:
        """Connect or disconnect the cable of the plan's network device. The guest learns of it when it runs."""

    async def wait(self) -> str:
        """Wait for the end of the process; returns how it ended."""


class Driver(Protocol):
    """One VMM as installed on this host."""

    @property
    def identity(self) -> str:
        """The exact build: a captured device state can be loaded only by the same build."""

    @property
    def cpus(self) -> Mapping[Accelerator, str]:
        """The CPU that guests see with each accelerator, as far as a captured state depends on it."""

    @property
    def capabilities(self) -> Capabilities: ...

    def launch(self, plan: MachinePlan, log: Path) -> AbstractAsyncContextManager[Machine]:
        """A new machine for as long as the block runs; its sockets go with it. The VMM's own messages go to ``log``.

        Raises :class:`ServerError` with the end of the VMM's log when it does not start.
        """

    def reattach(self, process: ProcessIdentity, plan: MachinePlan, log: Path) -> AbstractAsyncContextManager[Machine]:
        """The machine of a VMM that a former run launched for ``plan``. Leaving the block ends it.

        Raises :class:`NotFoundError` when the process is gone, :class:`ServerError` when it does not answer.
        """
