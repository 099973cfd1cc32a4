"""Two lists of changes compared, and contents: pure."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.engine.compare.contents import PATCH_FILE_BYTES, PATCH_LINES, patch, same
from pandastack.engine.compare.diff import Change
from pandastack.engine.compare.listing import Difference, differences
from pandastack.engine.http.compare import diff_of, file_change
from pandastack.guest import Changed, Node

FILE = Node("-", 5, 0o100644, 0, 0, 100, 200, 7)
OTHER = replace(FILE, inode=8, mtime_ns=101, ctime_ns=201)
DIR = Node("d", 40, 0o040755, 0, 0, 1, 2, 3)
LINK = Node("l", 3, 0o120777, 0, 0, 1, 2, 4, target=b"old")
OF_TEMPLATE = replace(FILE, inode=99, mtime_ns=1, ctime_ns=1)

here, below = Changed(FILE, None), Changed(FILE, OF_TEMPLATE)
deleted, deleted_dir = Changed(None, OF_TEMPLATE), Changed(None, DIR)


def told(found: list[Difference]) -> list[tuple[str, str, tuple[str, ...], bool]]:
    return [(each.path.decode(), each.change, each.what, each.undecided) for each in found]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, here, ("added", (), False)),
        (here, None, ("removed", (), False)),
        (here, here, None),
        (below, None, ("changed", (), True)),
        (None, below, ("changed", (), True)),
        (None, deleted, ("removed", (), False)),
        (deleted, None, ("added", (), False)),
        (deleted, deleted, None),
        (deleted, below, ("added", (), False)),
        (here, Changed(OTHER, None), ("changed", (), True)),
        (here, Changed(replace(FILE, ctime_ns=201), None), ("changed", (), True)),
        (here, Changed(replace(OTHER, size=6), None), ("changed", ("content",), False)),
        (Changed(replace(FILE, size=0), None), Changed(replace(OTHER, size=0), None), None),
        (here, Changed(replace(OTHER, mode=0o100755), None), ("changed", ("mode",), True)),
        (here, Changed(replace(OTHER, uid=1, size=9), None), ("changed", ("content", "owner"), False)),
        (here, Changed(DIR, None), ("changed", ("kind",), False)),
        (None, Changed(DIR, DIR), None),
        (None, Changed(replace(DIR, mode=0o040700), DIR), ("changed", ("mode",), False)),
        (Changed(LINK, None), Changed(replace(LINK, inode=9), None), None),
        (Changed(LINK, None), Changed(replace(LINK, target=b"new"), None), ("changed", ("target",), False)),
    ],
)
def test_one_path(before: Changed | None, after: Changed | None, expected: tuple[object, ...] | None) -> None:
    one = {b"/p": before} if before else {}
    other = {b"/p": after} if after else {}
    assert told(differences(one, other)) == ([("/p", *expected)] if expected else [])


def test_a_file_of_the_template_and_one_of_the_guest_are_never_the_same_by_their_numbers() -> None:
    """The template's may have been replaced by another with its number."""
    assert differences({}, {b"/p": Changed(FILE, FILE)})[0].undecided


def test_what_a_deleted_directory_takes_along() -> None:
    one = {b"/d": Changed(DIR, DIR), b"/d/new": here, b"/d/old": below}
    other = {b"/d": deleted_dir}
    assert [each[:2] for each in told(differences(one, other))] == [
        ("/d", "removed"),
        ("/d/new", "removed"),
        ("/d/old", "removed"),
    ]
    assert [each[:2] for each in told(differences(other, one))] == [
        ("/d", "added"),
        ("/d/new", "added"),
        ("/d/old", "added"),
    ]


def test_what_a_directory_made_anew_hides() -> None:
    anew = {b"/d": Changed(DIR, DIR), b"/d/gone": deleted, b"/d/sub": Changed(DIR, DIR)}
    anew[b"/d/sub/gone"] = anew[b"/d/sub/more"] = deleted
    assert [each[:2] for each in told(differences({}, anew))] == [
        ("/d/gone", "removed"),
        ("/d/sub/gone", "removed"),
        ("/d/sub/more", "removed"),
    ]
    touched = {b"/d": Changed(DIR, DIR), b"/d/sub": Changed(DIR, DIR), b"/d/sub/more": below}
    assert [each[:2] for each in told(differences(touched, anew))] == [
        ("/d/gone", "removed"),
        ("/d/sub/gone", "removed"),
        ("/d/sub/more", "removed"),
    ]
    assert [each[:2] for each in told(differences({b"/d": deleted_dir}, anew))] == [
        ("/d", "added"),
        ("/d/sub", "added"),
    ]


