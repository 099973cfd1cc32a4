"""Resynchronisation, quiescing, and guests that break the protocol."""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from anyio.abc import UNIXSocketStream

from pandastack.errors import BadRequestError, GuestError
from pandastack.guest import Channel, ExecRequest, Identity, frames
from pandastack.guest.frames import encode, encode_fields, encode_to_guest
from pandastack.guest.keys import (
    VERSION,
    FrameType,
    HelloKey,
    OpenKey,
    Operation,
    ResultKey,
    ResumedKey,
    ResumeKey,
    Signal,
)

IDENTITY = Identity(hostname="again", machine_id="f" * 32, env={"WHO": "new"})


@asynccontextmanager
async def channel_over(ours: socket.socket) -> AsyncIterator[Channel]:
    async with Channel(await UNIXSocketStream.from_socket(ours)) as channel:
        yield channel


async def says(channel: Channel, cmd: str) -> bytes:
    async with channel.exec(ExecRequest(cmd=cmd)) as process:
        return b"".join([chunk async for _, chunk in process.output()])


def open_exec(stream: int, cmd: bytes) -> bytes:
    return encode_to_guest(
        FrameType.OPEN, stream, frames.encode_request(Operation.EXEC, (OpenKey.STDIN, b""), (OpenKey.CMD, cmd))
    )


@pytest.mark.parametrize("missing", [1, 4, 5, 8, 9, 11, 20, 60])
async def test_resume_in_the_middle_of_frames_of_both_sides(
    raw_agent: socket.socket, missing: int, tmp_path: Path
) -> None:
    """The host's frame was cut after all but ``missing`` bytes, and the guest's output in the middle too."""
    raw_agent.sendall(open_exec(7, b"exec yes"))
    raw_agent.recv(4096)
    whole = open_exec(8, b"touch " + bytes(tmp_path) + b"/" + b"x" * 40)
    raw_agent.sendall(whole[:-missing])
    async with channel_over(raw_agent) as channel:
        await channel.resume(IDENTITY, at_frame_boundary=False, timeout_s=10)
        assert await says(channel, "echo $WHO") == b"new\n"
    assert not any(tmp_path.iterdir()), "a part of the cut command was run"


async def test_a_guest_that_talks_to_a_host_that_is_gone_is_watched_and_resumed(raw_agent: socket.socket) -> None:
    """What takes a machine over looks for its end before it can say anything to it."""
    raw_agent.sendall(open_exec(7, b"exec yes"))
    async with channel_over(raw_agent) as channel, anyio.create_task_group() as group:
        group.start_soon(channel.wait_closed)
        await anyio.sleep(0.2)  # nothing tells that what it says is dropped
        channel.check()
        await channel.resume(IDENTITY, at_frame_boundary=False, timeout_s=10)
        assert await says(channel, "echo $WHO") == b"new\n"
        group.cancel_scope.cancel()


@pytest.mark.parametrize("kept", range(11))
async def test_resume_after_a_cut_header(raw_agent: socket.socket, kept: int) -> None:
    raw_agent.sendall(encode_to_guest(FrameType.DATA, 0x01020304, bytes(65536))[:kept])
    async with channel_over(raw_agent) as channel:
        await channel.resume(IDENTITY, at_frame_boundary=False, timeout_s=10)
        await channel.ping()


async def test_resume_after_garbage(raw_agent: socket.socket) -> None:
    raw_agent.sendall(b"\xff" * 1000 + os.urandom(5000))
    async with channel_over(raw_agent) as channel:
        await channel.resume(IDENTITY, at_frame_boundary=False, timeout_s=10)
        assert await says(channel, "echo on") == b"on\n"


async def test_a_quiet_guest_resumes_without_padding(raw_agent: socket.socket) -> None:
    raw_agent.sendall(open_exec(7, b"sleep 0.1; exec yes"))
    raw_agent.sendall(encode_to_guest(FrameType.QUIESCE))
    seen = b""
    while encode(FrameType.QUIET) not in seen:
        seen += raw_agent.recv(4096)
    async with channel_over(raw_agent) as channel:
        await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=10)
        assert await says(channel, "echo on") == b"on\n"


