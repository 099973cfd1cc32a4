"""Output as text: nothing lost in silence, no character cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.contract.failures import Failure
from pandastack.contract.records import STDERR, STDOUT, ExecFailed, ExecResult, Output
from pandastack.errors import BadRequestError, CommandTimeoutError, ServerError
from pandastack.services.files.console import appended
from pandastack.services.processes.commands import failure_of
from pandastack.services.processes.output import OutputHead, OutputText
from pandastack.services.processes.spec import Command
from pandastack.services.settings import Settings


@given(st.lists(st.binary(max_size=30)), st.integers(0, 60))
def test_what_is_kept_is_the_beginning_and_what_is_dropped_is_counted(pieces: list[bytes], limit: int) -> None:
    kept, whole = OutputHead(limit), b"".join(pieces)
    for piece in pieces:
        kept.add(piece)
    assert kept.total == len(whole)
    assert kept.dropped == max(0, len(whole) - limit)
    if kept.dropped:
        assert kept.text().endswith(f"\n[pandastack: output truncated, {kept.dropped} of {len(whole)} bytes dropped]\n")
    else:
        assert kept.text() == whole.decode(errors="replace")


def test_the_cut_does_not_leave_half_a_character() -> None:
    kept = OutputHead(2)
    kept.add("aé!".encode())
    assert kept.text().startswith("a\n[pandastack")


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


@given(st.text(max_size=2000), st.text(max_size=200), st.integers(600, 4000))
def test_a_followed_console_shows_what_was_appended(before: str, new: str, window: int) -> None:
    whole = before + new
    if len(whole) <= window:
        assert appended(before[-window:], whole[-window:]) == new


def test_a_followed_console_goes_on_when_its_window_moved() -> None:
    text = "".join(f"line {n}\n" for n in range(1000))
    assert appended(text[1000:4000], text[1500:4500]) == text[4000:4500]
    assert appended("something else entirely", "restarted") == "restarted"


def test_settings_come_from_the_environment() -> None:
    env = {"PANDASTACK_DEFAULT_TTL_SECONDS": "60", "PANDASTACK_REAPER_INTERVAL_SECONDS": "0.5", "HOME": "/"}
    settings = Settings.from_env(env)
    assert (settings.default_ttl_seconds, settings.reaper_interval_seconds) == (60, 0.5)
    assert Settings.from_env({}) == Settings()


@pytest.mark.parametrize("text", ["x", "-1", "0", "nan", "inf", "1.5"])
def test_settings_that_make_no_sense_name_their_variable(text: str) -> None:
    with pytest.raises(BadRequestError, match="PANDASTACK_DEFAULT_TTL_SECONDS"):
        Settings.from_env({"PANDASTACK_DEFAULT_TTL_SECONDS": text})
