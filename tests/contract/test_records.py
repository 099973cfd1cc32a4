"""Records of a command's output: encoded and parsed, cut anywhere."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.contract.records import (
    KEEP_ALIVE,
    STDERR,
    STDOUT,
    ExecFailed,
    ExecResult,
    Output,
    OutputOffset,
    Record,
    RecordKind,
    RecordParser,
    StillRunning,
    encode_record,
)
from pandastack.errors import ServerError
from tests.contract.messages import values

RECORDS = st.one_of(
    st.builds(Output, st.sampled_from([STDOUT, STDERR]), st.binary(max_size=50)),
    st.builds(OutputOffset, st.sampled_from([STDOUT, STDERR]), st.integers(0, (1 << 64) - 1)),
    values(ExecResult),
    values(ExecFailed),
    st.just(StillRunning()),
)


def raw(kind: int, payload: bytes) -> bytes:
    return struct.pack("<BI", kind, len(payload)) + payload


@given(st.lists(RECORDS, max_size=8), st.lists(st.integers(0, 400), max_size=8))
def test_records_survive_any_cutting(records: list[Record], cuts: list[int]) -> None:
    wire = KEEP_ALIVE.join(map(encode_record, records)) + KEEP_ALIVE
    borders = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    parser = RecordParser()
    assert [record for a, b in pairwise(borders) for record in parser.feed(wire[a:b])] == records


@given(st.binary(max_size=200))
def test_garbage_gives_records_or_a_server_error(data: bytes) -> None:
    try:
        assert all(isinstance(record, Record) for record in RecordParser().feed(data))
    except ServerError as error:
        assert "malformed" in error.message


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"{}", b'{"exit_code": "x"}', b"\xff"])
@pytest.mark.parametrize("kind", [RecordKind.RESULT, RecordKind.FAILED])
def test_a_malformed_end_is_a_server_error(kind: int, payload: bytes) -> None:
    with pytest.raises(ServerError, match="malformed"):
        list(RecordParser().feed(raw(kind, payload)))


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (RecordKind.OFFSET, b"short"),
        (RecordKind.OFFSET, b"\x03" + bytes(8)),
        (RecordKind.STILL_RUNNING, b"x"),
        (max(RecordKind) + 1, b""),
    ],
)
def test_a_malformed_record_is_a_server_error(kind: int, payload: bytes) -> None:
    with pytest.raises(ServerError, match="malformed"):
        list(RecordParser().feed(raw(kind, payload)))


def test_a_length_beyond_reason_is_refused_before_it_is_buffered() -> None:
    with pytest.raises(ServerError):
        list(RecordParser().feed(b"\x01\xff\xff\xff\xff"))
