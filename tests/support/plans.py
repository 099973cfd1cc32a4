"""Plans of machines: one that nobody starts, and one that can be started."""

from __future__ import annotations

from pathlib import Path

from pandastack.model.accelerator import Accelerator
from pandastack.vmm.plan import Disk, MachinePlan, Sockets

PLAN = MachinePlan(
    name="pandastack-0123-4567",
    cpus=2,
    memory_mb=256,
    memory=Path("/pool/memory"),
    disks=(Disk("root", Path("/pool/root.qcow2"), base=Path("/pool/base.img")), Disk("data", Path("/pool/data.img"))),
    sockets=Sockets(Path("/run/channel"), Path("/run/control"), Path("/run/console")),
    accelerator=Accelerator.TCG,
)


def startable(directory: Path) -> MachinePlan:
    """A plan that a VMM can be started with, its files in ``directory``."""
    for name in ("memory", "disk"):
        with (directory / name).open("wb") as file:
            file.truncate(64 * 1024**2)
    sockets = directory / "s"
    sockets.mkdir()
    return MachinePlan(
        name="pandastack-test",
        cpus=1,
        memory_mb=64,
        memory=directory / "memory",
        disks=(Disk("root", directory / "disk"),),
        sockets=Sockets(sockets / "channel", sockets / "control", sockets / "console"),
        accelerator=Accelerator.TCG,
    )
