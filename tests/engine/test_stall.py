"""A machine that stands still because the pool is full. What its VMM says is played; how the host answers is real."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import anyio
import pytest

from pandastack.engine.machines import stall
from pandastack.engine.machines.journal import Entry, Journal
from pandastack.engine.machines.stall import relieve
from pandastack.engine.machines.state import MachineState
from pandastack.host.tasks import beside
from pandastack.vmm.plan import MachinePlan
from pandastack.vmm.qemu.machine import launch
from tests.support.fake_vmm import fake
from tests.support.plans import startable

pytestmark = pytest.mark.anyio

STALLS = """
commands = open(os.path.dirname(sys.argv[0]) + "/commands", "w", buffering=1)
def event(name, **data):
    peer.sendall(json.dumps({"event": name, "data": data}).encode() + b"\\n")

event("BLOCK_IO_ERROR", action="report", nospace=False)
event("BLOCK_IO_ERROR", action="stop", nospace=True)
event("STOP")
for line in lines:
    command = json.loads(line)["execute"]
    commands.write(command + "\\n")
    if command == "cont":
        event("RESUME")
    answer(line, **{"return": {}})
"""


@pytest.fixture
def plan(tmp_path: Path) -> MachinePlan:
    return startable(tmp_path)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, Entry("beef", 0, "base", "0123", MachineState.RUNNING, sandbox="s"))


class Told:
    """What was told of stalls, and a way to wait for it."""

    def __init__(self) -> None:
        self.queue = asyncio.Queue[tuple[str, bool]]()

    def __call__(self, sandbox: str, stalled: bool) -> None:
        self.queue.put_nowait((sandbox, stalled))


async def test_it_runs_again_when_there_is_room(
    plan: MachinePlan, tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stall, "PAUSE", 0.01)
    monkeypatch.setattr(stall, "RESERVE", 1 << 62)
    told = Told()
    async with launch(fake(tmp_path, STALLS), plan, tmp_path / "log") as machine:
        with anyio.fail_after(20):
            async with beside(partial(relieve, machine, tmp_path, journal, told)):
                assert await told.queue.get() == ("s", True)
                monkeypatch.setattr(stall, "RESERVE", 0)
                assert await told.queue.get() == ("s", False)
    assert (tmp_path / "commands").read_text().split() == ["cont"]


async def test_one_that_was_paused_meanwhile_stays_so(
    plan: MachinePlan, tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stall, "PAUSE", 0.001)
    monkeypatch.setattr(stall, "RESERVE", 1 << 62)
    told = Told()
    async with launch(fake(tmp_path, STALLS), plan, tmp_path / "log") as machine:
        with anyio.fail_after(20):
            async with beside(partial(relieve, machine, tmp_path, journal, told)):
                await told.queue.get()
                await machine.pause()
                monkeypatch.setattr(stall, "RESERVE", 0)
                await machine.retry()
                assert machine.stalled
                assert (tmp_path / "commands").read_text().split() == ["stop"]
                await machine.resume()
                assert await told.queue.get() == ("s", False)
    # Until the VMM has reported that it runs, one more check of the pool may come between: that does no harm.
    first, *others = (tmp_path / "commands").read_text().split()
    assert first == "stop"
    assert set(others) == {"cont"}
