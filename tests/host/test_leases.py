"""Files and directories in use by this process and by others, which are killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pandastack.host import leases
from pandastack.host.leases import exclusive_file, remove_unused, shared_directory

USE = """
import sys
from pathlib import Path
from pandastack.host import leases
with getattr(leases, sys.argv[1])(Path(sys.argv[2])) as taken:
    print(taken, flush=True)
    sys.stdin.read()
"""

Use = Callable[[str, Path], subprocess.Popen[bytes]]


@pytest.fixture
def use() -> Iterator[Use]:
    """Another process that uses a path."""
    started: list[subprocess.Popen[bytes]] = []

    def use(kind: str, path: Path) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", USE, kind, str(path)]
        started.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert started[-1].stdout and started[-1].stdout.readline() in (b"True\n", b"None\n")
        return started[-1]

    yield use
    for each in started:
        end(each)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_a_file_has_one_user(tmp_path: Path, use: Use) -> None:
    path = tmp_path / "file"
    other = use("exclusive_file", path)
    with exclusive_file(path) as taken:
        assert not taken
    remove_unused(path)
    assert path.exists()
    end(other)
    with exclusive_file(path) as taken:
        assert taken
        remove_unused(path)
        assert path.exists()
    assert not path.exists()


def test_a_directory_has_several_users_and_the_last_removes_it(tmp_path: Path, use: Use) -> None:
    path = tmp_path / "directory"
    other = use("shared_directory", path)
    with shared_directory(path):
        pass
    remove_unused(path)
    assert path.exists()
    with shared_directory(path):
        end(other)
        assert path.stat().st_mode & 0o777 == 0o700
    assert not path.exists()


def test_a_directory_with_something_in_it_stays(tmp_path: Path) -> None:
    with shared_directory(tmp_path / "directory"):
        (tmp_path / "directory" / "file").touch()
    remove_unused(tmp_path / "directory")
    assert (tmp_path / "directory" / "file").exists()


@pytest.mark.parametrize("kind", ["exclusive_file", "shared_directory"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, use: Use, kind: str) -> None:
    path = tmp_path / "left"
    end(use(kind, path))
    assert path.exists()
    remove_unused(path)
    assert not path.exists()
    remove_unused(path)


@pytest.mark.parametrize("use_here", [exclusive_file, shared_directory])
def test_what_its_former_user_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_here: Callable[[Path], AbstractContextManager[object]]
) -> None:
    """A former user holds the lock when another opens the path, and removes it before that one has the lock."""
    path, lock, removed = tmp_path / "path", leases._lock, list[Path]()

    def remove_first(fd: int, operation: int) -> bool:
        if not removed:
            removed.append(Path(f"/proc/self/fd/{fd}").readlink())
            path.rmdir() if path.is_dir() else path.unlink()
        return lock(fd, operation)

    monkeypatch.setattr(leases, "_lock", remove_first)
    with use_here(path):
        assert path.exists() and removed == [path]
        remove_unused(path)
        assert path.exists()
