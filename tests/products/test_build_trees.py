"""The normal form of trees: equal trees are equal bytes, whatever archive they came in."""

from __future__ import annotations

import hashlib
import io
import itertools
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError, TooLargeError
from pandastack.products.builds.trees import EntryKind, normalise_now, reverse, spool
from tests.products.archives import MOST, archive, in_pieces, member, normal, of_files


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_order_owners_times_and_modes_of_the_archive_do_not_matter(tmp_path: Path) -> None:
    one = archive(
        member("b", content=b"2", mtime=5, uid=7, uname="me", mode=0o600),
        member("a/x", content=b"1", mtime=9, mode=0o755),
    )
    other = archive(
        member("./a", tarfile.DIRTYPE, mode=0o700, mtime=1),
        member("./a/x", content=b"1", mode=0o711, gid=3, gname="us"),
        member("./b", content=b"2", mode=0o664),
    )
    first, second = normal(tmp_path, one, "one"), normal(tmp_path, other, "other")
    assert first[1].read_bytes() == second[1].read_bytes()
    assert first[0].sha256 == second[0].sha256 == hashlib.sha256(first[1].read_bytes()).hexdigest()
    assert names_in(first[1]) == ["a", "a/x", "b"]


@pytest.mark.parametrize(
    "other",
    [
        of_files({"a": b"2"}),
        of_files({"b": b"1"}),
        archive(member("a", content=b"1", mode=0o755)),
        archive(member("a", tarfile.SYMTYPE, linkname="1")),
        archive(member("a", tarfile.DIRTYPE)),
        of_files({"a": b"1", "b": b""}),
    ],
)
def test_every_difference_of_the_trees_is_one_of_their_bytes(tmp_path: Path, other: bytes) -> None:
    assert normal(tmp_path, of_files({"a": b"1"}), "one")[0].sha256 != normal(tmp_path, other, "other")[0].sha256


def test_members_have_the_normal_fields(tmp_path: Path) -> None:
    given_one = archive(
        member("run", content=b"#!", mode=0o4777, mtime=5, uid=4, uname="x"),
        member("l", tarfile.SYMTYPE, linkname="run"),
        member("d", tarfile.DIRTYPE),
    )
    tree, path = normal(tmp_path, given_one, time=77)
    with tarfile.open(path) as tar:
        found = [(each.name, each.mode, each.mtime, each.uid, each.gid, each.uname) for each in tar]
    assert found == [("d", 0o755, 77, 0, 0, ""), ("l", 0o777, 77, 0, 0, ""), ("run", 0o755, 77, 0, 0, "")]
    assert [(each.kind, each.executable, each.target) for each in tree.entries] == [
        (EntryKind.DIRECTORY, False, ""),
        (EntryKind.LINK, False, "run"),
        (EntryKind.FILE, True, ""),
    ]
    assert [each.name for each in tree.files] == ["run"]


def test_names_are_sorted_by_their_bytes(tmp_path: Path) -> None:
    names = ["a-b", "a", "a.b", "B", "é", "\udcff", "a/z", "Z" * 200]
    given_one = archive(*(member(name, tarfile.DIRTYPE if name == "a" else tarfile.REGTYPE) for name in names))
    found = names_in(normal(tmp_path, given_one)[1])
    assert found == sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))


def test_the_newest_time_is_that_of_a_file(tmp_path: Path) -> None:
    given_one = archive(
        member("d", tarfile.DIRTYPE, mtime=900), member("a", mtime=5), member("b", mtime=7.9), member("c", mtime=6)
    )
    assert normal(tmp_path, given_one)[0].newest == 7


def test_hard_links_are_files(tmp_path: Path) -> None:
    linked = archive(member("a", content=b"same"), member("z/b", tarfile.LNKTYPE, linkname="a"))
    first = normal(tmp_path, linked, "one")[0]
    assert first.sha256 == normal(tmp_path, of_files({"a": b"same", "z/b": b"same"}), "other")[0].sha256


