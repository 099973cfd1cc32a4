"""Not QEMU, but what a QEMU that its guest has taken over could do to its server."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from pandastack.host.processes.identity import identify
from pandastack.host.processes.run import CommandError, spawn
from pandastack.vmm.plan import MachinePlan
from pandastack.vmm.qemu import control
from pandastack.vmm.qemu import log as vmm_log
from pandastack.vmm.qemu.binary import qemu_binary
from pandastack.vmm.qemu.control import LINE_LIMIT, ControlError
from pandastack.vmm.qemu.log import KEEP_BYTES, following, make_pipe, reopen_pipe
from pandastack.vmm.qemu.machine import launch
from tests.support.fake_vmm import fake
from tests.support.installation import eventually

pytestmark = pytest.mark.anyio

NONSENSE = {
    "no JSON": b"so what?\n",
    "no object": b"[1]\n",
    "a wrong character": b'{"return": "\xff"}\n',
    "a deep list": b"[" * 200_000 + b"\n",
    "a deep object": b'{"a":' * 200_000 + b"\n",
    "a long number": b"9" * 5000 + b"\n",
    "an endless line": b" " * (LINE_LIMIT + 100_000),
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE.keys())
async def test_one_that_talks_nonsense_is_ended(
    said: bytes, plan: MachinePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "RATE", 2 * LINE_LIMIT)  # the longest takes seconds at the usual rate
    (tmp_path / "said").write_bytes(said)
    program = fake(tmp_path, f"next(lines); peer.sendall(open({str(tmp_path / 'said')!r}, 'rb').read())")
    async with launch(program, plan, tmp_path / "log") as machine:
        with pytest.raises(ControlError, match="the VMM sent"):
            await machine.pause()
        with anyio.fail_after(10):
            assert (await machine.wait()).startswith("the VMM sent")
        assert identify(machine.pid) is None
        with pytest.raises(ControlError, match="the VMM sent"):
            await machine.resume()


async def test_one_that_talks_nonsense_unasked_is_ended(plan: MachinePlan, tmp_path: Path) -> None:
    async with launch(fake(tmp_path, "peer.sendall(b'what?\\n')"), plan, tmp_path / "log") as machine:
        with anyio.fail_after(10):
            assert await machine.wait() == "the VMM sent invalid JSON"


async def test_one_that_does_not_answer_is_ended(
    plan: MachinePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake(tmp_path, 'next(lines); peer.sendall(b\'{"id": 77, "return": {}}\\n{"event": "STOP"}\\n\')')
    async with launch(program, plan, tmp_path / "log") as machine:
        monkeypatch.setattr(control, "COMMAND_DEADLINE", 0.5)
        with pytest.raises(ControlError, match=r"did not answer stop within 0\.5 s"):
            await machine.pause()
        with anyio.fail_after(10):
            assert await machine.wait() == "the VMM did not answer stop within 0.5 s"


async def test_one_that_never_becomes_ready(plan: MachinePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "COMMAND_DEADLINE", 0.5)
    program = tmp_path / "vmm"
    program.write_text("#!/bin/sh\necho about to sleep\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(CommandError, match=r"the VMM did not start \(killed by SIGKILL\)\n  about to sleep"):
        async with launch(program, plan, tmp_path / "log"):
            raise AssertionError("it is not ready")


@pytest.mark.parametrize("fields", ["error=1", 'error={"desc": 5}', 'error={"desc": "x" * 10**5}', "other=1"])
async def test_a_refusal_is_short_and_no_breach(fields: str, plan: MachinePlan, tmp_path: Path) -> None:
    program = fake(tmp_path, f"answer(next(lines), {fields}); answer(next(lines), **{{'return': {{}}}})")
    async with launch(program, plan, tmp_path / "log") as machine:
        with pytest.raises(ControlError, match=r"^stop: ") as refused:
            await machine.pause()
        assert len(str(refused.value)) < 1000
        await machine.resume()


@pytest.mark.parametrize("answered", ["5", "[]", '{"fd": "x"}'])
async def test_an_answer_of_another_kind(answered: str, plan: MachinePlan, tmp_path: Path) -> None:
    program = fake(tmp_path, f"answer(next(lines), **{{'return': {answered}}})")
    async with launch(program, plan, tmp_path / "log") as machine:
        with pytest.raises(ControlError, match="has no number fd"):
            await machine.save_devices(tmp_path / "devices")


async def test_a_late_answer_is_no_answer_to_the_next_command(plan: MachinePlan, tmp_path: Path) -> None:
    behaviour = """
