"""Untrusted archives, and what the filter makes of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandastack.errors import BadRequestError
from pandastack.services.files.tar_filter import MOST_MEMBERS, Outside, TarFilter, pax_records

FORMATS = pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
Change = Callable[[tarfile.TarInfo], object]


def member(name: str, content: bytes | None = None, **fields: object) -> tuple[tarfile.TarInfo, bytes | None]:
    info = tarfile.TarInfo(name)
    if content is not None:
        info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, None]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)[0], None


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, None]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)[0], None


def directory(name: str) -> tuple[tarfile.TarInfo, None]:
    return member(name, type=tarfile.DIRTYPE, mode=0o755)[0], None


def archive(*members: tuple[tarfile.TarInfo, bytes | None], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as made:
        for info, content in members:
            made.addfile(info, None if content is None else io.BytesIO(content))
    return buffer.getvalue()


def filtered(data: bytes, piece: int = 1 << 20, outside: Outside = Outside.REFUSE) -> bytes:
    one = TarFilter(outside)
    out = b"".join(one.feed(data[at : at + piece]) for at in range(0, len(data), piece))
    one.end()
    return out


def contents(data: bytes) -> dict[str, object]:
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        found: dict[str, object] = {}
        for each in opened:
            file = opened.extractfile(each) if each.isreg() else None
            found[each.name] = file.read() if file else each.linkname if each.issym() or each.islnk() else "directory"
        return found


NFC, NFD = "caf\u00e9", "cafe\u0301"
LONG = "/".join(["long" * 20] * 4) + "/ünïcode 🐼"


@FORMATS
@pytest.mark.parametrize("piece", [1, 7, 511, 512, 513, 1 << 20])
def test_an_honest_archive_passes(format: int, piece: int) -> None:
    name = LONG if format != tarfile.USTAR_FORMAT else "a/short/ü"
    data = archive(
        directory("."),
        directory("a"),
        member(f"./{name}", b"x" * 1500),
        member("a/empty", b""),
        member("a/block", bytes(range(256)) * 2),
        symlink("a/link", "../a/empty"),
        symlink("a/self", "."),
        hardlink("a/hard", "a/empty"),
        format=format,
    )
    assert contents(filtered(data, piece)) == {
        ".": "directory",
        "a": "directory",
        name: b"x" * 1500,
        "a/empty": b"",
        "a/block": bytes(range(256)) * 2,
        "a/link": "../a/empty",
        "a/self": ".",
        "a/hard": "a/empty",
    }


@given(
    st.dictionaries(
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=60).filter(
            lambda name: name not in (".", "..") and len(name.encode()) < 200
        ),
        st.binary(max_size=2000),
        max_size=6,
    ),
    st.integers(1, 3000),
)
@settings(max_examples=60, deadline=None)
def test_any_files_in_any_pieces(files: dict[str, bytes], piece: int) -> None:
    data = archive(*(member(name, content) for name, content in files.items()))
    assert contents(filtered(data, piece)) == files


@given(st.binary(max_size=5000))
@settings(max_examples=200, deadline=None)
def test_garbage_is_refused_and_breaks_nothing(data: bytes) -> None:
    with pytest.raises(BadRequestError):
        filtered(b"\x01" + data, 100)


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python has no rules of its own to compare with")
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_archive_never_becomes_a_harmful_one(data: st.DataObject) -> None:
    members = (member("a", b"1" * 600), symlink("l", "a"), member(LONG, b"x"))
    whole = bytearray(archive(*members, format=tarfile.GNU_FORMAT))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        out = filtered(bytes(whole))
    except BadRequestError:
        return
    with tarfile.open(fileobj=io.BytesIO(out)) as opened:
        for each in opened:
            tarfile.data_filter(each, "/nowhere")  # raises for what Python's own rules refuse


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([member("/etc/passwd", b"x")], "outside"),
        ([member("../x", b"x")], "outside"),
        ([member("a/../../x", b"x")], "outside"),
        ([member("a/..", b"x")], "outside"),
        ([directory("..")], "outside"),
        ([member("x" * 256, b"x")], "outside"),
        ([member("a/" * 2100 + "b", b"x")], "outside"),
        ([member(".", b"x")], "without a name"),
        ([symlink("l", "/etc/passwd")], "points outside"),
        ([symlink("l", "..")], "points outside"),
        ([symlink("a/l", "../../x")], "points outside"),
        ([symlink("a/l", "b/../../../x")], "points outside"),
        ([symlink("l", "")], "points outside"),
        ([symlink("a", "."), symlink("b", "a/..")], "points outside"),
        ([symlink("d/a", ".."), symlink("d/b", "a/..")], "points outside"),
        ([hardlink("h", "/etc/passwd")], "points outside"),
        ([hardlink("h", "../x")], "points outside"),
        ([hardlink("h", "not/there")], "points outside"),
        ([symlink("l", "a"), hardlink("h", "l")], "points outside"),
        ([directory("d"), symlink("l", "d"), member("l/x", b"x")], "behind a link"),
        ([symlink("l", "d"), member("l", b"x")], "behind a link"),
        ([symlink("l", "d"), directory("l")], "behind a link"),
        ([symlink("a/b/s", "../.."), symlink("a/b/s/l", "../../../x")], "behind a link"),
        ([symlink("L", "."), symlink("l/x", ".."), member("l/X/evil", b"x")], "behind a link"),
        ([symlink("a/Straße", "."), symlink("A/STRASSE/x", "..")], "behind a link"),
        ([symlink(NFC, "."), member(f"{NFD}/evil", b"x")], "behind a link"),
        ([symlink(NFD, "."), member(f"{NFC}/evil", b"x")], "behind a link"),
        ([symlink(NFD, "."), member(f"{NFC.upper()}/evil", b"x")], "behind a link"),
        ([symlink("l", "."), member("l\u200c/evil", b"x")], "behind a link"),
        ([symlink("l", "."), member("l. ./evil", b"x")], "behind a link"),
        ([symlink("l", "d"), member("L", b"x")], "behind a link"),
        ([member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "neither"),
        ([member("disk", type=tarfile.BLKTYPE)], "neither"),
        ([member("./pipe", type=tarfile.FIFOTYPE)], "neither"),
        ([member("odd", type=b"Z")], "neither"),
        ([member("s", b"x", pax_headers={"GNU.sparse.major": "1"})], "sparse"),
    ],
)
def test_a_hostile_member_is_refused_by_name(members: list[tuple[tarfile.TarInfo, bytes | None]], words: str) -> None:
    with pytest.raises(BadRequestError, match=words) as refused:
        filtered(archive(*members))
    assert refused.value.field == "member" and "tar member" in refused.value.message


def test_names_that_differ_in_case_only_are_other_files() -> None:
    data = archive(member("a", b"1"), member("A", b"2"), member("b/x", b"3"), symlink("B1", "a"), member("b2/x", b"4"))
    assert contents(filtered(data)) == {"a": b"1", "A": b"2", "b/x": b"3", "B1": "a", "b2/x": b"4"}


ODD = [directory("."), symlink("l", "/etc"), hardlink("h", "../x"), member("./pipe", type=tarfile.FIFOTYPE)]


def test_links_that_lead_out_may_be_left_out_and_are_reported() -> None:
    out = filtered(archive(*ODD, member("a", b"1"), symlink("ok", "a")), outside=Outside.SKIP)
    assert contents(out) == {".": "directory", "a": b"1", "ok": "a"}
    with tarfile.open(fileobj=io.BytesIO(out)) as opened:
        last = opened.getmembers()[-1]
    said = last.pax_headers["comment"].removeprefix("pandastack ")
    assert last.name == "." and json.loads(said) == {"skipped": 3, "names": ["l", "h", "pipe"]}
    with pytest.raises(BadRequestError, match="outside"):
        filtered(archive(member("/abs", b"x")), outside=Outside.SKIP)


def test_the_report_is_bounded() -> None:
    many = [symlink(f"{number:0200}", "/etc") for number in range(1000)]
    with tarfile.open(fileobj=io.BytesIO(filtered(archive(*many), outside=Outside.SKIP))) as opened:
        report = json.loads(opened.getmembers()[-1].pax_headers["comment"].removeprefix("pandastack "))
    assert report["skipped"] == 1000 and 100 < len(report["names"]) < 200


def test_links_that_lead_out_may_be_kept_and_nothing_goes_through_them() -> None:
    out = filtered(archive(*ODD, member("a", b"1"), symlink("d/up", "../../x")), outside=Outside.KEEP)
    assert contents(out) == {".": "directory", "l": "/etc", "a": b"1", "d/up": "../../x"}
    for hostile in (member("l/passwd", b"x"), member("L/passwd", b"x"), hardlink("h", "l")):
        with pytest.raises(BadRequestError, match="behind a link"):
            filtered(archive(symlink("l", "/etc"), hostile, member("l", b"x")), outside=Outside.KEEP)


@pytest.mark.parametrize("mode", list(Outside))
def test_an_odd_member_with_content_is_refused(mode: Outside) -> None:
    with pytest.raises(BadRequestError, match="neither"):
        filtered(archive(member("odd", b"x", type=tarfile.FIFOTYPE)), outside=mode)


def test_modes_and_owners_are_made_harmless() -> None:
    data = archive(member("suid", b"x", mode=0o6755, uid=1000, gid=1000, uname="me", gname="us", mtime=-5))
    with tarfile.open(fileobj=io.BytesIO(filtered(data))) as opened:
        info = opened.getmember("suid")
    assert (info.mode, info.uid, info.gid, info.uname, info.gname, info.mtime) == (0o755, 0, 0, "", "", 0)


def test_what_stands_in_padding_and_after_the_end_is_dropped() -> None:
    data = bytearray(archive(member("a", b"x"), format=tarfile.USTAR_FORMAT))
    data[513:1024] = b"s" * 511
    out = filtered(bytes(data) + b"secret" * 100)
    assert b"s" not in out[513:] and contents(out) == {"a": b"x"}


@pytest.mark.parametrize("data", [b"", archive(member("a", b"x" * 600))[:700], archive(member("a", b"x"))[:100]])
def test_an_archive_that_ends_too_early_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequestError, match=r"too early|not a tar archive"):
        filtered(data)


def test_a_pax_size_larger_than_the_header_says_is_taken() -> None:
    """Otherwise content could pose as headers."""
    inner = archive(member("../evil", b"x"))
    info, _ = member("file", None, pax_headers={"size": str(len(inner))})
    data = info.tobuf(tarfile.PAX_FORMAT) + inner + bytes(1024)
    assert contents(filtered(data)) == {"file": inner}


@pytest.mark.parametrize("content", [b"5 a=\n9", b"x", b"99 path=a\n", b"9 path=ab", b"0 path=a\n", b"6 path=a\n"])
def test_malformed_pax_headers_are_refused(content: bytes) -> None:
    with pytest.raises(BadRequestError, match="pax"):
        pax_records(content)


def test_there_is_a_most_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pandastack.services.files.tar_filter.MOST_MEMBERS", 3)
    assert MOST_MEMBERS == 200_000
    with pytest.raises(BadRequestError, match="more than 3 members"):
        filtered(archive(*(member(str(number), b"") for number in range(4))))