def received(agent: socket.socket, enough: int) -> list[frames.Frame]:
    """Frames of at least ``enough`` bytes."""
    decoder, found, size = frames.Decoder(), [], 0
    while size < enough:
        data = agent.recv(1 << 20)
        assert data
        size += len(data)
        found += list(decoder.feed(data))
    return found


def test_the_agent_knows_every_operation(raw_agent: socket.socket) -> None:
    operations = set(Operation)
    for stream, operation in enumerate(operations, 1):
        raw_agent.sendall(encode_to_guest(FrameType.OPEN, stream, frames.encode_request(operation)))
        raw_agent.sendall(encode_to_guest(FrameType.SIGNAL, stream, bytes([Signal.CANCEL])))
    raw_agent.sendall(encode_to_guest(FrameType.OPEN, 99, encode_fields([(OpenKey.OP, b"nothing of ours")])))
    results: dict[int, str] = {}
    while len(results) <= len(operations):
        for frame in received(raw_agent, 1):
            if frame.type is FrameType.RESULT:
                results[frame.stream] = frames.text(frames.decode_fields(frame.payload), ResultKey.MESSAGE)
    assert [stream for stream, message in results.items() if message.startswith("operation:")] == [99]


def test_busy_streams_share_the_channel(raw_agent: socket.socket, tmp_path: Path) -> None:
    """The agent's buffer holds less than what a few streams may send: each gets its turn."""
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1 << 40)
    for stream in range(1, 9):
        request = frames.encode_request(Operation.READ, (OpenKey.PATH, bytes(tmp_path / "large")))
        raw_agent.sendall(encode_to_guest(FrameType.OPEN, stream, request))
        raw_agent.sendall(encode_to_guest(FrameType.CREDIT, stream, frames.u32(1 << 31)))
    shares = Counter(frame.stream for frame in received(raw_agent, 32 << 20) if frame.type is FrameType.DATA)
    assert min(shares[stream] for stream in range(1, 9)) > shares.total() / 16


async def test_resume_detaches_what_ran_before(channel: Channel) -> None:
    async with channel.exec(ExecRequest(cmd="echo $$; trap '' PIPE; while echo x; do sleep 0.01; done")) as process:
        output = process.output()
        pid = int((await anext(output))[1].split()[0])
        await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=30)
        with pytest.raises(GuestError, match="resumed"):
            async for _ in output:
                pass
    await anyio.sleep(0.2)
    assert await says(channel, f"kill -0 {pid} && echo lives; kill -9 {pid}; echo $WHO") == b"lives\nnew\n"


async def test_nothing_is_sent_inside_a_quiesced_block(channel: Channel) -> None:
    async with channel.quiesced(5), anyio.create_task_group() as group:
        done = anyio.Event()

        async def ping() -> None:
            await channel.ping()
            done.set()

        group.start_soon(ping)
        with anyio.move_on_after(0.1):
            await done.wait()
        assert not done.is_set()
        group.cancel_scope.cancel()
    assert await says(channel, "echo on") == b"on\n"
    await channel.quiesce(5)


async def test_stillness_asks_for_a_thaw_before_anything_else() -> None:
    async with hostile() as (channel, theirs):
        theirs.sendall(encode(FrameType.QUIET))
        async with channel.quiesced(5, freeze=True):
            channel.post(encode_to_guest(FrameType.PING))
        sent = b""
        while len(sent) < 11 + 18 + 10:
            sent += await anyio.to_thread.run_sync(theirs.recv, 4096)
    kinds = [(frame.type, len(frame.payload)) for frame in sent_frames(sent)]
    assert kinds == [(FrameType.QUIESCE, 1), (FrameType.THAW, 8), (FrameType.PING, 0)]


def sent_frames(data: bytes) -> list[frames.Frame]:
    found = []
    while data:
        length, kind, stream = struct.unpack_from("<IBI", data)
        found.append(frames.Frame(FrameType(kind), stream, data[9 : 9 + length]))
        assert data[9 + length] == frames.FRAME_WHOLE
        data = data[10 + length :]
    return found


