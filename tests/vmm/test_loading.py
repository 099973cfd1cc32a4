"""What is asked of a VMM before it has loaded its guest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pandastack.vmm.plan import MachinePlan
from pandastack.vmm.qemu.machine import launch
from tests.support.fake_vmm import fake

pytestmark = pytest.mark.anyio

LOADS = """
states = iter(["inmigrate", "inmigrate", "running"])
with open({log!r}, "w") as log:
    for line in lines:
        said = json.loads(line)["execute"]
        state = next(states) if said == "query-status" else ""
        log.write(json.dumps([said, state]) + "\\n")
        log.flush()
        answer(line, **{{"return": {{"status": state}}}})
"""


async def test_a_disk_is_not_resized_before_the_guest_is_loaded(plan: MachinePlan, tmp_path: Path) -> None:
    """QEMU 7.2 answers ``migrate-incoming`` at once, and aborts at a ``block_resize`` while it loads."""
    devices, log = tmp_path / "devices", tmp_path / "said"
    devices.write_bytes(b"")
    async with launch(fake(tmp_path, LOADS.format(log=str(log))), plan, tmp_path / "log") as machine:
        await machine.load(devices)
        await machine.resize_disk("root", 1 << 30)
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert said[-4:] == [["query-status", state] for state in ("inmigrate", "inmigrate", "running")] + [
        ["block_resize", ""]
    ]
