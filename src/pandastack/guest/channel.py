"""The channel with every operation that a guest offers, for the engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AbstractAsyncContextManager

from pandastack.contract.processes import ProcessRecord, Retention
from pandastack.guest import changes as changing
from pandastack.guest import exec as commands
from pandastack.guest import files, processes, tunnel, volumes
from pandastack.guest.changes import Listing
from pandastack.guest.connection import Connection
from pandastack.guest.exec import ExecRequest, Process
from pandastack.guest.files import FileEntry
from pandastack.guest.keys import Operation
from pandastack.guest.processes import View
from pandastack.guest.tunnel import Listener, Tunnel

_LONG_S = 600.0


class Channel(Connection):
    """``async with Channel(byte_stream) as channel``; then ``hello`` after a boot, ``resume``, and the operations.

    Errors are those of :mod:`pandastack.errors`; a :class:`~pandastack.errors.GuestError` may mean that the whole
    channel is closed (``check`` tells).
    """

    def exec(self, request: ExecRequest) -> AbstractAsyncContextManager[Process]:
        """Run a command; leaving the block early cancels it."""
        return commands.execute(self, request)

    def rehearse(self, request: ExecRequest) -> AbstractAsyncContextManager[Process]:
        """Run a command as :meth:`exec` does, beside programs that are frozen: they stay so. Agents of older releases
        refuse that."""
        return commands.execute(self, request, Operation.REHEARSE)

    async def start(self, request: ExecRequest) -> ProcessRecord:
        """Start a process with an id, to be viewed later."""
        return await processes.start(self, request)

    async def processes(self, process: str | None = None) -> tuple[list[ProcessRecord], Retention]:
        """The records of all processes with an id, or of one process."""
        return await processes.records(self, process)

    def attach(
        self, process: str, *, stdout: int | None = 0, stderr: int | None = 0, follow: bool = True
    ) -> AbstractAsyncContextManager[View]:
        """View a process's output from these offsets on; leaving the block does not affect the process."""
        return processes.attach(self, process, stdout=stdout, stderr=stderr, follow=follow)

    async def send_input(self, process: str, data: AsyncIterable[bytes], *, close: bool = False) -> int:
        """Write to a process's standard input; returns how many bytes it accepted."""
        return await processes.send_input(self, process, data, close=close)

    async def resize(self, process: str, rows: int, columns: int) -> None:
        """Resize a process's terminal."""
        await processes.resize(self, process, rows, columns)

    async def signal(self, process: str, number: int) -> None:
        """Send a signal to a process's group."""
        await processes.signal(self, process, number)

    def tunnel(
        self,
        *,
        path: str | None = None,
        port: int | None = None,
        service: str | None = None,
        user: str | None = None,
        id: str | None = None,
        acknowledge: bool = True,
    ) -> AbstractAsyncContextManager[Tunnel]:
        """A connection to a Unix socket in the guest, to a TCP port of its loopback, or to a service of the agent's."""
        return tunnel.connect(self, path=path, port=port, service=service, user=user, id=id, acknowledge=acknowledge)

    def attach_tunnel(self, id: str, received: int, *, acknowledge: bool = True) -> AbstractAsyncContextManager[Tunnel]:
        """Reattach to the connection with this id, from an offset in the guest's output on."""
        return tunnel.attach(self, id, received, acknowledge=acknowledge)

    def listen(
        self, *, path: str | None = None, port: int | None = None, mode: int | None = None, id: str | None = None
    ) -> AbstractAsyncContextManager[Listener]:
        """Listen in the guest; each connection is a tunnel."""
        return tunnel.listen(self, path=path, port=port, mode=mode, id=id)

    def read_file(self, path: str, *, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """A regular file's bytes, in pieces of at most 96 KiB."""
        return files.read(self, path, offset=offset, length=length)

    async def write_file(self, path: str, data: AsyncIterable[bytes], mode: int | None = None) -> int:
        """Replace a file's content; returns the number of bytes."""
        return await files.write(self, path, data, mode=mode)

    async def stat(self, path: str) -> FileEntry:
        """A description of the file ``path``."""
        return await files.stat(self, path)

    async def list(self, path: str) -> list[FileEntry]:
        """The entries of a directory, sorted by name."""
        return await files.entries(self, path)

    async def delete(self, path: str, timeout_s: float = _LONG_S) -> None:
        """Remove a file or a whole tree; does nothing if it is missing."""
        await files.simple(self, Operation.DELETE, path, timeout_s)

    async def mkdir(self, path: str, timeout_s: float = _LONG_S) -> None:
        """Make a directory and its parents; it may exist already."""
        await files.simple(self, Operation.MKDIR, path, timeout_s)

    async def changes(self, timeout_s: float) -> Listing:
        """The list of everything that differs from the template."""
        return await changing.changes(self, timeout_s)

    async def remember_files(self, timeout_s: float = _LONG_S) -> None:
        """Have the agent remember all files: later lists of changes are relative to now."""
        await files.simple(self, Operation.REMEMBER, "/", timeout_s)

    async def sync(self, timeout_s: float = _LONG_S) -> None:
        """Write everything in the guest's page cache to its disks."""
        await files.simple(self, Operation.SYNC, "/", timeout_s)

    async def mount_volume(self, place: int, size: int, path: str, *, read_only: bool = False) -> None:
        """Mount the disk in a place for volumes, which has ``size`` bytes."""
        await volumes.mount(self, place, size, path, read_only=read_only)

    async def grow_volume(self, place: int, size: int) -> None:
        """Grow the mounted file system of a volume to its disk, which has ``size`` bytes now."""
        await volumes.grow(self, place, size)
