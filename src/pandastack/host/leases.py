"""Files and directories that exist while a process uses them.

Their users hold locks, flock(2), which the kernel releases when a process dies. What a killed process left behind can
therefore be told from what is in use, and removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FILE = os.O_RDWR | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def exclusive_file(path: Path) -> Iterator[bool]:
    """The file ``path``, used by this process alone and removed after the block; yields False if another uses it."""
    while True:
        fd = os.open(path, _FILE | os.O_CREAT, 0o600)
        try:
            taken = _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not taken or _is_at(path, fd):
                try:
                    yield taken
                finally:
                    if taken:
                        path.unlink(missing_ok=True)
                return
        finally:
            os.close(fd)


@contextmanager
def shared_directory(path: Path) -> Iterator[None]:
    """The directory ``path``, made if it is missing. Its last user removes it after the block, if it is empty."""
    fd = _enter(path)
    try:
        yield
    finally:
        if _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_at(path, fd):
            _remove_empty(path)
        os.close(fd)


def _enter(path: Path) -> int:
    while True:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            fd = os.open(path, _DIRECTORY)
            _lock(fd, fcntl.LOCK_SH)
            if _is_at(path, fd):
                return fd
            os.close(fd)


def remove_unused(path: Path, *, contents: bool = False) -> None:
    """Remove a file, or an empty directory, of this kind that a killed process left behind; with ``contents`` a
    directory that is not empty too."""
    with suppress(FileNotFoundError):
        fd = os.open(path, _DIRECTORY if path.is_dir() else _FILE)
        try:
            if _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_at(path, fd):
                if contents:
                    shutil.rmtree(path, ignore_errors=True)
                elif path.is_dir():
                    _remove_empty(path)
                else:
                    path.unlink()
        finally:
            os.close(fd)


def _remove_empty(path: Path) -> None:
    with suppress(OSError):  # it is not empty
        path.rmdir()


def _lock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, fd: int) -> bool:
    """Whether ``path`` still names the open file: a former user may have removed it before this lock was taken."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
