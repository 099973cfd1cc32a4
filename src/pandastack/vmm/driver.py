"""What is needed of a VMM: a driver that starts machines, and a few operations on each of them.

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
        """Give a machine without a guest a captured state of its devices. Its CPUs run as soon as that is read."""

    async def pause(self) -> None:
        """Stop the virtual CPUs and write to the disks what the guest has written."""

    async def resume(self) -> None:
        """Let the virtual CPUs run; they may run already."""

    async def wait_stalled(self) -> None:
        """Wait until a write of the guest finds the host's disk full, for which the machine stops the CPUs."""

    @property
    def stalled(self) -> bool:
        """Whether that is still so."""

    async def retry(self) -> None:
        """Let a stalled machine run again and repeat the write; one that was paused stays so."""

    async def save_devices(self, path: Path) -> None:
        """Write the state of CPUs and devices, without RAM, to ``path``. The machine must be paused, and can be
        resumed afterwards."""

    async def resize_disk(self, name: str, size: int) -> None:
        """Tell the guest that the disk called ``name`` in the plan has ``size`` bytes, to which its file has grown."""

    async def wait(self) -> str:
        """Wait for the end of the process and say how it ended."""


class Driver(Protocol):
    """One VMM, as it is installed on this host."""

    @property
    def identity(self) -> str:
        """The exact build: a captured state of devices can be loaded by the same build only."""

    @property
    def cpus(self) -> Mapping[Accelerator, str]:
        """The CPU that guests see with each accelerator, as far as a captured state depends on it."""

    @property
    def capabilities(self) -> Capabilities: ...

    def launch(self, plan: MachinePlan, log: Path) -> AbstractAsyncContextManager[Machine]:
        """A new machine for as long as the block runs; its sockets go with it. The VMM's own messages go to ``log``.

        Raises :class:`ServerError` with the VMM's last words when it does not come up.
        """

    def reattach(self, process: ProcessIdentity, plan: MachinePlan, log: Path) -> AbstractAsyncContextManager[Machine]:
        """The machine of a VMM that a former run launched for ``plan``. Leaving the block ends it.

        Raises :class:`NotFoundError` when the process is gone, :class:`ServerError` when it does not answer.
        """