first = next(lines)
second = next(lines)
answer(first, **{"return": {}})
answer(second, error={"desc": "the second"})
"""
    async with launch(fake(tmp_path, behaviour), plan, tmp_path / "log") as machine:
        with anyio.move_on_after(0.2) as abandoned:
            await machine.pause()
        assert abandoned.cancelled_caught
        with pytest.raises(ControlError, match="the second"):
            await machine.resume()


async def test_events_without_end_leave_the_server_its_time(
    plan: MachinePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    real = json.loads

    def count(line: bytes) -> object:
        nonlocal taken
        taken += len(line)
        return real(line)

    monkeypatch.setattr(control.json, "loads", count)
    program = fake(tmp_path, 'while True: peer.sendall(b\'{"event": "RESET"}\\n\' * 1000)')
    began = time.monotonic()
    async with launch(program, plan, tmp_path / "log"):
        await anyio.sleep(1)  # the fault is about how much is read in a time
    assert taken < control.RATE * (time.monotonic() - began + 4)


async def test_one_that_prints_without_end(plan: MachinePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MiB, and then its last words."""
    monkeypatch.setattr(vmm_log, "PAUSE", 0.0)
    behaviour = "[write_out(b'x' * 2**20) for _ in range(100)]; write_out(b'\\nlast words\\n'); sys.exit(3)"
    async with launch(fake(tmp_path, behaviour), plan, tmp_path / "log") as machine:
        with anyio.fail_after(120):
            reason = await machine.wait()
        assert reason == "exit status 3"  # what it printed is for the log, not for a sandbox's owner
        assert (tmp_path / "log").read_bytes().endswith(b"\nlast words\n")
        assert KEEP_BYTES <= (tmp_path / "log").stat().st_size <= 2 * KEEP_BYTES


async def test_what_it_prints_is_read_again_after_a_restart(tmp_path: Path) -> None:
    """A VMM without a reader neither waits nor dies, and a later reader gets what it prints from then on."""
    receive, send = make_pipe()
    script = """
import os, signal, sys, time
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
number = 0
while True:
    number += 1
    try:
        os.write(2, b"line %d\\n" % number)
    except (BlockingIOError, BrokenPipeError):
        pass
    time.sleep(0.01)
"""
    with send:
        async with spawn([sys.executable, "-c", script], log=send.fileno()) as process:
            send.close()
            async with following(tmp_path / "log", receive) as log:
                await _until(lambda: "line 3" in log.tail())
            last = (tmp_path / "log").read_text().strip()
            async with following(tmp_path / "log", reopen_pipe(process.pid)) as log:
                await _until(lambda: log.tail() != last)


async def _until(holds: Callable[[], bool]) -> None:
    await anyio.to_thread.run_sync(eventually, holds, 10, "the VMM prints")


async def test_qemu_does_not_die_of_a_missing_reader(tmp_path: Path) -> None:
    receive, send = make_pipe()
    os.close(receive)
    with send:
        argv = [qemu_binary(), "-M", "none", "-display", "none", "-drive", f"file={tmp_path / 'missing'}"]
        async with spawn(argv, log=send.fileno()) as process:
            with anyio.fail_after(20):
                assert await process.wait() == 1