async def test_an_agent_that_is_no_init_goes_on_as_well(channel: Channel) -> None:
    async with channel.quiesced(5, freeze=True):
        pass
    await channel.quiesce(5, freeze=True)
    channel.thaw()
    assert await says(channel, "echo on") == b"on\n"


async def test_no_command_runs_beside_frozen_programs_where_none_can_be_frozen(channel: Channel) -> None:
    with pytest.raises(GuestError, match="control group"):
        async with channel.rehearse(ExecRequest(cmd="true")) as process:
            await process.wait()
    assert await says(channel, "echo on") == b"on\n"


async def test_a_guest_that_was_told_late_is_told_the_time_again() -> None:
    async with hostile() as (channel, theirs), anyio.create_task_group() as group:
        group.start_soon(channel._correct_clock, 0.2, 5)
        sent = b""
        while len(sent) < 18 + 10:
            sent += await anyio.to_thread.run_sync(theirs.recv, 4096)
        theirs.sendall(encode(FrameType.PONG))
    assert [frame.type for frame in sent_frames(sent)] == [FrameType.THAW, FrameType.PING]


@pytest.mark.parametrize("still", [False, True])
async def test_programs_of_a_guest_that_is_only_looked_at_are_not_let_go_on(
    still: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandastack.guest.connection._CLOCK_TOLERANCE_S", 0.0)  # every answer is late
    seen: list[frames.Frame] = []

    async def guest(theirs: socket.socket) -> None:
        while data := await anyio.to_thread.run_sync(theirs.recv, 4096, abandon_on_cancel=True):
            for frame in sent_frames(data):
                seen.append(frame)
                if frame.type is FrameType.RESUME:
                    nonce = frames.decode_fields(frame.payload)[1][0]
                    theirs.sendall(encode(FrameType.RESUMED, 0, encode_fields([(1, nonce), (3, frames.u32(VERSION))])))
                elif frame.type is FrameType.PING:
                    theirs.sendall(encode(FrameType.PONG))

    async with hostile() as (channel, theirs), anyio.create_task_group() as group:
        group.start_soon(guest, theirs)
        await channel.resume(replace(IDENTITY, frozen=still), at_frame_boundary=True, timeout_s=30)
        await channel.ping()
        theirs.shutdown(socket.SHUT_RD)
        group.cancel_scope.cancel()
    assert (9 in frames.decode_fields(seen[0].payload)) is still
    assert (FrameType.THAW in {frame.type for frame in seen}) is not still


async def test_identity_that_cannot_be_taken_on_is_refused(agent_binary: os.PathLike[str]) -> None:
    ours, theirs = socket.socketpair()
    argv = [str(agent_binary), "--fd", str(theirs.fileno())]
    # Neither root nor in our place: every privileged step has to fail.
    async with await anyio.open_process(argv, pass_fds=[theirs.fileno()], user=65534 if os.getuid() == 0 else None):
        theirs.close()
        async with channel_over(ours) as channel:
            await channel.hello(5)
            with pytest.raises(GuestError, match="identity"):
                await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=30)


async def test_impossible_variables_never_reach_the_guest(channel: Channel) -> None:
    with pytest.raises(BadRequestError):
        await channel.resume(Identity("h", "0" * 32, {"A=B": "x"}), at_frame_boundary=True, timeout_s=30)
    await channel.ping()


@asynccontextmanager
async def hostile() -> AsyncIterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with theirs:
        async with channel_over(ours) as channel:
            yield channel, theirs


