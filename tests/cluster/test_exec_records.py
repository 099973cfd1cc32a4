from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.cluster.exec_records import (
    AT,
    RESULT,
    STDERR,
    STDOUT,
    ExecResult,
    Output,
    OutputOffset,
    RecordParser,
    StillRunning,
)
from pandastack.errors import ServerError
from tests.cluster.scripted_engine import record, result

PIECES = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=50)), max_size=8)


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 400), max_size=8))
def test_records_survive_any_cutting(pieces: list[tuple[int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(record(kind, data) for kind, data in pieces) + result(7)
    borders = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    parser = RecordParser()
    found = [r for a, b in pairwise(borders) for r in parser.feed(wire[a:b])]
    assert found == [Output(kind, data) for kind, data in pieces] + [ExecResult(7, 1500)]


@given(st.binary(max_size=200))
def test_garbage_gives_records_or_a_server_error(data: bytes) -> None:
    try:
        assert all(isinstance(r, Output | ExecResult) for r in RecordParser().feed(data))
    except ServerError as error:
        assert "malformed" in error.message


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"{}", b'{"exit_code": "x"}', b"\xff"])
def test_a_malformed_result_is_a_server_error(payload: bytes) -> None:
    with pytest.raises(ServerError):
        list(RecordParser().feed(record(3, payload)))


def test_a_length_beyond_reason_is_refused_before_it_is_buffered() -> None:
    with pytest.raises(ServerError):
        list(RecordParser().feed(b"\x01\xff\xff\xff\xff"))


def test_offsets_and_an_end_that_is_not_the_processs() -> None:
    parser = RecordParser()
    data = record(AT, bytes([STDERR]) + (1 << 40).to_bytes(8, "little")) + record(RESULT, b'{"running": true}')
    assert list(parser.feed(data)) == [OutputOffset(STDERR, 1 << 40), StillRunning()]
    with pytest.raises(ServerError):
        list(RecordParser().feed(record(AT, b"short")))
