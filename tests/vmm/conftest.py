from __future__ import annotations

from pathlib import Path

import pytest

from pandastack.model.accelerator import Accelerator
from pandastack.vmm.plan import Disk, MachinePlan, Sockets


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def plan(tmp_path: Path) -> MachinePlan:
    for name in ("memory", "disk"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(64 * 1024**2)
    sockets = tmp_path / "s"
    sockets.mkdir()
    return MachinePlan(
        name="pandastack-test",
        cpus=1,
        memory_mb=64,
        memory=tmp_path / "memory",
        disks=(Disk(tmp_path / "disk"),),
        sockets=Sockets(sockets / "channel", sockets / "control", sockets / "console"),
        accelerator=Accelerator.TCG,
    )
