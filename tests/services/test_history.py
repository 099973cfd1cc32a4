"""What ran since the last checkpoint, and when the next one is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.services.records.command_log import BURST_SECONDS, COMMANDS, SETTLE_SECONDS, CommandLog, Ran, one_line

BOX = "box"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def history(clock: Clock) -> CommandLog:
    return CommandLog(clock)


def run(history: CommandLog, *commands: str) -> None:
    for command in commands:
        history.began(BOX, command)
        history.ended(BOX)


def test_a_burst_settles_after_its_last_command(history: CommandLog, clock: Clock) -> None:
    assert history.settled_at(BOX) is None
    history.began(BOX, "first")
    assert history.settled_at(BOX) is None
    history.ended(BOX)
    assert history.settled_at(BOX) == clock.now + SETTLE_SECONDS
    clock.now += 0.1
    run(history, "second")
    assert history.settled_at(BOX) == clock.now + SETTLE_SECONDS


def test_neither_a_long_command_nor_an_endless_burst_puts_it_off_for_ever(history: CommandLog, clock: Clock) -> None:
    history.began(BOX, "serve for ever")
    run(history, "short")
    latest = clock.now + BURST_SECONDS
    assert history.settled_at(BOX) == latest
    for _ in range(100):
        clock.now += 0.1
        run(history, "again")
    assert history.settled_at(BOX) == latest


def test_what_begins_during_a_checkpoint_is_in_the_next(history: CommandLog) -> None:
    run(history, "one", "two")
    ran = history.attempt(BOX)
    assert ran == Ran(("one", "two"), 2)
    history.began(BOX, "three")
    history.recorded(BOX, ran)
    assert history.settled_at(BOX) is None
    history.ended(BOX)
    assert history.settled_at(BOX) is not None
    assert history.attempt(BOX) == Ran(("three",), 1)


def test_a_failed_checkpoint_is_not_tried_again_but_loses_nothing(history: CommandLog) -> None:
    run(history, "one")
    history.attempt(BOX)
    assert history.settled_at(BOX) is None
    run(history, "two")
    assert history.attempt(BOX) == Ran(("one", "two"), 2)


def test_only_the_last_are_kept_and_all_are_counted(history: CommandLog) -> None:
    run(history, *map(str, range(COMMANDS + 30)))
    ran = history.attempt(BOX)
    assert (ran.count, ran.commands) == (COMMANDS + 30, tuple(map(str, range(30, COMMANDS + 30))))
    run(history, "during")
    history.recorded(BOX, ran)
    assert history.attempt(BOX) == Ran(("during",), 1)


def test_a_rewind_and_an_end_forget(history: CommandLog) -> None:
    history.began(BOX, "one")
    history.undone(BOX)
    history.ended(BOX)
    assert history.attempt(BOX) == Ran()
    history.forget(BOX)
    history.ended(BOX)
    assert (history.settled_at(BOX), history.last(BOX)) == (None, "")


@given(st.text(max_size=500))
def test_text_of_callers_becomes_one_short_printable_line(text: str) -> None:
    shown = one_line(text)
    assert len(shown) <= 200 and shown.isprintable()
    shown.encode()


def test_escapes_are_readable() -> None:
    assert one_line("echo '\x1b[31mred'\nrm \ud800") == "echo '\\x1b[31mred'\\nrm \\ud800"
    assert one_line("größer 日本") == "größer 日本"
