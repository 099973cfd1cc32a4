"""What a guest's search prints, taken apart: any bytes, in linear time and bounded memory."""

from __future__ import annotations

import re
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import GuestError
from pandastack.services.files.scripts import MISSING, plan_command
from pandastack.services.files.search import _FIND, _GREP, MatchParser

PIECE = 64 * 1024


def fed(data: bytes, *, with_lines: bool, piece: int = PIECE) -> list[dict[str, Any]]:
    parser = MatchParser(with_lines=with_lines)
    return [match for at in range(0, len(data), piece) for match in parser.feed(data[at : at + piece])]


def naive(data: bytes) -> Iterator[dict[str, Any]]:
    """Grep's matches, by a pattern that is slow and right."""
    at = 0
    while found := re.compile(rb"([^\0]*)\0([^:]*):([^\n]*)\n").match(data, at):
        at = found.end()
        if len(found[1]) < 4096:
            text = found[3].decode(errors="replace")[:1000]
            yield {"path": found[1].decode(errors="replace"), "line": int(found[2]), "text": text}


names = st.one_of(st.binary(min_size=1, max_size=20), st.sampled_from([b"n" * 4095, b"n" * 4096, b"n" * 9000]))
texts = st.one_of(st.binary(max_size=20), st.sampled_from([b"x" * 5000, "ü€😀".encode() * 700, b"\xff" * 3000]))
matches = st.tuples(
    names.map(lambda name: name.replace(b"\0", b"/")),
    st.integers(0, 10**17),
    texts.map(lambda text: text.replace(b"\n", b"")),
)


@given(st.lists(matches, max_size=6), st.integers(1, 5000))
def test_matches_are_those_of_a_naive_parser_wherever_they_are_cut(
    found: list[tuple[bytes, int, bytes]], piece: int
) -> None:
    data = b"".join(name + b"\0%d:" % number + text + b"\n" for name, number, text in found)
    assert fed(data, with_lines=True, piece=piece) == list(naive(data))
    names = b"".join(name + b"\0" for name, _, _ in found)
    expected = [name.decode(errors="replace") for name, _, _ in found if len(name) < 4096]
    assert [match["path"] for match in fed(names, with_lines=False, piece=piece)] == expected


@given(st.binary(max_size=200), st.integers(1, 50))
def test_nothing_but_matches_and_guest_errors_comes_of_any_bytes(data: bytes, piece: int) -> None:
    try:
        for match in fed(data, with_lines=True, piece=piece):
            assert match.keys() == {"path", "line", "text"}
    except GuestError:
        pass


@pytest.mark.parametrize("number", [b"", b"x", b"-1", b" 1", "٣".encode(), b"1" * 19, b"1" * 100_000])
def test_a_malformed_line_number_is_refused(number: bytes) -> None:
    with pytest.raises(GuestError, match="line number"):
        fed(b"name\0" + number + b":text\n", with_lines=True)


@pytest.mark.parametrize(
    ("data", "with_lines"),
    [
        (b"a" * (16 << 20), True),
        (b"a" * (16 << 20), False),
        (b"name\0001:" + b"x" * (8 << 20) + b"\n", True),
        (b"name\0" + b"1" * (8 << 20), True),
    ],
    ids=["no NUL", "no NUL, names only", "a long line", "a long number"],
)
def test_endless_fields_cost_neither_time_nor_memory(data: bytes, with_lines: bool) -> None:
    """A quadratic parser takes minutes for these, a linear one milliseconds."""
    tracemalloc.start()
    began = time.process_time()
    found = fed(data, with_lines=with_lines)
    spent = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 5
    assert peak < 8 * PIECE
    assert [match["text"] for match in found] in ([], ["x" * 1000])


def run(script: str, *arguments: str) -> tuple[int, bytes]:
    done = subprocess.run(["sh", "-c", plan_command(script, *arguments)], capture_output=True)
    return done.returncode, done.stdout


def test_the_guests_script_sends_only_the_part_of_a_line_that_is_shown(tmp_path: Path) -> None:
    (tmp_path / "minified.js").write_text("needle" + "x" * 1_000_000 + "\nsecond needle\n")
    (tmp_path / "a\nb").write_text("needle ü\n")
    (tmp_path / "binary").write_bytes(b"needle\0")
    status, output = run(_GREP, str(tmp_path), "*", "needle")
    assert status == 0 and len(output) < 20_000
    found = {(Path(each["path"]).name, each["line"], each["text"]) for each in fed(output, with_lines=True)}
    assert found == {
        ("minified.js", 1, "needle" + "x" * 994),
        ("minified.js", 2, "second needle"),
        ("a\nb", 1, "needle ü"),
    }


def test_the_guests_scripts_exit_with_what_went_wrong(tmp_path: Path) -> None:
    assert run(_GREP, str(tmp_path), "*", "no such text") == (0, b"")
    assert run(_GREP, str(tmp_path / "no"), "*", "x")[0] == MISSING
    assert run(_FIND, str(tmp_path / "no"), "*")[0] == MISSING
    status, _ = run(_GREP.replace("grep -rnIFZ", "grep --no-such-option"), str(tmp_path), "*", "x")
    assert status == 1
