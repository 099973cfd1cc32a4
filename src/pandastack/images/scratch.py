"""Where trees of files are made: in memory when the host has plenty, else on the disk of temporary files."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

from pandastack.host.facts import available_memory_bytes, is_root
from pandastack.host.processes.run import run

_MEMORY = Path("/dev/shm")
_PREFIX = "pandastack-tree-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REMOVE = ("rm", "-rf", "--one-file-system")
"""Never delete through a mount that a killed mmdebstrap left behind."""


def enter() -> tuple[str, ...]:
    """What a program runs under that works on a tree. Outside root the tree belongs to sub-ids; inside this namespace
    they are seen as root and the rest."""
    return () if is_root() else ("mmdebstrap", "--unshare-helper")


@asynccontextmanager
async def scratch_tree(size: int) -> AsyncIterator[Path]:
    """Where a tree is made, with what is made for it some ``size`` bytes; nothing is there yet.

    Its parent is this block's, and open to the sub-ids of an unprivileged mmdebstrap. It is locked before it gets the
    name by which abandoned ones are found.
    """
    parent = _parent(size)
    await _remove_abandoned(parent)
    unlocked = Path(tempfile.mkdtemp(prefix="pandastack-", dir=parent))
    lock = os.open(unlocked, _DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scratch = unlocked.rename(parent / f"{_PREFIX}{secrets.token_hex(8)}")
        scratch.chmod(0o755)
        try:
            yield scratch / "tree"
        finally:
            with anyio.CancelScope(shield=True):
                await _remove(scratch)
    finally:
        os.close(lock)


def _parent(size: int) -> Path:
    """``/dev/shm`` if twice ``size`` is free there and in memory. Programs of the tree run in it."""
    try:
        memory = os.statvfs(_MEMORY)
    except OSError:
        return Path(tempfile.gettempdir())
    free = min(memory.f_bavail * memory.f_frsize, available_memory_bytes())
    fits = free > 2 * size and not memory.f_flag & os.ST_NOEXEC
    return _MEMORY if fits and os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())


async def _remove_abandoned(parent: Path) -> None:
    """Remove what killed processes left, whose locks are free: in memory it would stay until the next boot."""
    for left in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is in use, another process removes it, or it is another user's
            lock = os.open(left, _DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                await _remove(left)
            finally:
                os.close(lock)


async def _remove(scratch: Path) -> None:
    await run([*enter(), *_REMOVE, scratch / "tree"], check=False, timeout=120)
    await run([*_REMOVE, scratch], check=False, timeout=60)
