"""The search of a memory, with the real grep."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pandastack.errors import ServerError
from pandastack.snapshots import pages
from pandastack.snapshots.manifest import Snapshot
from pandastack.snapshots.pages import CHUNK
from pandastack.snapshots.search import search, search_snapshot, stored

KEY, OTHER, LINE = b"sk-live-0123456789", b"not in any memory", b"first line\tof \xff\xfe bytes"


def sparse(path: Path, size: int, content: dict[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in content.items():
            file.seek(offset)
            file.write(data)
    return path


class Captured(Snapshot):
    """A snapshot as far as its memory goes."""

    def __init__(self, directory: Path) -> None:
        object.__setattr__(self, "directory", directory)


def test_what_is_in_a_memory_is_found_wherever_it_lies(tmp_path: Path) -> None:
    sparse(tmp_path / "memory", 64 << 20, {0: KEY, (40 << 20) + 77: LINE, (63 << 20): b"x" * 4096})
    assert search(stored(tmp_path / "memory"), [OTHER, LINE, KEY]) == [1, 2]
    assert search(stored(tmp_path / "memory"), [OTHER]) == []
    assert search(stored(tmp_path / "memory"), []) == []


@given(st.integers(1, len(KEY)), st.sampled_from([0, 1, 4096]))
@hypothesis_settings(max_examples=20, deadline=None)
def test_a_value_across_two_pieces(split: int, gap: int) -> None:
    pieces = [(0, b"a" * 100 + KEY[:split]), (100 + split + gap, KEY[split:] + b"b")]
    assert search(pieces, [KEY]) == ([0] if gap == 0 or split == len(KEY) else [])


def test_a_value_across_the_pieces_of_a_file(tmp_path: Path) -> None:
    sparse(tmp_path / "memory", 3 * CHUNK, {0: b"z" * CHUNK, CHUNK - 5: KEY, 2 * CHUNK - 3: KEY + b"z" * 4096})
    assert search(stored(tmp_path / "memory"), [KEY]) == [0]


def test_a_value_that_begins_another_one_is_found_too() -> None:
    values = [b"password", b"password-of-the-day", b"word-of-", b"password-of-the-night"]
    assert search([(0, b"is password-of-the-day!")], values) == [0, 1, 2]


def test_a_memory_full_of_the_value_and_one_without_a_line_end() -> None:
    pieces = [(n * CHUNK, KEY * (CHUNK // len(KEY)) + b"y" * (CHUNK % len(KEY))) for n in range(4)]
    assert search(pieces, [OTHER, KEY]) == [1]
    assert search([(n * CHUNK, b"y" * CHUNK) for n in range(8)], [b"y" * 16, KEY]) == [0]


def test_a_snapshot_beside_its_template(tmp_path: Path) -> None:
    """Newer pages beside the template's memory, whose own words are told apart."""
    sparse(tmp_path / "memory", 8 << 20, {4096: b"a common word", 8192: b"another word"})
    pages.write(tmp_path / "pages", [(0, 31)], [KEY.ljust(16, b"-") + b"a common word"])
    values = [KEY, b"a common word", OTHER, b"another word"]
    assert search_snapshot(Captured(tmp_path), None, values) == ((0, 1, 3), (1, 3))


def test_a_snapshot_with_an_image_of_its_own(tmp_path: Path) -> None:
    template = sparse(tmp_path / "template", 8 << 20, {0: b"a common word"})
    sparse(tmp_path / "memory", 8 << 20, {0: b"a common word", 4096: KEY})
    values = [KEY, b"a common word"]
    assert search_snapshot(Captured(tmp_path), template, values) == ((0, 1), (1,))
    assert search_snapshot(Captured(tmp_path), None, values) == ((0, 1), ()), "the template is gone"


def test_what_cannot_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pages").write_bytes(b"PSPAGES1")
    sparse(tmp_path / "memory", 4096, {})
    with pytest.raises(ServerError, match="ends too early"):
        search_snapshot(Captured(tmp_path), None, [KEY])
    broken = tmp_path / "bin" / "grep"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    with pytest.raises(ServerError, match="grep ended with 2"):
        search([(0, KEY * CHUNK)], [KEY])
