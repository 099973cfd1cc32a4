"""The one door to other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from pandastack.host.processes.adopted import adopted
from pandastack.host.processes.identity import identify
from pandastack.host.processes.run import TAIL_LINES, CommandError, describe_status, run, spawn, stop

pytestmark = pytest.mark.anyio


async def test_everything_a_tool_printed() -> None:
    done = await run(["sh", "-c", r"printf 'out\377'; printf err >&2"])
    assert (done.stdout, done.stderr, done.returncode) == (b"out\xff", b"err", 0)
    assert done.text == "out\N{REPLACEMENT CHARACTER}"


async def test_input_directory_and_environment(tmp_path: Path) -> None:
    done = await run(["sh", "-c", "cat; pwd; echo $A $HOME"], input=b"in ", cwd=tmp_path, env={"A": "a"})
    assert done.text == f"in {tmp_path}\na {os.environ['HOME']}\n"


async def test_without_input_there_is_none() -> None:
    assert (await run(["wc", "-c"], timeout=10)).text.strip() == "0"


async def test_a_tool_may_leave_its_input_unread() -> None:
    assert (await run(["true"], input=b"x" * 10_000_000)).returncode == 0


async def test_much_on_both_outputs_at_once() -> None:
    done = await run(["sh", "-c", "head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait"])
    assert len(done.stdout) == len(done.stderr) == 3_000_000


async def test_a_failure_shows_argv_status_and_the_last_lines() -> None:
    with pytest.raises(CommandError) as failed:
        await run(["sh", "-c", "echo to out; seq 100 >&2; exit 3", "a b"])
    first, *rest = str(failed.value).splitlines()
    assert first == "sh -c 'echo to out; seq 100 >&2; exit 3' 'a b': exit status 3"
    assert [each.strip() for each in rest] == [str(number) for number in range(101 - TAIL_LINES, 101)]


async def test_a_failure_that_printed_only_to_stdout() -> None:
    with pytest.raises(CommandError, match="said here"):
        await run(["sh", "-c", "echo said here; exit 1"])


async def test_a_failure_may_be_wanted() -> None:
    assert (await run(["false"], check=False)).returncode == 1


async def test_what_is_not_installed() -> None:
    with pytest.raises(CommandError, match="no-such-program: not installed") as failed:
        await run(["no-such-program"])
    assert "doctor" in (failed.value.hint or "")


async def test_a_tool_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(CommandError, match=r"timeout after 2 s\n  so far") as failed:
        await run(["sh", "-c", f"echo $$ > {pid}; echo so far; exec sleep 600"], timeout=2)
    assert isinstance(failed.value.__cause__, TimeoutError)
    assert identify(int(pid.read_text())) is None


async def test_lines_are_seen_as_they_come(tmp_path: Path) -> None:
    lines: list[str] = []

    def seen(line: str) -> None:
        lines.append(line)
        (tmp_path / line.split()[0]).touch()

    script = f"echo first; until [ -e {tmp_path}/first ]; do sleep 0.02; done; printf 'last without an end'"
    await run(["sh", "-c", script], on_line=seen)
    assert lines == ["first", "last without an end"]


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "killed by SIGKILL"), (-64, "killed by SIGRTMAX")],
)
def test_statuses_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


async def test_stopping_asks_and_then_kills() -> None:
    async with spawn(["sleep", "60"]) as polite:
        assert await stop(polite, grace=10) == -signal.SIGTERM
        assert await stop(polite, grace=10) == -signal.SIGTERM
    ready, writer = os.pipe()
    async with spawn([sys.executable, "-c", STUBBORN], log=writer) as stubborn:
        os.read(ready, 1)
        assert await stop(stubborn, grace=0.2) == -signal.SIGKILL
    os.close(ready)
    os.close(writer)


async def test_a_process_ends_with_its_block_even_when_cancelled() -> None:
    pids: list[int] = []
    with anyio.CancelScope() as scope:
        async with spawn(["sleep", "60"]) as process:
            pids.append(process.pid)
            scope.cancel()
            await anyio.sleep_forever()
    assert identify(pids[0]) is None


async def test_descriptors_are_passed_on() -> None:
    receive, send = os.pipe()
    async with spawn([sys.executable, "-c", f"import os; os.write({send}, b'through')"], pass_fds=[send]) as process:
        assert await process.wait() == 0
    os.close(send)
    with os.fdopen(receive) as stream:
        assert stream.read() == "through"


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child.pid
        child.kill()


async def test_two_may_wait_for_the_end_of_a_foreign_process(child: int) -> None:
    async with adopted(identify(child)) as process, anyio.create_task_group() as group:
        group.start_soon(process.wait)
        group.start_soon(process.wait)
        await anyio.wait_all_tasks_blocked()
        process.kill()
