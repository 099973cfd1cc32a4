"""Guests that flood their host: what they send takes little memory, and little of the event loop."""

from __future__ import annotations

import contextlib
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.abc import UNIXSocketStream
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import GuestError
from pandastack.guest import Channel, ExecRequest
from pandastack.guest.backlog import Backlog
from pandastack.guest.frames import WINDOW, encode, encode_fields, encode_to_guest
from pandastack.guest.keys import EntryKey, FrameType, ResultKey
from pandastack.guest.streams import Stream

OUTPUTS = (FrameType.DATA, FrameType.DATA_ERR)
PIECES = st.lists(st.tuples(st.sampled_from(OUTPUTS), st.sampled_from((1, 5, 4095, 4096, 40_000))), max_size=80)


@contextlib.asynccontextmanager
async def fake_guest() -> AsyncIterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with theirs:
        async with Channel(await UNIXSocketStream.from_socket(ours)) as channel:
            yield channel, theirs


@pytest.mark.parametrize("kinds", [OUTPUTS[:1], OUTPUTS], ids=["one output", "both in turns"])
def test_a_window_of_single_bytes_takes_little_memory(kinds: tuple[FrameType, ...]) -> None:
    stream = Stream(1, lambda data: None)
    tracemalloc.start()
    try:
        for number in range(WINDOW):
            stream.on_data(kinds[number % len(kinds)], b"x")
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 2 << 20


@given(PIECES)
def test_pieces_come_out_in_the_order_that_they_came_in(pieces: list[tuple[FrameType, int]]) -> None:
    sent = [(kind, bytes([number % 256]) * size) for number, (kind, size) in enumerate(pieces)]
    backlog, taken = Backlog(), []
    for kind, payload in sent:
        backlog.add(kind, payload)
    while backlog:
        taken.append(backlog.take())
    assert _runs(taken) == _runs(sent)


def _runs(pieces: list[tuple[FrameType, bytes]]) -> list[tuple[FrameType, bytes]]:
    """Neighbours of one kind as one."""
    runs: list[tuple[FrameType, bytes]] = []
    for kind, payload in pieces:
        if runs and runs[-1][0] is kind:
            payload = runs.pop()[1] + payload
        runs.append((kind, payload))
    return runs


def test_each_output_keeps_its_order_when_thousands_of_pieces_alternate() -> None:
    backlog = Backlog()
    for number in range(30_000):
        backlog.add(OUTPUTS[number % 2], bytes([number // 2 % 256]))
    taken: dict[FrameType, bytes] = dict.fromkeys(OUTPUTS, b"")
    while backlog:
        kind, payload = backlog.take()
        taken[kind] += payload
    assert all(payload == bytes(number % 256 for number in range(15_000)) for payload in taken.values())


def test_bytes_behind_an_offset_stay_behind_it() -> None:
    backlog = Backlog()
    for kind, payload in [(FrameType.DATA, b"a"), (FrameType.AT, bytes(9)), (FrameType.DATA, b"b")]:
        backlog.add(kind, payload)
    assert [backlog.take() for _ in range(3)] == [
        (FrameType.DATA, b"a"),
        (FrameType.AT, bytes(9)),
        (FrameType.DATA, b"b"),
    ]


def test_offsets_without_end_break_the_protocol() -> None:
    stream = Stream(1, lambda data: None)
    with pytest.raises(GuestError, match="offsets"):
        for _ in range(WINDOW):
            stream.on_data(FrameType.AT, b"\1")


def test_credit_for_nothing_breaks_the_protocol() -> None:
    with pytest.raises(GuestError, match="no bytes"):
        Stream(1, lambda data: None).on_credit(0)


EMPTY = encode_fields([(255, b"nothing that anybody asked for")])
ENTRY = encode_fields([(ResultKey.ENTRY, encode_fields([(EntryKey.NAME, b"name"), (EntryKey.TYPE, b"-")]))])


@pytest.mark.parametrize(
    "payload", [EMPTY, ENTRY + encode_fields([(255, bytes(32_000))])], ids=["no entries", "more bytes than a list has"]
)
async def test_a_list_without_end_is_broken_off(payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandastack.guest.files.BYTES_MAX", 1 << 20)
    async with fake_guest() as (channel, theirs), anyio.create_task_group() as group:
        group.start_soon(flood, theirs, encode(FrameType.DATA, 1, payload), 200)
        with anyio.fail_after(30), pytest.raises(GuestError, match="list is too long or malformed"):
            await channel.list("/")
        group.cancel_scope.cancel()


async def test_data_where_none_belongs_is_broken_off() -> None:
    async with fake_guest() as (channel, theirs):
        theirs.sendall(encode(FrameType.DATA, 1, b"x"))
        with pytest.raises(GuestError, match="unrequested data"):
            await channel.stat("/")


async def test_a_flood_of_small_frames_leaves_the_loop_to_others() -> None:
    """Another guest answers a ping while one sends single bytes as fast as it can: the ping is not late by much."""
    small = encode(FrameType.DATA, 1, b"x") * 2000
    async with fake_guest() as (flooded, flooder), fake_guest() as (quick, other), anyio.create_task_group() as group:
        group.start_soon(flood, flooder, small, None)
        group.start_soon(answer_pings, other)
        group.start_soon(read_all, flooded)
        await anyio.sleep(0.2)
        began = time.thread_time()  # the loop's own work: whether the host had time for it is another question
        for _ in range(20):
            await quick.ping()
        worked = time.thread_time() - began
        group.cancel_scope.cancel()
    # Unpaced, each receive of 256 KiB (26,000 frames) holds the loop for some 50 ms: seconds in all. Paced: 0.06 s.
    assert worked < 0.75


async def read_all(channel: Channel) -> None:
    async with channel.exec(ExecRequest(cmd="flood")) as process:
        async for _ in process.output():
            pass


async def answer_pings(theirs: socket.socket) -> None:
    while data := await anyio.to_thread.run_sync(theirs.recv, 4096, abandon_on_cancel=True):
        theirs.sendall(encode(FrameType.PONG) * data.count(encode_to_guest(FrameType.PING)))


async def flood(theirs: socket.socket, data: bytes, times: int | None) -> None:
    """Send as often, or until cancelled; reads nothing, for nothing limits what a hostile guest may send."""
    theirs.setblocking(False)
    with contextlib.suppress(anyio.BrokenResourceError):
        async with await UNIXSocketStream.from_socket(theirs.dup()) as stream:
            while times is None or times > 0:
                times = None if times is None else times - 1
                await stream.send(data)
