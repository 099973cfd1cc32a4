"""Commands through the real agent."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from pandastack.contract.records import STDERR, STDOUT, ExecResult
from pandastack.errors import BadRequestError, CapacityError, GuestError, NotFoundError
from pandastack.guest import Channel, ExecRequest


async def run(channel: Channel, request: ExecRequest) -> tuple[bytes, bytes, ExecResult]:
    collected = {STDOUT: b"", STDERR: b""}
    async with channel.exec(request) as process:
        async for kind, chunk in process.output():
            collected[kind] += chunk
    return collected[STDOUT], collected[STDERR], process.result


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


async def until_gone(pid: int) -> None:
    with anyio.fail_after(30):
        while alive(pid):  # noqa: ASYNC110
            await anyio.sleep(0.01)  # another's process: no event to wait on


async def test_stdout_stderr_and_exit_code_are_separate(channel: Channel) -> None:
    out, err, result = await run(channel, ExecRequest(cmd="echo out; echo err >&2; exit 7"))
    assert (out, err, result.exit_code) == (b"out\n", b"err\n", 7)
    assert not result.timed_out
    assert 0 < result.duration_us < 5_000_000


async def test_a_killed_command_has_the_shells_code(channel: Channel) -> None:
    _, _, result = await run(channel, ExecRequest(cmd="kill -9 $$"))
    assert (result.exit_code, result.signal) == (137, 9)


async def test_arguments_are_passed_as_they_are(channel: Channel) -> None:
    out, _, _ = await run(channel, ExecRequest(argv=["printf", "%s|", "a b", "", "$HOME"]))
    assert out == b"a b||$HOME|"


async def test_environment_in_order_of_precedence(channel: Channel) -> None:
    request = ExecRequest(cmd='echo "$SANDBOX $HOME $A"; [ -n "$PATH" ]', env={"A": "1", "HOME": "/h"}, cwd="/")
    out, _, result = await run(channel, request)
    assert (out, result.exit_code) == (b"yes /h 1\n", 0)


async def test_working_directory(channel: Channel, tmp_path: Path) -> None:
    out, _, _ = await run(channel, ExecRequest(cmd="pwd", cwd=str(tmp_path)))
    assert out.decode().strip() == str(tmp_path)


async def test_missing_directory_user_and_program_are_errors_before_anything_runs(channel: Channel) -> None:
    with pytest.raises(NotFoundError, match="working directory"):
        await run(channel, ExecRequest(cmd="true", cwd="/no/such"))
    with pytest.raises(BadRequestError, match="no such user"):
        await run(channel, ExecRequest(cmd="true", user="nobody-like-this"))
    with pytest.raises(NotFoundError):
        await run(channel, ExecRequest(argv=["no-such-program"]))
    with pytest.raises(BadRequestError):
        await run(channel, ExecRequest(cmd="echo \0"))


@pytest.mark.root
async def test_another_user(channel: Channel) -> None:
    out, _, _ = await run(channel, ExecRequest(cmd="id -un; id -u; echo $USER", user="nobody", cwd="/"))
    assert out == b"nobody\n65534\nnobody\n"
    out, _, _ = await run(channel, ExecRequest(cmd="id -u; id -g", user="1234:4321", cwd="/"))
    assert out == b"1234\n4321\n"


async def test_stdin_and_its_end(channel: Channel) -> None:
    data = bytes(range(256)) * 4096  # more than the window and the pipe
    async with channel.exec(ExecRequest(argv=["cat"], stdin=True)) as process, anyio.create_task_group() as group:

        async def feed() -> None:
            await process.send_stdin(data)
            await process.close_stdin()

        group.start_soon(feed)
        got = b"".join([chunk async for _, chunk in process.output()])
    assert got == data
    assert process.result.exit_code == 0


async def test_without_stdin_it_is_empty(channel: Channel) -> None:
    out, _, result = await run(channel, ExecRequest(argv=["cat"], timeout_s=5))
    assert (out, result.exit_code) == (b"", 0)


async def test_stdin_that_nobody_reads_stalls_nobody(channel: Channel) -> None:
    async with channel.exec(ExecRequest(argv=["sleep", "60"], stdin=True)) as process:
        with anyio.move_on_after(0.2) as scope:
            await process.send_stdin(bytes(1_000_000))
        assert scope.cancelled_caught
        out, _, _ = await run(channel, ExecRequest(cmd="echo free"))
        assert out == b"free\n"


async def test_a_timeout_kills_the_whole_group(channel: Channel) -> None:
    cmd = "trap '' TERM; (trap '' TERM; exec sleep 61) & echo $!; wait; sleep 62"
    out, _, result = await run(channel, ExecRequest(cmd=cmd, timeout_s=1.5))
    assert result.timed_out
    assert result.exit_code == 137
    await until_gone(int(out))


async def test_a_background_child_does_not_keep_the_command(channel: Channel) -> None:
    out, _, result = await run(channel, ExecRequest(cmd="(sleep 0.5; echo late; exec sleep 30) & echo $!"))
    assert result.exit_code == 0
    pid = int(out)
    await anyio.sleep(0.8)  # it writes to the pipe that its command left: that must not kill it
    assert alive(pid)
    await run(channel, ExecRequest(cmd=f"kill -9 {pid}"))


async def test_all_output_of_before_the_end_arrives(channel: Channel) -> None:
    out, err, _ = await run(channel, ExecRequest(cmd="head -c 60000 /dev/zero; head -c 50000 /dev/zero >&2"))
    assert (len(out), len(err)) == (60000, 50000)


async def test_closed_pipes_end_nothing(channel: Channel) -> None:
    _, _, result = await run(channel, ExecRequest(cmd="exec >&- 2>&-; sleep 0.2; exit 5"))
    assert result.exit_code == 5
    assert result.duration_us >= 200_000


async def test_a_slow_reader_of_much_output_stalls_nobody(channel: Channel) -> None:
    total = 100_000_000
    async with channel.exec(ExecRequest(cmd=f"head -c {total} /dev/zero")) as process:
        output = process.output()
        _, first = await anext(output)
        for _ in range(3):
            out, _, _ = await run(channel, ExecRequest(cmd="echo quick"))
            assert out == b"quick\n"
        received = len(first) + sum([len(chunk) async for _, chunk in output])
    assert received == total
    assert process.result.exit_code == 0


async def test_bytes_that_are_no_text_pass_through(channel: Channel) -> None:
    out, _, _ = await run(channel, ExecRequest(cmd=r"printf '\377\376\000\200'"))
    assert out == b"\xff\xfe\x00\x80"


async def test_many_at_once(channel: Channel) -> None:
    results: dict[int, bytes] = {}

    async def one(number: int) -> None:
        results[number] = (await run(channel, ExecRequest(cmd=f"sleep 0.1; echo {number}")))[0]

    async with anyio.create_task_group() as group:
        for number in range(60):
            group.start_soon(one, number)
    assert results == {number: f"{number}\n".encode() for number in range(60)}


@pytest.mark.parametrize("size", [40_000, 200_000, 1_000_000])
async def test_a_command_longer_than_an_argument(channel: Channel, size: int) -> None:
    cmd = f": {'x' * size}\necho done\nread line; echo $line; ls /proc/self/fd"
    async with channel.exec(ExecRequest(cmd=cmd, stdin=True)) as process:
        await process.send_stdin(b"typed\n")
        out = b"".join([chunk async for _, chunk in process.output()])
    assert out.splitlines()[:2] == [b"done", b"typed"]
    assert out.splitlines()[2:] == [b"0", b"1", b"2", b"3"]  # 3 is the directory that ls reads


async def test_leaving_early_kills_the_group(channel: Channel) -> None:
    async with channel.exec(ExecRequest(cmd="sleep 60 & echo $!; yes")) as process:
        _, chunk = await anext(process.output())
    await until_gone(int(chunk.split()[0]))
    assert (await run(channel, ExecRequest(cmd="echo on")))[0] == b"on\n"


async def test_signal_reaches_the_command(channel: Channel) -> None:
    async with channel.exec(
        ExecRequest(cmd="trap 'echo got; exit 3' USR1; echo on; while :; do sleep 0.05; done")
    ) as p:
        output = p.output()
        assert (await anext(output))[1] == b"on\n"
        await p.signal(10)
        assert [chunk async for kind, chunk in output if kind == STDOUT] == [b"got\n"]
    assert p.result.exit_code == 3


async def test_more_streams_than_the_guest_has_is_an_error_not_a_hang(channel: Channel) -> None:
    async with AsyncExitStack() as views:
        await channel.start(ExecRequest(cmd="exec cat", stdin=True, id="held"))
        for _ in range(512):
            await views.enter_async_context(channel.attach("held"))
        await channel.ping()
        with pytest.raises(CapacityError, match="too many operations"):
            await run(channel, ExecRequest(cmd="true"))
    await channel.ping()
    assert (await run(channel, ExecRequest(cmd="echo again")))[0] == b"again\n"


async def test_a_result_before_the_end_is_an_error(channel: Channel) -> None:
    async with channel.exec(ExecRequest(argv=["sleep", "60"])) as process:
        with pytest.raises(GuestError):
            _ = process.result
