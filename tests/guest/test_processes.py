"""Processes that outlive the streams that look at them, through the real agent."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import anyio
import pytest

from pandastack.contract.processes import Extent
from pandastack.contract.records import STDERR, STDOUT
from pandastack.errors import BadRequestError, ConflictError, GuestError, NotFoundError
from pandastack.guest import Channel, ExecRequest, Identity, frames
from pandastack.guest.keys import RecordKey
from pandastack.guest.processes import _record

MIB = 1024 * 1024
AGAIN = Identity(hostname="again", machine_id="0" * 32)
COPY = Identity(hostname="copy", machine_id="1" * 32)


def keeping(cmd: str, name: str = "one", **options: object) -> ExecRequest:
    return ExecRequest(cmd=cmd, id=name, keep_bytes=4 * MIB, spool=True, **options)  # type: ignore[arg-type]


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def read(channel: Channel, name: str, stdout: int = 0, stderr: int = 0, follow: bool = True) -> dict[int, bytes]:
    got = {STDOUT: b"", STDERR: b""}
    async with channel.attach(name, stdout=stdout, stderr=stderr, follow=follow) as view:
        async for piece in view.output():
            got[piece.kind] += piece.data
    return got


async def ended(channel: Channel, name: str) -> int:
    async with channel.attach(name, stdout=None, stderr=None) as view:
        assert [piece async for piece in view.output()] == []
        assert view.result is not None
        return view.result.exit_code


async def test_a_started_process_runs_alone_and_is_read_later(channel: Channel) -> None:
    record = await channel.start(keeping("echo out; echo err >&2; exit 3"))
    assert (record.id, record.exit_code, record.cmd) == ("one", None, "echo out; echo err >&2; exit 3")
    assert await ended(channel, "one") == 3
    assert await read(channel, "one") == {STDOUT: b"out\n", STDERR: b"err\n"}
    (found,), kept = await channel.processes(str(record.pid))
    assert (found.running, found.exit_code, found.stdout, found.stderr) == (False, 3, Extent(0, 4), Extent(0, 4))
    assert found.maxrss_kb > 0
    assert found.started_at == record.started_at
    assert kept.records > 0


async def test_output_continues_at_any_offset(channel: Channel) -> None:
    await channel.start(keeping("seq 1 20000"))
    whole = b"".join(b"%d\n" % number for number in range(1, 20001))
    assert await ended(channel, "one") == 0
    for offset in (0, 1, 4096, 65535, len(whole) - 1, len(whole), len(whole) + 5):
        assert (await read(channel, "one", offset))[STDOUT] == whole[offset:]


async def test_output_that_is_too_long_for_memory_is_whole(channel: Channel) -> None:
    await channel.start(keeping("seq 1 400000"))
    whole = b"".join(b"%d\n" % number for number in range(1, 400001))
    assert await ended(channel, "one") == 0
    assert (await read(channel, "one"))[STDOUT] == whole
    assert (await read(channel, "one", 1_234_567))[STDOUT] == whole[1_234_567:]


async def test_beyond_the_cap_the_newest_is_kept_and_the_offset_tells(channel: Channel) -> None:
    size = 16 * MIB
    await channel.start(keeping(f"head -c {size} /dev/zero; echo the end"))
    assert await ended(channel, "one") == 0
    (record,), _ = await channel.processes("one")
    assert record.stdout.end == size + 8
    assert 0 < record.stdout.base <= size + 8 - 4 * MIB
    async with channel.attach("one", stderr=None, follow=False) as view:
        pieces = [piece async for piece in view.output()]
    assert pieces[0].offset == 0 or pieces[0].offset == record.stdout.base
    assert pieces[1].offset == record.stdout.base
    got = b"".join(piece.data for piece in pieces)
    assert len(got) == record.stdout.end - record.stdout.base
    assert got.endswith(b"\0the end\n")


async def test_a_viewer_that_stalls_slows_nobody(channel: Channel) -> None:
    await channel.start(keeping("yes | head -c 30000000"))
    async with channel.attach("one"):
        assert await ended(channel, "one") == 0


async def test_a_resume_leaves_the_process_and_its_output(channel: Channel) -> None:
    async with channel.exec(keeping("echo begun; read line; echo got $line; exit 5", stdin=True)) as process:
        assert (await anext(process.output()))[1] == b"begun\n"
        await channel.resume(AGAIN, at_frame_boundary=True, timeout_s=30)
    (record,), _ = await channel.processes("one")
    assert record.running and not record.inherited
    await channel.send_input("one", once(b"more\n"), close=True)
    assert await ended(channel, "one") == 5
    assert (await read(channel, "one"))[STDOUT] == b"begun\ngot more\n"


async def test_a_copy_of_the_machine_knows_what_it_inherited(channel: Channel) -> None:
    await channel.start(keeping("sleep 60"))
    await channel.resume(COPY, at_frame_boundary=True, timeout_s=30)
    await channel.start(keeping("sleep 60", "two"))
    found, _ = await channel.processes()
    assert {each.id: each.inherited for each in found} == {"one": True, "two": False}
    for each in found:
        await channel.signal(each.id, 9)


async def test_without_an_id_nothing_is_remembered(channel: Channel) -> None:
    async with channel.exec(ExecRequest(cmd="echo x")) as process:
        await process.wait()
    assert (await channel.processes())[0] == []


async def test_leaving_goes_on_and_cancelling_kills(channel: Channel) -> None:
    async with channel.exec(keeping("echo 1; read x; echo 2", stdin=True)) as process:
        await anext(process.output())
        process.leave()
    await channel.send_input("one", once(b"\n"))
    assert await ended(channel, "one") == 0
    assert (await read(channel, "one"))[STDOUT] == b"1\n2\n"
    async with channel.exec(keeping("echo 1; sleep 60", "two")) as process:
        await anext(process.output())
    assert await ended(channel, "two") == 137
    (record,), _ = await channel.processes("two")
    assert record.cancelled


async def test_an_id_is_taken_once(channel: Channel) -> None:
    await channel.start(keeping("true"))
    with pytest.raises(ConflictError):
        await channel.start(keeping("true"))
    with pytest.raises(BadRequestError):
        await channel.start(keeping("true", "../no"))
    with pytest.raises(NotFoundError):
        await channel.processes("two")
    with pytest.raises(NotFoundError):
        await read(channel, "99999999")


async def test_what_has_ended_takes_neither_signals_nor_input(channel: Channel) -> None:
    await channel.start(keeping("cat", stdin=True))
    assert await channel.send_input("one", once(b"abc"), close=True) == 3
    assert await ended(channel, "one") == 0
    with pytest.raises(ConflictError):
        await channel.signal("one", 15)
    with pytest.raises(ConflictError):
        await channel.send_input("one", once(b"abc"))


async def test_a_deadline_reaches_jobs_that_left_the_group(channel: Channel) -> None:
    cmd = "set -m; trap '' TERM; (trap '' TERM; exec sleep 61) & echo $!; wait; sleep 62"
    await channel.start(keeping(cmd, timeout_s=1.5))
    assert await ended(channel, "one") == 137
    pid = int((await read(channel, "one"))[STDOUT])
    with anyio.fail_after(30):
        async with channel.exec(ExecRequest(cmd=f"while kill -0 {pid}; do sleep 0.02; done")) as process:
            await process.wait()
    (record,), _ = await channel.processes("one")
    assert record.timed_out


async def test_old_records_make_room_and_are_counted(channel: Channel) -> None:
    for number in range(70):
        async with channel.exec(keeping("echo $$", f"n-{number}")) as process:
            await process.wait()
    found, kept = await channel.processes()
    assert len(found) <= kept.records + 1
    assert kept.forgotten >= 70 - len(found)
    assert found[-1].id == "n-69"


async def test_a_terminal_is_one_and_has_a_size(channel: Channel) -> None:
    shell = keeping("stty size; tty; read line; stty size; echo got $line; exit 4", terminal=(31, 97))
    await channel.start(shell)
    async with channel.attach("one") as view:
        output = view.output()
        text = b""
        while b"/dev/pts/" not in text:
            text += (await anext(output)).data
        await channel.resize("one", 40, 120)
        await channel.send_input("one", once(b"typed\r"))
        async for piece in output:
            text += piece.data
    assert view.result is not None and view.result.exit_code == 4
    lines = text.split()
    assert lines[:2] == [b"31", b"97"]
    assert b"40 120\r\ngot typed\r\n" in text
    (record,), _ = await channel.processes("one")
    assert (record.pty, record.rows, record.columns) == (True, 40, 120)


async def test_what_a_terminal_said_last_is_not_lost(channel: Channel) -> None:
    for number in range(20):
        name = f"t-{number}"
        await channel.start(keeping("seq 1 500; (sleep 30 &)", name, terminal=(24, 80)))
        assert (await read(channel, name))[STDOUT].endswith(b"499\r\n500\r\n")


async def test_many_at_once_are_whole_though_memory_is_short(channel: Channel) -> None:
    """More output waits than the agent has memory for, and the host goes away in the middle of it."""
    whole = b"".join(b"%d\n" % number for number in range(1, 400001))
    got: dict[str, bytes] = {}

    async def begin(name: str) -> None:
        request = ExecRequest(cmd="seq 1 400000", id=name, keep_bytes=64 * MIB)
        with contextlib.suppress(GuestError):
            async with channel.exec(request) as process:
                async for _, chunk in process.output():
                    got[name] = got.get(name, b"") + chunk
                    if len(got[name]) > 100_000:
                        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        for number in range(14):
            group.start_soon(begin, f"m-{number}")
        while len(got) < 14 or min(map(len, got.values())) <= 100_000:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        await channel.resume(AGAIN, at_frame_boundary=True, timeout_s=30)
        group.cancel_scope.cancel()
    for name, begun in got.items():
        assert await ended(channel, name) == 0
        assert begun + (await read(channel, name, len(begun)))[STDOUT] == whole


@pytest.mark.parametrize("text", ["", "a" * 37, "a\r\nset-cookie: x", "../x", "a b", "a/b", "A", "ü", "a%0d"])
def test_an_id_that_could_not_be_in_a_header_is_refused(text: str) -> None:
    """Any record of a hostile guest may have it."""
    numbers = [(key, frames.u64(0)) for key in RecordKey if key not in (RecordKey.ID, RecordKey.CMD, RecordKey.USER)]
    texts = [(RecordKey.CMD, b"true"), (RecordKey.USER, b"root")]
    good = _record(frames.encode_fields([(RecordKey.ID, b"0b5f-1"), *texts, *numbers]))
    assert good.id == "0b5f-1"
    with pytest.raises(GuestError, match="process id"):
        _record(frames.encode_fields([(RecordKey.ID, text.encode()), *texts, *numbers]))
