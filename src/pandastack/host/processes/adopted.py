"""A process that another process started, watched and ended by its pidfd, so that a reused pid is never hit."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio

from pandastack.errors import NotFoundError
from pandastack.host.processes.identity import ProcessIdentity, alive


class ForeignProcess:
    """A living process that is not our child. Only its parent can know its exit status."""

    returncode: int | None = None

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._waiting = anyio.Lock()

    async def wait(self) -> int | None:
        """Wait for its end. Several tasks may wait at once."""
        async with self._waiting:  # only one task at a time can wait for a descriptor
            await anyio.wait_readable(self._pidfd)
        return None

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


@asynccontextmanager
async def adopted(identity: ProcessIdentity) -> AsyncIterator[ForeignProcess]:
    """The process for as long as the block runs; it is killed at the block's end. Raises :class:`NotFoundError`."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError as error:
        raise NotFoundError(f"process {identity.pid} is gone") from error
    process = ForeignProcess(identity.pid, pidfd)
    try:
        if not alive(identity):
            raise NotFoundError(f"process {identity.pid} is gone")
        try:
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                process.kill()
                await process.wait()
    finally:
        os.close(pidfd)
