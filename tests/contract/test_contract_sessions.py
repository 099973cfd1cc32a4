"""The frames of sessions: the same as in the agent, whole or cut anywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pandastack.contract.processes import TerminalSize
from pandastack.contract.sessions import (
    FRAME_MAX,
    SessionExit,
    SessionFailed,
    SessionFrame,
    SessionOutput,
    SessionParser,
    input_frames,
    resize_frame,
    signal_frame,
    start_frame,
)
from pandastack.errors import BadRequestError, ServerError

HEADER = Path(__file__).resolve().parents[2] / "guest-agent/src/services/session.h"


def test_the_kinds_are_those_of_the_agent() -> None:
    names = {"OUTPUT", "ERROR", "START", "INPUT", "INPUT_END", "SIGNAL", "RESIZE", "EXIT", "FAILED"}
    theirs = dict(re.findall(r"SESSION_(\w+) = (\d+)", HEADER.read_text()))
    assert {name: int(theirs[name]) for name in names} == {each.name: each.value for each in SessionFrame}


def test_frames_of_the_host() -> None:
    start = start_frame("ls", {"A": "b"}, TerminalSize(24, 80))
    assert start[0] == 1 and b"ls" in start and b"A=b" in start
    assert signal_frame(15) == b"\x04\1\0\0\0\x0f"
    assert resize_frame(TerminalSize(258, 80)) == b"\x05\4\0\0\0\2\1\x50\0"
    assert b"".join(frame[5:] for frame in input_frames(b"x" * 100_000)) == b"x" * 100_000


def test_what_does_not_fit_is_refused() -> None:
    for cmd, env in (("x" * FRAME_MAX, {}), ("a\0b", {}), ("a", {"B": "\0"})):
        with pytest.raises(BadRequestError):
            start_frame(cmd, env, None)


def test_frames_of_the_guest_cut_anywhere() -> None:
    data = b"\x10\3\0\0\0out" + b"\x11\0\0\0\0" + b"\x13\2\0\0\0no" + b"\x12\2\0\0\0\3\0"
    wanted = [SessionOutput(b"out"), SessionOutput(b"", error=True), SessionFailed("no"), SessionExit(3, 0)]
    for cut in range(len(data)):
        parser = SessionParser()
        assert [*parser.feed(data[:cut]), *parser.feed(data[cut:])] == wanted


@pytest.mark.parametrize("data", [b"\x10\xff\xff\xff\xff", b"\x12\1\0\0\0\0", b"\x63\0\0\0\0"])
def test_malformed_frames_are_refused(data: bytes) -> None:
    with pytest.raises(ServerError):
        list(SessionParser().feed(data))
