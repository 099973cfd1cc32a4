"""Archives: how they are told from other files, and the guest's program that unpacks them, carried out here."""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pandastack.errors import BadRequestError
from pandastack.images.actions import UnpackAction
from pandastack.images.archives import archive_program, arguments
from pandastack.images.copying import Ownership

Unpack = Callable[..., subprocess.CompletedProcess[bytes]]


def tar_of(**members: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.gid, member.mode = len(data), 12, 34, 0o4750
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


TAR = tar_of(a=b"content", b=b"more" * 10_000)
ZSTD = b"\x28\xb5\x2f\xfd" + b"anything"


@pytest.mark.parametrize(
    ("name", "data", "program"),
    [
        ("x", TAR, ""),
        ("x.txt", gzip.compress(TAR), "gzip"),
        ("x", bz2.compress(TAR), "bzip2"),
        ("x", lzma.compress(TAR), "xz"),
        ("x.TAR.zst", ZSTD, "zstd"),
        ("x.tzst", ZSTD, "zstd"),
        ("x", TAR[:512], ""),
        ("x", gzip.compress(TAR)[:30], None),
        ("x.zst", ZSTD, None),
        ("x.tar", b"", None),
        ("x.tar", b"text" * 1000, None),
        ("x.tar", TAR[:511], None),
        ("x.tar", bytes(10240), None),
        ("x.tar", TAR[:100] + b"?" + TAR[101:], None),
        ("x.tar.gz", gzip.compress(b"text" * 1000), None),
        ("x.tar.gz", gzip.compress(b""), None),
        ("x.tar.gz", b"\x1f\x8bdamaged", None),
        ("x.tar.bz2", b"BZhdamaged", None),
        ("x.tar.xz", b"\xfd7zXZ\x00damaged", None),
        ("x.tar.xz", lzma.compress(TAR, format=lzma.FORMAT_ALONE), None),
        ("x.tar.gz", gzip.compress(gzip.compress(TAR)), None),
    ],
    ids=lambda value: (
        "" if isinstance(value, bytes) else None
    ),  # gzip writes the time: each worker would have other names
)
def test_the_content_tells_an_archive(tmp_path: Path, name: str, data: bytes, program: str | None) -> None:
    (tmp_path / name).write_bytes(data)
    assert archive_program(tmp_path / name) == program


def test_an_archive_that_wants_much_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 * 1024 * 1024}]
    (tmp_path / "x").write_bytes(lzma.compress(TAR, filters=filters))
    with pytest.raises(BadRequestError, match="more than 128 MiB"):
        archive_program(tmp_path / "x")


def test_little_of_a_bomb_is_decompressed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(gzip.compress(bytes(100_000_000), 1))
    assert archive_program(tmp_path / "x") is None


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    def run(data: bytes, program: str = "", to: str = "made", owner: Ownership | None = None) -> object:
        action = UnpackAction("", 1, "", Path(), program, str(tmp_path / to), owner)
        return subprocess.run(arguments(action), input=data, capture_output=True, timeout=60)

    return run  # type: ignore[return-value]


COMPRESSED = {"": TAR, "gzip": gzip.compress(TAR), "bzip2": bz2.compress(TAR), "xz": lzma.compress(TAR)}


@pytest.mark.root
@pytest.mark.parametrize("program", list(COMPRESSED))
def test_archives_are_unpacked_with_their_owners(unpack: Unpack, tmp_path: Path, program: str) -> None:
    if program and not shutil.which(program):
        pytest.skip(f"this host has no {program}")
    done = unpack(COMPRESSED[program] + bytes(300_000 if not program else 0), program)
    assert done.returncode == 0, done.stderr
    status = (tmp_path / "made/a").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12, 34, 0o4750)
    assert (tmp_path / "made/b").read_bytes() == b"more" * 10_000


@pytest.mark.root
def test_an_owner_takes_the_place_of_the_archives(unpack: Unpack, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir(mode=0o751)
    done = unpack(TAR, owner=Ownership(5, 0, "", "root"))
    assert done.returncode == 0, done.stderr
    status = (tmp_path / "made/a").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (5, 0, 0o4750)
    assert sorted(each.name for each in (tmp_path / "made").iterdir()) == ["a", "b"]
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o751
    assert b"nobody-knows" in unpack(TAR, owner=Ownership(0, 0, "nobody-knows", "root")).stderr
    assert b"no such group: nobody-knows" in unpack(TAR, owner=Ownership(0, 0, "root", "nobody-knows")).stderr


@pytest.mark.root
def test_members_do_not_lead_out(unpack: Unpack, tmp_path: Path) -> None:
    done = unpack(tar_of(**{"../out": b"x", "in": b"y"}))
    assert done.returncode != 0 and not (tmp_path / "out").exists()
    absolute = str(tmp_path / "absolute")
    unpack(tar_of(**{absolute: b"x"}))
    assert not (tmp_path / "absolute").exists() and (tmp_path / "made" / absolute.lstrip("/")).exists()


def test_a_program_that_is_missing_is_named_with_its_package(unpack: Unpack) -> None:
    action = UnpackAction("", 1, "", Path(), "xz", "/x", None)
    words = ["no-such-program" if word == "xz" else word for word in arguments(action)]
    done = subprocess.run(words, input=b"", capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"needs no-such-program, which is not installed. Add before it: RUN apt-get install xz-utils" in done.stderr


@pytest.mark.root
def test_a_damaged_archive_is_an_error(unpack: Unpack) -> None:
    assert unpack(COMPRESSED["gzip"][:-30], "gzip").returncode != 0
    assert unpack(TAR[:700]).returncode != 0
