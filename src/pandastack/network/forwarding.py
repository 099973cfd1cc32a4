"""Routing between slots and the world: the host's switch for it, which all installations share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
_FILE = "forwarding"


@contextmanager
def forwarding(directory: Path, switch: Path = SWITCH) -> Iterator[bool]:
    """Have the host route while the block runs. The last of its users returns it to what it was, which a file in the
    ``directory`` that all share remembers. Yields whether it routed nothing before.

    The file is locked for each look and shared by its users: the kernel releases the locks of one that was killed.
    """
    path = directory / _FILE
    user = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    gate = os.open(directory / f"{_FILE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _locked(gate):
            remembered = os.pread(user, 16, 0).decode().strip()
            if not remembered:
                remembered = switch.read_text().strip()
                os.pwrite(user, f"{remembered}\n".encode(), 0)
            fcntl.flock(user, fcntl.LOCK_SH)
            if switch.read_text().strip() != "1":
                switch.write_text("1")
        try:
            yield remembered != "1"
        finally:
            with _locked(gate):
                if _is_last(user):
                    switch.write_text(remembered)
                    os.ftruncate(user, 0)
    finally:
        os.close(gate)
        os.close(user)


@contextmanager
def _locked(fd: int) -> Iterator[None]:
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _is_last(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
