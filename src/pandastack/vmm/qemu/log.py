"""The output of a VMM. A guest can make it print for ever, so it goes through a pipe into a bounded file.

The VMM never waits for a reader: what does not fit into the pipe is lost. When the server dies the pipe has no reader.
QEMU ignores SIGPIPE, so it keeps running, and the next server opens the same pipe again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from io import FileIO
from pathlib import Path

import anyio

from pandastack.host.bounded_file import BoundedFile
from pandastack.host.tasks import beside

KEEP_BYTES = 64 * 1024
"""How many of the last bytes are retained at least."""

PIPE_BYTES = 64 * 1024
"""The capacity of a pipe (pipe(7)), and so the size of one read."""

PAUSE = 0.1
"""Seconds between two reads: a VMM that prints without end keeps neither the server nor the disk busy."""

_TAIL = 4096


def make_pipe() -> tuple[int, FileIO]:
    """The reading and the writing end of a new pipe."""
    receive, send = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return receive, FileIO(send, "w")


def reopen_pipe(pid: int) -> int:
    """The reading end of the pipe that the process ``pid`` prints into; of an empty pipe if that cannot be opened."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(f"/proc/{pid}/fd/2", flags)
    except OSError:
        return os.open(os.devnull, flags)


class Log:
    """The last :data:`KEEP_BYTES` (at most twice as many) of what comes out of a pipe."""

    def __init__(self, path: Path, pipe: int) -> None:
        self._file = BoundedFile(path, KEEP_BYTES)
        self._pipe = pipe

    def tail(self) -> str:
        """The last lines of output, including those still in the pipe."""
        with suppress(OSError):
            self._take()
        return self._file.tail(_TAIL).decode("utf-8", "replace").strip()

    async def follow(self) -> None:
        """Write the output to the file until the pipe's last writer is gone or the disk is full."""
        with suppress(OSError):
            await anyio.wait_readable(self._pipe)
            while self._take():
                await anyio.sleep(PAUSE)
                await anyio.wait_readable(self._pipe)

    def _take(self) -> bool:
        """One read; False at the end."""
        try:
            data = os.read(self._pipe, PIPE_BYTES)
        except BlockingIOError:
            return True
        if data:
            self._file.append(data)
        return bool(data)


@asynccontextmanager
async def following(path: Path, pipe: int) -> AsyncIterator[Log]:
    """The log at ``path``, fed from ``pipe``, which is closed with the block."""
    log = Log(path, pipe)
    try:
        async with beside(log.follow):
            yield log
    finally:
        os.close(pipe)
