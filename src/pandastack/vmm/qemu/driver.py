"""QEMU as a driver."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pandastack.host import facts
from pandastack.host.processes.identity import ProcessIdentity
from pandastack.model.accelerator import Accelerator
from pandastack.vmm.driver import Capabilities, Machine
from pandastack.vmm.plan import MachinePlan, TapNic, UserNic
from pandastack.vmm.qemu.argv import cpu_model
from pandastack.vmm.qemu.binary import qemu_binary, qemu_version
from pandastack.vmm.qemu.machine import launch, reattach


@dataclass(frozen=True)
class QemuDriver:
    """The QEMU at ``binary``."""

    binary: Path
    identity: str
    cpus: Mapping[Accelerator, str]
    capabilities: ClassVar = Capabilities(nics=frozenset({UserNic, TapNic}), resizes_disks=True)

    def launch(self, plan: MachinePlan, log: Path) -> AbstractAsyncContextManager[Machine]:
        return launch(self.binary, plan, log)

    def reattach(self, process: ProcessIdentity, plan: MachinePlan, log: Path) -> AbstractAsyncContextManager[Machine]:
        return reattach(process, plan, log)


async def open_qemu() -> QemuDriver:
    """The driver for the QEMU installed on this host. Raises :class:`ServerError` when there is none."""
    return QemuDriver(qemu_binary(), await qemu_version(), cpus_on(facts.cpu_fingerprint()))


def cpus_on(host: str) -> Mapping[Accelerator, str]:
    """The CPU model and the host's identity: with either accelerator a guest was told its host's counter rate."""
    return {each: f"{cpu_model(each).partition(',')[0]}:{host}" for each in Accelerator}
