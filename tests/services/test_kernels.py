"""What a guest's kernels may say, and what of it is believed."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError, GuestError, NotFoundError, PandastackError, QuotaError, ServerError
from pandastack.in_guest.code.cells import Cell
from pandastack.services.code import guest_answers
from pandastack.services.output_budget import Lease, OutputBudget
from pandastack.services.settings import Settings

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


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.fixture
def lease() -> Lease:
    return OutputBudget(Settings()).lease("sandbox")


async def test_lines_however_they_are_cut(lease: Lease) -> None:
    cut = pieces(b"a", b"b\nc", b"", b"d\n\ne")
    assert [each async for each in guest_answers.lines(cut, lease)] == [b"ab", b"cd", b""]
    with pytest.raises(GuestError, match="too long"):
        assert [each async for each in guest_answers.lines(pieces(b"x" * 50, b"y" * 51), lease, most=100)]


async def test_lines_beyond_the_budget_are_refused() -> None:
    lease = OutputBudget(Settings(max_sandbox_buffer_bytes=100_000)).lease("sandbox")
    with pytest.raises(QuotaError, match="waiting to be fetched"):
        assert [each async for each in guest_answers.lines(pieces(*[b"x" * 5000] * 6), lease)]
    assert lease.size <= 100_000


COMPLEX = {
    "objects": b"{}",
    "nested": b'{"a":[1]}',
    "numbers": b"1",
    "strings": b'""',
    "odd quotes": b'"\\\\"',
    "escaped quotes": b'"\\""',
}


@pytest.mark.parametrize("item", COMPLEX.values(), ids=COMPLEX)
async def test_an_answer_of_many_values_is_refused_before_they_are_made(item: bytes, lease: Lease) -> None:
    size = guest_answers.ANSWER_MAX
    data = b'{"results":[' + (item + b",") * ((size - 20) // (len(item) + 1)) + b"1]}\n"
    assert size - 20 < len(data) <= size
    tracemalloc.start()
    with pytest.raises(GuestError, match="too many values"):
        async for line in guest_answers.lines(pieces(*(data[at : at + 65536] for at in range(0, size, 65536))), lease):
            guest_answers.parsed(line)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * size


@pytest.mark.parametrize("result", ["\0" * (2 << 20), "x" * (8 << 20), "é" * (400 << 10), "\0"])
@pytest.mark.parametrize("printed", [b"\0" * (2 << 20), b"x", b""])
def test_what_a_guests_cell_gives_always_fits(result: str, printed: bytes) -> None:
    cell = Cell()
    cell.stdout(printed)
    cell.stderr(printed)
    cell.error = "\0" * (1 << 20)
    cell.result({"text/plain": result})
    line = json.dumps({**cell.answer(), "duration_ms": 1, "cells": 1}).encode()
    assert len(line) <= guest_answers.ANSWER_MAX
    (shown,) = guest_answers.parsed_execution(line).results
    assert shown["text/plain"] in (result, "[pandastack: the results were dropped: too long as JSON]")
    assert shown["text/plain"] == result or 6 * len(result + 2 * printed.decode()[: 1 << 20]) > 14 << 20


@pytest.mark.parametrize("wait", [True, False])
def test_a_cell_that_clears_its_output_shows_what_comes_after(wait: bool) -> None:
    cell = Cell()
    cell.stdout(b"old\n")
    cell.result({"text/plain": "old"}, shown_as="d")
    cell.clear(wait)
    assert (cell.answer()["stdout"], len(cell.answer()["results"])) == (("old\n", 1) if wait else ("", 0))
    cell.stderr(b"new\n")
    cell.result({"text/plain": "late"}, shown_as="d", update=True)
    cell.result({"text/plain": "new"})
    answer = cell.answer()
    assert (answer["stdout"], answer["stderr"], answer["results"]) == ("", "new\n", [{"text/plain": "new"}])


def test_text_with_commas_and_brackets_is_no_structure() -> None:
    text = '"quoted", {"and": [1]}, \\" \\\\' * 60_000
    assert guest_answers.parsed_execution(json.dumps(GOOD | {"stdout": text}).encode()).stdout == text
    shown = {"name": "x", "type": "int", "shape": [1] * 64, "repr": "[" * 300}
    assert (
        len(guest_answers.variables(guest_answers.parsed(json.dumps({"variables": [shown] * 1000}).encode()))) == 1000
    )


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
