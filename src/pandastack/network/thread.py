"""Work in a network namespace: in a thread of its own, since a thread enters one for good (setns(2), unshare(2))."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

NETNS = Path("/run/netns")
"""Where named namespaces are, for us as for ip-netns(8)."""

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 4096, 2
_OWN = b"/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def run_in(netns: Path, work: Callable[[], T]) -> T:
    """What ``work`` returns, done in the namespace at ``netns``. Blocks. Raises :class:`OSError` when it is gone."""

    def enter() -> T:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(fd, _CLONE_NEWNET), netns)
        finally:
            os.close(fd)
        return work()

    return _in_own_thread(enter)


def run_in_new(netns: Path, work: Callable[[], T]) -> T:
    """The same in a new namespace, which gets the name ``netns``. When ``work`` fails, it is removed again."""

    def enter() -> T:
        _check(_libc.unshare(_CLONE_NEWNET), netns)
        _name(netns)
        try:
            return work()
        except BaseException:
            remove(netns)
            raise

    return _in_own_thread(enter)


def _name(netns: Path) -> None:
    netns.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.close(os.open(netns, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    try:
        _check(_libc.mount(_OWN, os.fsencode(netns), b"none", _MS_BIND, None), netns)
    except OSError:
        netns.unlink()
        raise


def remove(netns: Path) -> None:
    """Take a namespace's name away: it ends with the last process and descriptor in it. Does nothing if it is gone."""
    while _libc.umount2(os.fsencode(netns), _MNT_DETACH) == 0:
        pass  # another server may have mounted over it
    netns.unlink(missing_ok=True)


def _check(result: int, path: Path) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(path))


def _in_own_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
