"""Output as text: nothing lost in silence, no character cut."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.contract.failures import Failure
from pandastack.contract.records import STDERR, STDOUT, ExecFailed, ExecResult, Output
from pandastack.errors import BadRequestError, CommandTimeoutError, QuotaError, ServerError
from pandastack.services.files.console import whole_lines
from pandastack.services.output_budget import OutputBudget
from pandastack.services.processes.commands import failure_of
from pandastack.services.processes.output import JsonText, OutputHead, OutputText, json_content
from pandastack.services.processes.spec import Command
from pandastack.services.settings import MIB, Settings


def head(limit: int, pieces: list[bytes], budget: OutputBudget | None = None) -> JsonText:
    made = OutputHead(limit, (budget or OutputBudget(Settings())).lease("sandbox"))
    for piece in pieces:
        made.add(piece)
    return made.finish()


@given(st.lists(st.binary(max_size=30)), st.integers(0, 60))
def test_what_is_kept_is_the_beginning_and_what_is_dropped_is_counted(pieces: list[bytes], limit: int) -> None:
    made, whole = head(limit, pieces), b"".join(pieces)
    assert made.total == len(whole)
    if not made.dropped:
        assert made.text() == whole.decode(errors="replace") and len(whole) <= limit
        return
    note = f"\n[pandastack: output truncated, {made.dropped} of {len(whole)} bytes dropped]\n"
    kept = made.text().removesuffix(note)
    assert made.text() == kept + note
    assert kept == whole[: len(whole) - made.dropped].decode(errors="replace")
    content = len(json_content(kept))
    assert len(whole) - made.dropped <= limit and content <= 2 * limit
    more = json_content(whole[: len(whole) - made.dropped + 4].decode(errors="replace"))
    assert len(whole) - made.dropped > limit - 4 or len(more) > 2 * limit - 6, "no more is dropped than must be"


def test_the_cut_does_not_leave_half_a_character() -> None:
    assert head(2, ["aé!".encode()]).text() == "a\n[pandastack: output truncated, 3 of 4 bytes dropped]\n"
    assert head(8, [b"a\xc3"]).text() == "a\ufffd"


@pytest.mark.parametrize(
    ("piece", "kept"), [(b"y\n", 9000), (b"\0", 3000), (b"\xff", 6000), ("é😀".encode(), 9000), (b'"\\', 9000)]
)
def test_text_is_kept_whole_and_of_bytes_that_json_makes_longer_less(piece: bytes, kept: int) -> None:
    made = head(9000, [piece * 9000])
    assert abs(made.total - made.dropped - kept) < 6
    assert len(made.content) < 18_100


def test_output_of_one_sandbox_and_of_all_fits_a_budget() -> None:
    budget = OutputBudget(Settings(max_sandbox_buffer_bytes=300_000, max_buffer_bytes=400_000))
    first, second, other = budget.lease("a"), budget.lease("a"), budget.lease("b")
    assert first.take(200_000) and not second.take(100_001) and second.take(50_000)
    assert other.take(100_000) and not other.take(50_001)
    with pytest.raises(QuotaError, match="waiting to be fetched"):
        budget.lease("a")
    with pytest.raises(QuotaError):
        budget.lease("c")
    first.close()
    first.close()
    assert second.take(200_000), "what was given back once is there once"
    assert not second.take(100_000)
    for each in (second, other):
        each.close()
    assert budget.lease("a").take(300_000)


def test_a_command_beyond_the_budget_keeps_less_and_says_so() -> None:
    budget = OutputBudget(Settings(max_sandbox_buffer_bytes=100_000))
    made = head(1_000_000, [b"x" * 60_000] * 3, budget)
    assert 95_000 < made.total - made.dropped <= 100_000
    assert made.text().endswith(f"{made.dropped} of 180000 bytes dropped]\n")


def test_each_piece_is_encoded_in_a_moment_and_long_output_takes_no_more_than_its_limit() -> None:
    """Neither a stream of single bytes nor one of control characters costs more than the bytes that are kept."""
    budget = OutputBudget(Settings())
    tracemalloc.start()
    made = OutputHead(4 * MIB, budget.lease("sandbox"))
    longest = 0.0
    for piece in (b"\0" * 65536, b"\xff" * 65536, b"x"):
        for _ in range(100_000 if len(piece) == 1 else 20):
            began = time.thread_time()
            made.add(piece)
            longest = max(longest, time.thread_time() - began)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * MIB and len(made.finish().content) <= 8 * MIB + 200
    assert longest < 1, "tracing and a busy machine make it slow, but nothing may grow with the whole"


@given(st.text(), st.lists(st.integers(0, 50)))
def test_streamed_text_is_the_text_however_it_is_cut(text: str, cuts: list[int]) -> None:
    data = text.encode(errors="replace")
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    decoder = OutputText()
    pieces = [decoder.feed(Output(STDOUT, data[a:b])) for a, b in pairwise(borders)]
    assert "".join(pieces) == data.decode()
    assert decoder.rest() == []


def test_an_unfinished_character_shows_at_the_end_of_its_own_stream() -> None:
    decoder = OutputText()
    assert decoder.feed(Output(STDERR, b"x\xc3")) == "x"
    assert decoder.feed(Output(STDOUT, b"y")) == "y"
    assert decoder.rest() == [(STDERR, "�")]


@pytest.mark.parametrize(
    ("limit", "message"),
    [(10, "command timeout after 10s"), (0.5, "command timeout after 0.5s"), (None, "command timeout")],
)
def test_a_timeout_is_an_error_that_says_timeout(limit: float | None, message: str) -> None:
    error = failure_of(ExecResult(137, timed_out=True), Command("x", limit))
    assert isinstance(error, CommandTimeoutError)
    assert error.message == message


def test_a_command_that_could_not_start_is_an_error_and_an_exit_code_is_none() -> None:
    error = failure_of(ExecFailed(Failure.of(ServerError("no shell"))), Command("x"))
    assert type(error) is ServerError
    assert failure_of(ExecResult(1), Command("x")) is None


async def followed(pieces: list[bytes], tail: int | None = None) -> list[str]:
    async def source() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [line async for line in whole_lines(source(), tail)]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tail", "first"),
    [(None, ["one\n", "two\n"]), (1, []), (2, ["two\n"]), (0, ["one\n", "two\n"]), (-1, ["one\n", "two\n"])],
)
async def test_a_followed_console_shows_whole_lines(tail: int | None, first: list[str]) -> None:
    pieces = [b"one\r\ntwo\r\nthr", b"ee\r", b"\n\xc3", b"\xbc", b"", b"\n\nlast"]
    assert await followed(pieces, tail) == [*first, "three\n", "ü\n", "\n", "last\n"]
    assert await followed([], tail) == []


@pytest.mark.anyio
async def test_a_followed_console_begins_with_little_and_holds_no_endless_line() -> None:
    lines = await followed([b"x" * 100_000, *[b"y" * 30_000] * 10, b"z\n"])
    assert len(lines[0]) < 100_000 and max(map(len, lines)) < 100_000
    assert "".join(lines).replace("\n", "") == "x" * 4096 + "y" * 300_000 + "z"


def test_settings_come_from_the_environment() -> None:
    env = {"PANDASTACK_DEFAULT_TTL_SECONDS": "60", "PANDASTACK_REAPER_INTERVAL_SECONDS": "0.5", "HOME": "/"}
    settings = Settings.from_env(env)
    assert (settings.default_ttl_seconds, settings.reaper_interval_seconds) == (60, 0.5)
    assert Settings.from_env({}) == Settings()


def test_trusted_proxies_are_addresses_and_networks() -> None:
    trusted = Settings.from_env({"PANDASTACK_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8,,::1"}).trusted_proxies
    assert list(map(str, trusted)) == ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]
    assert not Settings.from_env({"PANDASTACK_TRUSTED_PROXIES": ""}).trusted_proxies
    for text in ("*", "proxy.example", "10.0.0.1/8", "10.0.0.0/8;::1"):
        with pytest.raises(BadRequestError, match="PANDASTACK_TRUSTED_PROXIES must be addresses") as refusal:
            Settings.from_env({"PANDASTACK_TRUSTED_PROXIES": text})
        assert refusal.value.field == "PANDASTACK_TRUSTED_PROXIES"


@pytest.mark.parametrize("text", ["x", "-1", "0", "nan", "inf", "1.5"])
def test_settings_that_make_no_sense_name_their_variable(text: str) -> None:
    with pytest.raises(BadRequestError, match="PANDASTACK_DEFAULT_TTL_SECONDS"):
        Settings.from_env({"PANDASTACK_DEFAULT_TTL_SECONDS": text})
