"""Recipes that arrive as archives: unpacked when they are honest, refused by name when they are not."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from pandastack.engine.build import context_archive
from pandastack.engine.build.context_archive import unpack
from pandastack.errors import BadRequestError, TooLargeError
from pandastack.sdk.packing import pack_recipe


def packed(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    file.seek(0)
    return file


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_recipe_is_unpacked(tmp_path: Path, mode: str) -> None:
    unpack(packed((member("Dockerfile"), b"FROM base\n"), (member("a/b"), b"x"), mode=mode), tmp_path)
    assert (tmp_path / "Dockerfile").read_text() == "FROM base\n"
    assert (tmp_path / "a/b").read_text() == "x"


def test_a_packed_folder_is_the_archives_only_entry(tmp_path: Path) -> None:
    """So the recipe keeps the folder's name, which is the template's unless it has another."""
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "Dockerfile").write_text("FROM base\n")
    (tmp_path / "unpacked").mkdir()
    root = unpack(io.BytesIO(pack_recipe(tmp_path / "named")), tmp_path / "unpacked")
    assert root == tmp_path / "unpacked" / "named"
    assert [path.name for path in root.iterdir()] == ["Dockerfile"]


@pytest.mark.parametrize(
    "hostile",
    [
        member("../outside"),
        member("/etc/passwd2/../../../outside"),
        member("link", tarfile.SYMTYPE, "/etc"),
        member("link", tarfile.SYMTYPE, "../.."),
        member("hard", tarfile.LNKTYPE, "../outside"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda each: f"{each.name}-{each.type!r}",
)
def test_a_hostile_member_is_refused(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    folder = tmp_path / "recipe"
    folder.mkdir()
    with pytest.raises(BadRequestError, match="recipe"):
        unpack(packed((member("Dockerfile"), b"FROM base\n"), (hostile, b"")), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe"]


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="not a usable tar"):
        unpack(io.BytesIO(b"FROM base\n"), tmp_path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_archive, "ARCHIVE_MAX", 1000)
    with pytest.raises(TooLargeError):
        unpack(packed((member("a"), b"x" * 600), (member("b"), b"x" * 600)), tmp_path)
    monkeypatch.setattr(context_archive, "MEMBERS_MAX", 2)
    with pytest.raises(TooLargeError):
        unpack(packed(*((member(str(number)), b"") for number in range(3))), tmp_path)
