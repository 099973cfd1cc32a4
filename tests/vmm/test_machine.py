"""A real QEMU without a guest: its life, its control socket, and how its failures are told."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from pandastack.errors import ServerError
from pandastack.host.pagemap import mapped, own_pages, write_pages
from pandastack.host.processes.descriptors import writable_files
from pandastack.host.processes.identity import identify, kill
from pandastack.host.processes.priority import oom_score
from pandastack.host.processes.run import CommandError
from pandastack.vmm.plan import Disk, MachinePlan, Sockets
from pandastack.vmm.qemu import preload
from pandastack.vmm.qemu.binary import qemu_binary, qemu_version
from pandastack.vmm.qemu.control import ControlError, connect
from pandastack.vmm.qemu.machine import MOST_FILES, NICE, OOM_SCORE, Machine, launch

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.vm,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not installed"),
]


async def test_it_learns_nothing_of_the_servers_environment(
    plan: MachinePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for guests")
    async with launch(qemu_binary(), plan, tmp_path / "log") as machine:
        variables = Path(f"/proc/{machine.pid}/environ").read_bytes().split(b"\0")
        assert {each.partition(b"=")[0] for each in variables if each} <= {
            b"PATH",
            b"LC_ALL",
            b"LD_PRELOAD",
            b"PANDASTACK_READONLY",
        }


async def test_it_opens_no_more_files_than_it_may(plan: MachinePlan, tmp_path: Path) -> None:
    """The server raises its own limit, which would be inherited."""
    async with launch(qemu_binary(), plan, tmp_path / "log") as machine:
        assert max(resource.prlimit(machine.pid, resource.RLIMIT_NOFILE)) <= MOST_FILES


async def test_it_cannot_write_to_the_file_that_others_map_too(plan: MachinePlan, tmp_path: Path) -> None:
    async with launch(qemu_binary(), plan, tmp_path / "log") as machine:
        assert writable_files(machine.pid) - {tmp_path / "log"} == {tmp_path / "disk"}
        assert mapped(machine.pid, plan.memory)
        write_pages(machine.pid, plan.memory, [(4096, b"its own")])
        (own,) = own_pages(machine.pid, plan.memory)
        assert (own.offset, own.length) == (4096, 4096)
    assert plan.memory.read_bytes() == bytes(64 * 1024**2)


async def test_a_bake_writes_its_memory(plan: MachinePlan, tmp_path: Path) -> None:
    async with launch(qemu_binary(), replace(plan, memory_shared=True), tmp_path / "log") as machine:
        assert plan.memory in writable_files(machine.pid)


async def test_without_the_library_a_machine_still_runs(
    plan: MachinePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preload, "library", lambda: None)
    async with launch(qemu_binary(), plan, tmp_path / "log") as machine:
        assert plan.memory in writable_files(machine.pid)


async def test_it_gives_way_to_the_server(plan: MachinePlan, tmp_path: Path) -> None:
    async with launch(qemu_binary(), plan, tmp_path / "log") as machine:
        assert oom_score(machine.pid) == OOM_SCORE
        threads = [int(each.name) for each in Path(f"/proc/{machine.pid}/task").iterdir()]
        priorities = {os.getpriority(os.PRIO_PROCESS, each) for each in threads}
        assert priorities == {os.getpriority(os.PRIO_PROCESS, 0) + NICE}


async def test_its_life_is_the_block(plan: MachinePlan, tmp_path: Path) -> None:
    async with launch(qemu_binary(), plan, tmp_path / "log") as machine:
        assert identify(machine.pid)
        assert {path.name for path in plan.sockets.channel.parent.iterdir()} == {"channel", "control", "console"}
    assert identify(machine.pid) is None
    assert list(plan.sockets.channel.parent.iterdir()) == []


async def test_it_ends_with_the_block_even_when_cancelled(plan: MachinePlan, tmp_path: Path) -> None:
    started: list[Machine] = []
    with anyio.CancelScope() as scope:
        async with launch(qemu_binary(), plan, tmp_path / "log") as machine:
            started.append(machine)
            scope.cancel()
            await anyio.sleep_forever()
    assert identify(started[0].pid) is None


async def test_how_it_ended_is_said(plan: MachinePlan, tmp_path: Path) -> None:
    async with launch(qemu_binary(), plan, tmp_path / "log") as machine:
        (tmp_path / "log").write_text("a last word\n")
        identity = identify(machine.pid)
        assert identity
        assert kill(identity)
        with anyio.fail_after(30), capture_logs() as logs:
            assert await machine.wait() == "killed by SIGKILL"
        assert [entry["printed"] for entry in logs] == ["a last word"]
        with pytest.raises(ControlError, match="ended during stop"):
            await machine.pause()


async def test_a_plan_that_cannot_work_fails_with_the_vmms_words(plan: MachinePlan, tmp_path: Path) -> None:
    missing = replace(plan, disks=(Disk("root", tmp_path / "no-such-disk"),))
    with pytest.raises(CommandError) as failed:
        async with launch(qemu_binary(), missing, tmp_path / "log"):
            raise AssertionError("it cannot start")
    assert "the VMM did not start (exit status 1)" in str(failed.value)
    assert "no-such-disk" in str(failed.value).splitlines()[-1]
    assert list(plan.sockets.channel.parent.iterdir()) == []


async def test_a_binary_that_is_no_vmm(plan: MachinePlan, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="did not start"):
        async with launch(Path("/bin/true"), plan, tmp_path / "log"):
            raise AssertionError("it cannot start")


async def test_a_socket_path_that_is_too_long(plan: MachinePlan, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    sockets = Sockets(deep / "channel", deep / "control", deep / "console")
    with pytest.raises(ServerError) as failed:
        async with launch(qemu_binary(), replace(plan, sockets=sockets), tmp_path / "log"):
            raise AssertionError("it cannot start")
    assert failed.value.hint == "use a data directory with a shorter path"


async def test_a_refused_command_is_an_error_and_the_session_goes_on(plan: MachinePlan, tmp_path: Path) -> None:
    async with launch(qemu_binary(), plan, tmp_path / "log") as machine:
        with pytest.raises(ControlError, match="save"):
            await machine.save_devices(Path("/dev/full"))
        await machine.pause()


async def test_a_state_that_is_none_ends_the_machine(plan: MachinePlan, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"no state at all" * 100)
    async with launch(qemu_binary(), plan, tmp_path / "log") as machine:
        await machine.load(tmp_path / "state")
        with anyio.fail_after(10):
            assert "exit status 1" in await machine.wait()


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        async with connect(tmp_path / "nothing", lambda: None):
            raise AssertionError("nobody is there")


async def test_the_version_is_that_of_the_binary() -> None:
    assert (await qemu_version()).startswith("qemu ")
