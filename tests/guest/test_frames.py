"""The codec: round trips however the bytes are split, and hostile bytes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import GuestError
from pandastack.guest import frames
from pandastack.guest.frames import FROM_GUEST, Decoder, Frame
from pandastack.guest.keys import FrameType

guest_frames = st.builds(Frame, st.sampled_from(sorted(FROM_GUEST)), st.integers(0, 2**32 - 1), st.binary(max_size=300))
fields = st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=40)), max_size=20)


@given(st.lists(guest_frames, max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_frames_survive_any_split(sent: list[Frame], sizes: list[int]) -> None:
    data = b"".join(frames.encode(*frame) for frame in sent)
    decoder, got = Decoder(), []
    while data:
        size = sizes[len(data) % len(sizes)]
        got += list(decoder.feed(data[:size]))
        data = data[size:]
    assert got == sent


@given(fields)
def test_fields_round_trip(items: list[tuple[int, bytes]]) -> None:
    expected: dict[int, list[bytes]] = {}
    for key, value in items:
        expected.setdefault(key, []).append(value)
    assert frames.decode_fields(frames.encode_fields(items)) == expected


@given(st.binary(max_size=200))
def test_garbage_fields_are_a_guest_error_or_a_list(data: bytes) -> None:
    try:
        decoded = frames.decode_fields(data)
    except GuestError:
        return
    assert sum(5 + len(value) for values in decoded.values() for value in values) == len(data)


@given(st.binary(max_size=400))
def test_garbage_frames_are_a_guest_error_or_frames(data: bytes) -> None:
    try:
        got = list(Decoder().feed(data))
    except GuestError:
        return
    assert data.startswith(b"".join(frames.encode(*frame) for frame in got))


@pytest.mark.parametrize(
    "data",
    [
        (frames.PAYLOAD_MAX + 1).to_bytes(4, "little") + bytes([FrameType.DATA]) + bytes(4),
        frames.encode(FrameType.OPEN, 1),
        frames.encode(FrameType.PAD),
    ],
    ids=["too long", "a host's frame", "padding"],
)
def test_what_no_guest_sends_is_refused(data: bytes) -> None:
    with pytest.raises(GuestError):
        list(Decoder().feed(data))


@given(st.binary(max_size=500), st.integers(1, 40))
def test_resync_finds_the_answer_behind_any_tail(tail: bytes, size: int) -> None:
    nonce = os.urandom(frames.NONCE_SIZE)
    answer = frames.encode(FrameType.RESUMED, 0, frames.encode_fields([(1, nonce)]))
    after = frames.encode(FrameType.PONG)
    decoder = Decoder()
    decoder.resync(nonce)
    data = tail + answer + after
    got = [frame for at in range(0, len(data), size) for frame in decoder.feed(data[at : at + size])]
    assert [frame.type for frame in got] == [FrameType.RESUMED, FrameType.PONG]
