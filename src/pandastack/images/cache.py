"""A content cache: files that are made once and found again by the hash of their inputs.

An entry is a directory ``root/kind/key``. It is made under another name and renamed when it is whole, so an
entry that exists is complete, and one process at a time makes it: the others wait and then find it ready.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from pandastack.errors import ServerError
from pandastack.host.files import map_error


def content_key(*parts: Any) -> str:
    """The SHA-256 (hex) of JSON-like ``parts``: the name of whatever these inputs, and nothing else,
    determine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Entry:
    """One cache entry during a lookup: its path when ``ready``, else the place to make it."""

    path: Path
    work: Path
    ready: bool

    def commit(self) -> None:
        """Turn ``work`` into the entry. After a crash the entry exists as a whole or not at all."""
        try:
            for file in sorted(self.work.rglob("*")):
                if file.is_file() and not file.is_symlink():
                    _flush(file)
            self.work.rename(self.path)
            _flush(self.path.parent)
        except OSError as error:
            raise map_error(error, self.path) from error


@dataclass(frozen=True)
class Cache:
    """The content cache under ``root``; safe to share between tasks and processes."""

    root: Path

    def find(self, kind: str, key: str) -> Path | None:
        """The entry's path, if it exists. Takes no lock: an existing entry is complete."""
        path = self.root / kind / key
        return path if _use(path) else None

    @asynccontextmanager
    async def entry(self, kind: str, key: str, waiting: Callable[[], None] = lambda: None) -> AsyncIterator[Entry]:
        """Look an entry up and, when it is missing, hold the only right to make it for the length of the
        block. ``waiting`` is called when another task or process makes it now, before the wait for that; what it
        raises ends the wait.

        Fill ``entry.work`` and call :meth:`Entry.commit`; a block that ends without a commit leaves nothing
        behind.
        """
        path = self.root / kind / key
        work = path.with_name(f".{key}.making")
        if _use(path):
            yield Entry(path, work, ready=True)
            return
        _make_directory(path.parent)
        lock = await _lock(path.with_name(f".{key}.lock"), waiting)
        try:
            if path.is_dir():  # another process made it while this one waited
                yield Entry(path, work, ready=True)
                return
            shutil.rmtree(work, ignore_errors=True)  # left by a killed process
            work.mkdir(mode=0o700)
            yield Entry(path, work, ready=False)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            os.close(lock)

    async def forget(self, kind: str, key: str) -> None:
        """Remove an entry, so that it is made anew; it may be missing."""
        path = self.root / kind / key
        _make_directory(path.parent)
        lock = await _lock(path.with_name(f".{key}.lock"))
        try:
            await anyio.to_thread.run_sync(_remove, path)
        finally:
            os.close(lock)

    @contextmanager
    def holding(self, *entries: Path) -> Iterator[None]:
        """While the block runs, :meth:`drop` leaves these existing entries alone, in any process."""
        with ExitStack() as stack:
            for path in entries:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_SH)
            yield

    def drop(self, kind: str, key: str) -> bool:
        """Remove an entry that nobody makes or holds now. Returns whether it is gone. Blocks."""
        path = self.root / kind / key
        with suppress(OSError), ExitStack() as stack:
            for each, flags in ((path.with_name(f".{key}.lock"), os.O_RDWR | os.O_CREAT), (path, os.O_RDONLY)):
                fd = os.open(each, flags | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        return not path.exists()

    def sweep(self) -> None:
        """Remove the unfinished entries of processes that were killed. Blocks."""
        for work in self.root.glob("*/.*.making"):
            with suppress(OSError), ExitStack() as stack:
                fd = os.open(work.with_suffix(".lock"), os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(work, ignore_errors=True)


def _remove(path: Path) -> None:
    """Remove the entry, whose lock is held. When it is interrupted the entry is gone as a whole."""
    doomed = path.with_name(f".{path.name}.making")
    shutil.rmtree(doomed, ignore_errors=True)
    if path.is_dir():
        path.rename(doomed)
        shutil.rmtree(doomed)


def _use(path: Path) -> bool:
    """Whether the entry exists. Its time of modification is the time of its last use."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:  # a read-only cache, or another user's
        return path.is_dir()
    return True


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise map_error(error, path) from error


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


async def _lock(path: Path, waiting: Callable[[], None] = lambda: None) -> int:
    """An open fd that holds the exclusive lock of ``path``; closing it releases the lock. ``waiting`` is called before
    a wait for it.

    A waiter may be cancelled while its thread still sleeps in flock(2): the thread then gives the lock back
    by itself.
    """
    guard, state = threading.Lock(), {"abandoned": False, "held": False}
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600)  # any user who can open it can lock it
    except OSError as error:
        raise map_error(error, path) from error
    with suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    try:
        waiting()
    except BaseException:
        os.close(fd)
        raise

    def acquire() -> int:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with guard:
            if state["abandoned"]:
                os.close(fd)
                raise ServerError("the wait for this lock was cancelled")
            state["held"] = True
        return fd

    try:
        return await anyio.to_thread.run_sync(acquire, abandon_on_cancel=True)
    except BaseException:
        with guard:
            state["abandoned"] = True
            if state["held"]:
                os.close(fd)
        raise
