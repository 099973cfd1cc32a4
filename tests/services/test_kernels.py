"""What a guest's kernels may say, and what of it is believed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError, GuestError, NotFoundError, PandastackError, QuotaError, ServerError
from pandastack.services.code import guest_answers

GOOD = {
    "stdout": "out",
    "stderr": "",
    "exit": 0,
    "error": None,
    "results": [{"text/plain": "1", "image/png": "iVBOR"}],
    "duration_ms": 3,
    "cells": 1,
    "timed_out": False,
    "restarted": False,
}
SESSION = {"id": "0f-1", "language": "python", "created_at": 1.5, "cells": 0}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_lines_however_they_are_cut() -> None:
    assert [each async for each in guest_answers.lines(pieces(b"a", b"b\nc", b"", b"d\n\ne"))] == [b"ab", b"cd", b""]
    with pytest.raises(GuestError, match="too long"):
        assert [each async for each in guest_answers.lines(pieces(b"x" * 50, b"y" * 51), most=100)]


def test_what_is_well_formed_comes_through() -> None:
    made = guest_answers.execution(GOOD)
    assert (made.stdout, made.exit, made.results) == ("out", 0, [{"text/plain": "1", "image/png": "iVBOR"}])
    assert guest_answers.session(SESSION) == guest_answers.Session("0f-1", "python", 1.5, 0)
    shown = {"name": "x", "type": "int", "shape": None, "repr": "1"}
    assert guest_answers.variables({"variables": [shown, shown | {"shape": [3, 2]}]})[1]["shape"] == [3, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"stdout": 5},
        {"stdout": None},
        {"error": ["x"]},
        {"exit": "0"},
        {"exit": True},
        {"exit": -1},
        {"exit": 2**60},
        {"duration_ms": 1.5},
        {"results": "none"},
        {"results": [5]},
        {"results": [{"text/plain": 5}]},
        {"results": [{}] * 10_001},
        {"results": [{"text/plain": "x" * guest_answers.RESULTS_MAX}, {"text/plain": "x"}]},
    ],
    ids=str,
)
def test_what_is_not_is_an_error_of_the_guest(change: dict[str, Any]) -> None:
    with pytest.raises(GuestError):
        guest_answers.execution(GOOD | change)


@pytest.mark.parametrize(
    "change",
    [{"id": "../x"}, {"id": 5}, {"id": "a" * 65}, {"language": "cobol"}, {"language": []}, {"cells": -1}]
    + [{"created_at": value} for value in ("now", float("inf"), float("nan"), -1, 1e300, None)],
    ids=str,
)
def test_a_session_that_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(GuestError):
        guest_answers.session(SESSION | change)


def test_results_keep_only_what_is_a_type() -> None:
    made = guest_answers.execution(
        GOOD | {"results": [{"type": "x", "text/html": "<b>", "a\nb/c": "y", "a" * 99 + "/b": "z"}]}
    )
    assert made.results == [{"text/html": "<b>"}]


def test_text_that_no_utf8_can_carry_is_replaced() -> None:
    made = guest_answers.execution(json.loads(json.dumps(GOOD | {"stdout": "a\ud800b", "error": "\udfff"})))
    assert (made.stdout, made.error) == ("a?b", "?")
    assert (
        len(guest_answers.execution(GOOD | {"stdout": "x" * (guest_answers.TEXT_MAX + 5)}).stdout)
        == guest_answers.TEXT_MAX
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [("not_found", NotFoundError), ("too_many", QuotaError), ("missing", BadRequestError), ("??", ServerError)],
)
def test_refusals_become_our_errors(code: str, kind: type[PandastackError]) -> None:
    with pytest.raises(kind):
        guest_answers.parsed(json.dumps({"error": "no", "code": code}).encode())


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b'{"code": "x", "error": 5}'])
def test_lines_that_are_no_answer(line: bytes) -> None:
    with pytest.raises(GuestError):
        guest_answers.parsed(line)


@pytest.mark.parametrize("shape", ["x", [-1], [1.5], [True], [1] * 65, {}, 5])
def test_shapes_that_are_none(shape: Any) -> None:
    answer = {"variables": [{"name": "x", "type": "t", "repr": "r", "shape": shape}]}
    assert guest_answers.variables(answer)[0]["shape"] is None


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = st.sampled_from([*GOOD, *SESSION]) | st.text()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_anything_else_is_an_error_of_the_guest_too(value: Any) -> None:
    for read in (guest_answers.execution, guest_answers.session, guest_answers.sessions, guest_answers.variables):
        with suppress(GuestError):
            read(value if isinstance(value, dict) else {"sessions": value, "variables": value})