nodes = st.sampled_from([FILE, OTHER, DIR, LINK])
paths = st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts))


@st.composite
def listings(draw: st.DrawFn) -> tuple[dict[bytes, Changed], dict[bytes, Changed]]:
    """Two lists that agree about what the template has."""
    known = draw(st.dictionaries(paths, st.sampled_from([None, OF_TEMPLATE, DIR])))

    def one() -> dict[bytes, Changed]:
        found = {}
        for path in draw(st.lists(st.sampled_from(sorted(known)), unique=True)) if known else []:
            now = draw(nodes if known[path] is None else st.one_of(st.none(), nodes))
            found[path] = Changed(now, known[path])
        return found

    return one(), one()


@given(listings())
def test_back_and_forth_are_mirror_images(both: tuple[dict[bytes, Changed], dict[bytes, Changed]]) -> None:
    one, other = both
    forth, back = differences(one, other), differences(other, one)
    assert [(each.path, each.before, each.after, each.what, each.undecided) for each in forth] == [
        (each.path, each.after, each.before, each.what, each.undecided) for each in back
    ]
    assert differences(one, one) == []


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.anyio
@pytest.mark.parametrize(("one", "other"), [(b"", b""), (b"abc" * 50, b"abc" * 50), (b"abc", b"abd"), (b"ab", b"abc")])
async def test_contents_are_compared_however_they_are_cut(one: bytes, other: bytes) -> None:
    for size, again in ((1, 1), (2, 7), (7, 2), (1000, 3)):
        assert await same(pieces(one, size), pieces(other, again)) is (one == other)


@pytest.mark.anyio
async def test_what_follows_a_difference_is_not_read() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10

    assert not await same(endless(), pieces(b"x" * 25 + b"y" + b"x" * 100, 10))


def test_a_patch_of_what_is_no_text_is_none() -> None:
    for data in (b"a\0b", b"\xff", b"x" * (PATCH_FILE_BYTES + 1), b"x\n" * (PATCH_LINES + 1)):
        assert patch(b"/p", b"a\n", data) is None
        assert patch(b"/p", data, None) is None


texts = st.text(st.sampled_from("ab\n\u2028\x0c"), max_size=30).map(str.encode)


@given(st.one_of(st.none(), texts), texts)
def test_a_patch_names_lines_only(before: bytes | None, after: bytes) -> None:
    made = patch(b"/p", before, after)
    assert made is not None
    assert made == "" or (made.startswith("--- ") and made.endswith("\n"))
    assert all(line[:1] in ("+", "-", " ", "@", "\\") for line in made.split("\n")[:-1])


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"one\ntwo\nthree", b"one\n2\nthree\n"), (None, b"new\n"), (b"a\n" * 40, b"a\n" * 20 + b"b\n" + b"a\n" * 20)],
)
def test_patch_can_apply_it(tmp_path: Path, before: bytes | None, after: bytes) -> None:
    if shutil.which("patch") is None:
        pytest.skip("this host has no patch")
    if before is not None:
        (tmp_path / "file").write_bytes(before)
    made = patch(b"/file", before, after)
    assert made is not None
    subprocess.run(["patch", "-p1", "--quiet"], input=made.encode(), cwd=tmp_path, check=True)
    assert (tmp_path / "file").read_bytes() == after


def test_odd_names_do_not_break_out_of_a_patch() -> None:
    made = patch(b"/x\n+++ b/etc/passwd\xff", b"", b"a\n")
    assert made is not None
    assert made.splitlines()[1] == '+++ "b/x\\012+++ b/etc/passwd\\377"'


def test_an_answer_is_bounded_and_counts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Change(Difference(b"/%d" % number, None, FILE)) for number in range(30)]
    monkeypatch.setattr("pandastack.engine.http.compare.CHANGES_MAX", 20)
    diff = diff_of(found)
    assert (len(diff.changes), diff.added, diff.truncated) == (20, 30, True)
    monkeypatch.setattr("pandastack.engine.http.compare.ANSWER_CHARACTERS", 15)
    assert 0 < len(diff_of(found).changes) < 10


def test_a_change_for_people() -> None:
    shown = file_change(Change(Difference(b"/bad\xff", LINK, replace(LINK, target=b"n\xfe"), ("target",)), unread=True))
    assert (shown.path, shown.kind, shown.change, shown.what) == ("/bad\\xff", "link", "changed", ("target",))
    assert shown.before is not None and shown.after is not None
    assert (shown.before.target, shown.after.target, shown.unread) == ("old", "n\\xfe", True)
    assert shown.after.mode == "lrwxrwxrwx"
