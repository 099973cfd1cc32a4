"""What two builds made, compared byte for byte."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from pandastack.products.builds.compare import MOST_DIFFERENCES, Difference, DifferenceKind, compare
from tests.products.archives import archive, member, normal, of_files


def differences(folder: Path, one: bytes, other: bytes) -> tuple[Difference, ...]:
    return compare(*normal(folder, one, "one"), *normal(folder, other, "other"))


def test_the_same_has_no_differences(tmp_path: Path) -> None:
    files = {"a": b"1", "d/b": b"2"}
    assert differences(tmp_path, of_files(files), of_files(dict(reversed(files.items())))) == ()


@pytest.mark.parametrize(
    ("one", "other", "offset"),
    [
        (b"abc", b"abd", 2),
        (b"xbc", b"ybc", 0),
        (b"abc", b"abcd", 3),
        (b"", b"a", 0),
        (bytes(1 << 19) + b"a", bytes(1 << 19) + b"b", 1 << 19),
    ],
)
def test_the_first_differing_byte_is_named(tmp_path: Path, one: bytes, other: bytes, offset: int) -> None:
    (found,) = differences(tmp_path, of_files({"p": b"x", "f": one}), of_files({"p": b"x", "f": other}))
    assert found == Difference("f", DifferenceKind.CONTENT, len(one), len(other), offset)


def test_a_difference_behind_the_first_piece_has_its_own_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandastack.products.builds.trees._PIECE", 16)
    one, other = bytes(100), bytes(70) + b"x" + bytes(29)
    (found,) = differences(tmp_path, of_files({"f": one}), of_files({"f": other}))
    assert found.offset == 70


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (member("a"), None, Difference("a", DifferenceKind.MISSING, 0, None)),
        (None, member("a", content=b"12"), Difference("a", DifferenceKind.ADDED, None, 2)),
        (member("a"), member("a", tarfile.DIRTYPE), Difference("a", DifferenceKind.TYPE, 0, 0)),
        (member("a", mode=0o755), member("a"), Difference("a", DifferenceKind.MODE, 0, 0)),
        (
            member("a", tarfile.SYMTYPE, linkname="x"),
            member("a", tarfile.SYMTYPE, linkname="y"),
            Difference("a", DifferenceKind.TARGET),
        ),
    ],
)
def test_what_is_no_content_differs_too(
    tmp_path: Path,
    one: tuple[tarfile.TarInfo, bytes] | None,
    other: tuple[tarfile.TarInfo, bytes] | None,
    expected: Difference,
) -> None:
    both = member("same", content=b"x")
    given = [archive(both, *([] if each is None else [each])) for each in (one, other)]
    assert differences(tmp_path, *given) == (expected,)


def test_differences_are_sorted_and_at_most_so_many(tmp_path: Path) -> None:
    names = [f"f{number:04}" for number in range(MOST_DIFFERENCES + 50)]
    found = differences(tmp_path, of_files(dict.fromkeys(names, b"1")), of_files(dict.fromkeys(names, b"2")))
    assert [each.path for each in found] == names[:MOST_DIFFERENCES]


def test_names_that_are_not_text_are_reported_as_text(tmp_path: Path) -> None:
    (found,) = differences(tmp_path, of_files({"\udcff": b"1"}), of_files({"\udcff": b"2"}))
    assert found.path == "\ufffd"
