"""Atomic writes, clones and sparse copies, on whatever file system the tests run."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from pandastack.errors import ServerError, StorageFullError
from pandastack.host import files
from pandastack.host.files import own_directory

MIB = 1024**2


def test_a_write_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat().st_ino
    files.write_atomically(path, b"two", mode=0o644)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o644)
    assert path.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "full").touch()
    with pytest.raises(ServerError, match="target"):
        files.write_atomically(tmp_path / "target", b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["target"]


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """64 MiB, of which two pieces hold data, one of them at the very end."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(10 * MIB)
        file.write(b"middle")
        file.seek(64 * MIB - 3)
        file.write(b"end")
    return path


def test_a_clone_is_equal_and_its_own(sparse: Path, tmp_path: Path) -> None:
    target = tmp_path / "clone"
    assert files.clone(sparse, target) == files.can_clone(tmp_path)
    assert target.read_bytes() == sparse.read_bytes()
    assert files.allocated_bytes(target) < MIB
    with target.open("r+b") as file:
        file.write(b"changed")
    assert sparse.read_bytes()[:7] == bytes(7)


def test_a_copy_without_reflink_keeps_the_holes(sparse: Path) -> None:
    """Between two file systems blocks cannot be shared."""
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == sparse.stat().st_dev:
        pytest.skip("there is no second file system to copy to")
    target = elsewhere / f"pandastack-test-{os.getpid()}"
    try:
        assert files.clone(sparse, target) is False
        assert target.read_bytes() == sparse.read_bytes()
        assert files.allocated_bytes(target) < MIB
    finally:
        target.unlink()


@pytest.mark.parametrize("size", [0, 1, 5 * MIB])
def test_files_without_holes_and_without_data(tmp_path: Path, size: int) -> None:
    (tmp_path / "full").write_bytes(os.urandom(size))
    files.clone(tmp_path / "full", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "full").read_bytes()
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(size)
    files.clone(tmp_path / "hole", tmp_path / "hole-copy")
    assert (tmp_path / "hole-copy").read_bytes() == bytes(size)


def test_the_data_of_a_sparse_file(sparse: Path) -> None:
    with sparse.open("rb") as file:
        ranges = files.data_ranges(file.fileno(), 64 * MIB)
    assert len(ranges) == 2
    assert ranges[0][0] <= 10 * MIB < ranges[0][1]
    assert ranges[1][1] == 64 * MIB


def test_a_clone_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ServerError):
        files.clone(tmp_path / "missing", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_asking_for_reflink_leaves_nothing(tmp_path: Path) -> None:
    files.can_clone(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_has_a_class_of_its_own() -> None:
    full = files.map_error(OSError(errno.ENOSPC, "No space left on device"), Path("/pool/machines/disk.img"))
    assert isinstance(full, StorageFullError) and full.status_code == 507
    assert "/pool/machines" in (full.hint or "")
    other = files.map_error(OSError(errno.EIO, "Input/output error"), Path("/pool/x"))
    assert not isinstance(other, StorageFullError)
    assert str(other) == "/pool/x: Input/output error"


def test_what_cannot_be_made_durable_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    files.make_durable(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    files.make_durable(tmp_path, contents=False)
    with pytest.raises(ServerError, match="gone"):
        files.make_durable(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_of_our_own(tmp_path: Path) -> None:
    own_directory(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700
    (tmp_path / "a" / "b").chmod(0o755)  # others could look, not write
    own_directory(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700
    (tmp_path / "link").symlink_to("a/b")
    own_directory(tmp_path / "link", links=True)


def test_a_directory_where_somebody_may_have_been_first_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "ours").mkdir(0o700)
    (tmp_path / "link").symlink_to("ours")
    (tmp_path / "file").touch()
    for name, said in {"open": "written to by other", "link": "not a directory", "file": "exists"}.items():
        with pytest.raises(ServerError, match=said):
            own_directory(tmp_path / name, hint="look")
    assert mode(tmp_path / "open") == 0o777


def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives directories away")
    (tmp_path / "theirs").mkdir(0o700)
    os.chown(tmp_path / "theirs", 65534, 65534)
    for links in (False, True):
        with pytest.raises(ServerError, match="belongs to user 65534, not to 0") as refused:
            own_directory(tmp_path / "theirs", links=links, hint="chown it")
        assert refused.value.hint == "chown it"