OVERRUN = encode(FrameType.DATA, 1, bytes(65536)) * 5


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 9,
        OVERRUN,
        encode(FrameType.DATA, 1),
        encode(FrameType.DATA, 99, b"x"),
        encode(FrameType.CREDIT, 1, frames.u32(2**31)),
        encode(FrameType.CREDIT, 1, b"x"),
        encode(FrameType.RESULT, 1, b"x" * 3),
        encode(FrameType.RESULT, 1, encode_fields([(2, b"m" * 5000)])),
        encode(FrameType.RESULT, 1) * 2,
        encode(FrameType.PONG) * 2,
        b"",
    ],
    ids=[
        *("noise", "beyond credit", "empty data", "unknown stream", "credit for nothing", "short credit"),
        *("malformed result", "long result", "two results", "unasked answer", "gone"),
    ],
)
async def test_a_guest_that_breaks_the_protocol_ends_the_channel_for_everybody(data: bytes) -> None:
    async with hostile() as (channel, theirs), anyio.create_task_group() as group:
        failures: list[Exception] = []

        async def command() -> None:
            try:
                async with channel.exec(ExecRequest(argv=["x"])) as process:
                    await anyio.wait_all_tasks_blocked()
                    theirs.send(data) if len(data) < 1000 else await anyio.to_thread.run_sync(theirs.sendall, data)
                    theirs.shutdown(socket.SHUT_WR)
                    await channel.wait_closed()
                    async for _ in process.output():
                        pass
            except GuestError as error:
                failures.append(error)

        async def other() -> None:
            with pytest.raises(GuestError):
                await channel.hello(30)

        group.start_soon(other)
        with anyio.fail_after(10):
            await command()
            assert isinstance(await channel.wait_closed(), GuestError)
        with pytest.raises(GuestError):
            await channel.ping()
        assert failures or data.startswith(encode(FrameType.RESULT, 1)[:9])


async def test_who_waits_for_the_end_listens_to_nothing_before_the_resume(raw_agent: socket.socket) -> None:
    """The output of a command that ran when the former host's process was killed: of a stream that is not ours."""
    raw_agent.sendall(open_exec(7, b"exec yes"))
    raw_agent.recv(4096)
    async with channel_over(raw_agent) as channel, anyio.create_task_group() as group:
        group.start_soon(channel.wait_closed)
        await anyio.wait_all_tasks_blocked()
        await channel.resume(IDENTITY, at_frame_boundary=False, timeout_s=10)
        assert await says(channel, "echo on") == b"on\n"
        group.cancel_scope.cancel()


async def test_a_silent_guest_meets_the_hosts_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandastack.guest.exec.DEADLINE_GRACE_S", 0.1)
    async with hostile() as (channel, _):
        with pytest.raises(GuestError, match="HELLO"):
            await channel.hello(0.05)
        with pytest.raises(GuestError, match="RESUMED"):
            await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=0.05)
        async with channel.exec(ExecRequest(cmd="true", timeout_s=0.05)) as process:
            assert (await process.wait()).timed_out
        with pytest.raises(GuestError):
            await channel.sync(0.05)


@pytest.mark.parametrize("version", range(VERSION + 2))
async def test_the_versions_that_a_server_speaks(version: int) -> None:
    """Others, and those that say nothing of themselves in a RESUMED, are refused by their number."""
    spoken = version == VERSION
    async with hostile() as (channel, theirs):
        theirs.sendall(encode(FrameType.HELLO, 0, encode_fields([(HelloKey.VERSION, frames.u32(version))])))
        with nullcontext() if spoken else pytest.raises(GuestError, match=f"version {version} of the channel"):
            await channel.hello(5)
        async with anyio.create_task_group() as group:
            group.start_soon(answer_resume, theirs, None if version == 1 else version)
            with nullcontext() if spoken else pytest.raises(GuestError, match=f"version {version} of the channel"):
                await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=30)
        assert not spoken or channel.version == version


async def answer_resume(theirs: socket.socket, version: int | None) -> None:
    frame = sent_frames(await anyio.to_thread.run_sync(theirs.recv, 4096))[0]
    nonce = frames.decode_fields(frame.payload)[ResumeKey.NONCE][0]
    said = [] if version is None else [(ResumedKey.VERSION, frames.u32(version))]
    theirs.sendall(encode(FrameType.RESUMED, 0, encode_fields([(ResumedKey.NONCE, nonce), *said])))


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with hostile() as (channel, _):
            channel.check()
            raise ZeroDivisionError
