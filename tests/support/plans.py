"""A plan of a machine that nobody starts."""

from __future__ import annotations

from pathlib import Path

from pandastack.model.accelerator import Accelerator
from pandastack.vmm.plan import Disk, MachinePlan, Sockets

PLAN = MachinePlan(
    name="pandastack-0123-4567",
    cpus=2,
    memory_mb=256,
    memory=Path("/pool/memory"),
    disks=(Disk(Path("/pool/root.erofs"), readonly=True), Disk(Path("/pool/disk.img"))),
    sockets=Sockets(Path("/run/channel"), Path("/run/control"), Path("/run/console")),
    accelerator=Accelerator.TCG,
)
