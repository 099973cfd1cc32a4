from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import ServerError
from pandastack.snapshots import pages
from pandastack.snapshots.pages import CHUNK


def written(path: Path, content: dict[int, bytes]) -> Path:
    pages.write(path, [(offset, len(data)) for offset, data in content.items()], content.values())
    return path


@given(st.dictionaries(st.integers(0, 2**40), st.binary(min_size=1, max_size=64), max_size=8))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, content: dict[int, bytes]) -> None:
    path = written(tmp_path_factory.mktemp("pages") / "pages", content)
    assert dict(pages.read(path)) == content


def test_a_long_run_comes_in_pieces(tmp_path: Path) -> None:
    data = bytes(range(256)) * (CHUNK // 100)
    found = list(pages.read(written(tmp_path / "pages", {4096: data})))
    assert len(found) == 3
    assert [offset for offset, _ in found] == [4096, 4096 + CHUNK, 4096 + 2 * CHUNK]
    assert b"".join(piece for _, piece in found) == data


def test_there_may_be_none(tmp_path: Path) -> None:
    assert list(pages.read(tmp_path / "pages")) == []


@pytest.mark.parametrize("size", [0, 7, 16, 20, 40])
def test_a_file_that_is_not_whole(tmp_path: Path, size: int) -> None:
    path = written(tmp_path / "pages", {0: b"some", 8: b"more"})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ServerError, match="ends too early"):
        list(pages.read(path))


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(b"\0" * 64)
    with pytest.raises(ServerError, match="not a file of memory pages"):
        list(pages.read(path))