def test_hard_links_do_not_multiply_content_beyond_the_limit(tmp_path: Path) -> None:
    content = bytes(MOST // 4)
    links = (member(f"b{number}", tarfile.LNKTYPE, linkname="a") for number in range(4))
    with pytest.raises(TooLargeError):
        normal(tmp_path, archive(member("a", content=content), *links))


def test_the_last_member_of_a_name_counts(tmp_path: Path) -> None:
    tree, path = normal(tmp_path, archive(member("a", content=b"old"), member("a", content=b"newer")))
    assert [(each.name, each.size) for each in tree.entries] == [("a", 5)]
    assert path.read_bytes()[tree.entries[0].offset :][:5] == b"newer"


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b")])
def test_nothing_lies_below_a_file(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(BadRequestError, match="not a directory"):
        normal(tmp_path, of_files(dict.fromkeys(names, b"")))


def test_a_file_below_a_link_is_refused(tmp_path: Path) -> None:
    given_one = archive(member("a/b"), member("a", tarfile.SYMTYPE, linkname="c"))
    with pytest.raises(BadRequestError, match="not a directory"):
        normal(tmp_path, given_one)


def test_entries_say_where_content_is(tmp_path: Path) -> None:
    content = {"a": b"x" * 700, "d/b": b"", "d/c": b"hello"}
    tree, path = normal(tmp_path, of_files(content))
    whole = path.read_bytes()
    assert {each.name: whole[each.offset : each.offset + each.size] for each in tree.files} == content
    assert {each.name: each.sha256 for each in tree.files} == {
        name: hashlib.sha256(data).hexdigest() for name, data in content.items()
    }


def test_reversing_twice_gives_the_same_and_once_the_opposite(tmp_path: Path) -> None:
    tree, path = normal(tmp_path, of_files({"a": b"1" * 600, "d/b": b"2", "é" * 60: b"3"}))
    back, again = tmp_path / "back.tar", tmp_path / "again.tar"
    reverse(path, back)
    reverse(back, again)
    assert names_in(back) == [each.name for each in reversed(tree.entries)]
    assert again.read_bytes() == path.read_bytes()
    assert normalise_now(back, tmp_path / "n.tar", 0, MOST).sha256 == tree.sha256


@given(
    st.dictionaries(
        st.text("abcäß.-_", min_size=1, max_size=12).filter(lambda name: name.strip(".")), st.binary(max_size=600)
    ),
    st.randoms(use_true_random=False),
)
def test_any_order_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], mixer: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("trees")
    mixed = list(files.items())
    mixer.shuffle(mixed)
    one, other = normal(folder, of_files(files), "one"), normal(folder, of_files(dict(mixed)), "other")
    assert one[1].read_bytes() == other[1].read_bytes()


@pytest.mark.anyio
async def test_what_arrives_is_made_safe(tmp_path: Path) -> None:
    target = tmp_path / "safe.tar"
    given_one = archive(member("a", content=b"1", mode=0o4755, uid=9), member("l", tarfile.SYMTYPE, linkname="/etc"))
    await spool(in_pieces(given_one), target, MOST, "source")
    with tarfile.open(target) as tar:
        assert [(each.name, each.mode, each.uid, each.linkname) for each in tar] == [
            ("a", 0o755, 0, ""),
            ("l", 0o644, 0, "/etc"),
        ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"no tar" * 200, "not a tar archive"),
        (of_files({"a": b"1" * 2000})[:1500], "too early"),
        (of_files({"../a": b"1"}), "outside"),
    ],
)
async def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        await spool(in_pieces(content), tmp_path / "x", MOST, "source")


@pytest.mark.anyio
async def test_devices_are_left_out(tmp_path: Path) -> None:
    await spool(in_pieces(archive(member("d", tarfile.CHRTYPE), member("f"))), tmp_path / "x", MOST, "source")
    assert [each.name for each in normalise_now(tmp_path / "x", tmp_path / "n", 0, MOST).entries] == ["f"]


@pytest.mark.anyio
async def test_an_archive_over_the_limit_is_refused_before_it_is_stored(tmp_path: Path) -> None:
    endless = itertools.repeat(bytes(1 << 16))

    async def source() -> object:
        for piece in endless:
            yield piece

    with pytest.raises(TooLargeError, match="source") as refused:
        head = io.BytesIO(of_files({"a": bytes(MOST - 100_000)}))

        async def both() -> object:
            yield head.getvalue()
            async for piece in source():  # type: ignore[attr-defined]
                yield piece

        await spool(both(), tmp_path / "x", MOST, "source")  # type: ignore[arg-type]
    assert refused.value.field == "source"
    assert (tmp_path / "x").stat().st_size <= MOST
