"""A client of the engine's HTTP interface: the same code in process, over a Unix socket and over TCP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx

from pandastack.cluster.builds import EngineBuilds
from pandastack.cluster.connection import ANSWER_SECONDS, EngineConnection, whole
from pandastack.cluster.in_process import StreamingASGITransport
from pandastack.cluster.in_process_socket import ASGIApp
from pandastack.cluster.networks import EngineNetworks
from pandastack.cluster.sockets import Dialer, Socket, network_dialer
from pandastack.cluster.tunnel import Tunnel, listening
from pandastack.cluster.volumes import EngineVolumes
from pandastack.contract.codec import decode_answer, encode
from pandastack.contract.compare import CompareFiles, Diff
from pandastack.contract.events import Event
from pandastack.contract.files import Directory, FileEntry, Written
from pandastack.contract.health import Health
from pandastack.contract.network import SetSecrets
from pandastack.contract.processes import (
    ExecSpec,
    InputTaken,
    ProcessList,
    ProcessRecord,
    ProcessSpec,
    SendSignal,
    TerminalSize,
)
from pandastack.contract.records import End, Output, Record, RecordParser
from pandastack.contract.references import Point, StartFrom
from pandastack.contract.sandboxes import (
    DEFAULT_SIZE,
    Captured,
    CreateSandbox,
    ForkAnswer,
    ForkSandbox,
    RewindSandbox,
    SandboxInfo,
    SandboxSpec,
    Started,
    WakeSandbox,
    WantedSize,
)
from pandastack.contract.snapshots import (
    ExpectCreates,
    Measured,
    MeasureSnapshots,
    MemoryFound,
    SearchMemory,
    SnapshotInfo,
    TakeSnapshot,
)
from pandastack.contract.templates import Template
from pandastack.contract.volumes import AttachVolume
from pandastack.errors import UnavailableError
from pandastack.model.network import NetworkPolicy

_EVENTS_SILENCE_SECONDS = 45.0  # the engine sends an empty line every 15 s
_LONG = httpx.Timeout(ANSWER_SECONDS, read=170.0)  # clients wait 180 s for a snapshot


class EngineClient:
    """One engine. Use inside ``async with``.

    Every method raises the error that the engine returned, :class:`UnavailableError` when the engine does not answer
    (whether it acted is then unknown), or :class:`ServerError` when it speaks another version of the contract.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, dial: Dialer, base_url: str = "http://engine") -> None:
        self._connection = EngineConnection(transport, dial, base_url)
        self.builds = EngineBuilds(self._connection)
        self.networks = EngineNetworks(self._connection)
        self.volumes = EngineVolumes(self._connection)

    @classmethod
    def in_process(cls, app: ASGIApp) -> EngineClient:
        """A client that calls the ASGI application ``app`` directly."""
        transport = StreamingASGITransport(app)
        return cls(transport, transport.dial)

    @classmethod
    def connect(cls, url: str) -> EngineClient:
        """A client for ``http://host:port`` or ``unix:/path/to/socket``."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        if url.startswith("unix:"):
            # No TLS is spoken there: loading the host's authorities would take longer than all else.
            transport = httpx.AsyncHTTPTransport(uds=url.removeprefix("unix:"), limits=limits, verify=False)
            return cls(transport, network_dialer(url))
        return cls(httpx.AsyncHTTPTransport(limits=limits), network_dialer(url), url)

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._connection.__aexit__(kind, error, traceback)

    async def health(self) -> Health:
        """The engine's host, the strength of its isolation, and its health."""
        return await self._connection.ask(Health, "GET", "/health")

    async def templates(self) -> tuple[Template, ...]:
        """Every template that is ready to use, of all owners."""
        return await self._connection.ask(tuple[Template, ...], "GET", "/templates")

    async def template(self, name: str, owner: str = "") -> Template:
        """One template by name or alias: one of ``owner``'s, else one of everybody's."""
        return await self._connection.ask(Template, "GET", _template(name), params={"owner": owner})

    async def delete_template(self, name: str, owner: str = "") -> None:
        """Delete the template of ``owner`` with this name. What was made from it stays."""
        await self._connection.call("DELETE", _template(name), params={"owner": owner})

    async def create(
        self,
        spec: SandboxSpec,
        start_from: StartFrom,
        size: WantedSize = DEFAULT_SIZE,
        *,
        boot: bool = False,
        network: NetworkPolicy | None = None,
        secrets: SetSecrets | None = None,
        volumes: Sequence[AttachVolume] = (),
    ) -> Started:
        """Create a sandbox. Returns once its guest executes commands. A refusal for capacity created nothing.

        With ``boot`` it boots from its disks where the memory cannot be restored. ``network`` None: its template's.
        ``volumes`` are mounted then, in the order of their devices.
        """
        message = CreateSandbox(spec, start_from, size, boot, network, secrets, tuple(volumes))
        return await self._connection.ask(Started, "POST", "/sandboxes", message)

    async def sandboxes(self) -> tuple[SandboxInfo, ...]:
        """Every sandbox of the engine with its state."""
        return await self._connection.ask(tuple[SandboxInfo, ...], "GET", "/sandboxes")

    async def sandbox(self, sandbox_id: str) -> SandboxInfo:
        """One sandbox, with its machine's use of resources."""
        return await self._connection.ask(SandboxInfo, "GET", f"/sandboxes/{sandbox_id}")

    async def delete(self, sandbox_id: str) -> None:
        """End a sandbox and free all its resources."""
        await self._connection.call("DELETE", f"/sandboxes/{sandbox_id}")

    async def pause(self, sandbox_id: str) -> None:
        """Pause the sandbox's CPUs; its memory stays."""
        await self._connection.call("POST", f"/sandboxes/{sandbox_id}/pause")

    async def resume(self, sandbox_id: str) -> None:
        """Resume the CPUs of a paused sandbox."""
        await self._connection.call("POST", f"/sandboxes/{sandbox_id}/resume")

    async def hibernate(self, sandbox_id: str) -> Captured:
        """Store the sandbox on disk and end its machine. Returns the cost: none when it was already hibernated."""
        return await self._connection.ask(Captured, "POST", f"/sandboxes/{sandbox_id}/hibernate")

    async def wake(self, sandbox_id: str, *, boot: bool = False) -> Started:
        """Wake a hibernated sandbox; a running one stays as it is. ``boot``: as for :meth:`create`."""
        path, message = f"/sandboxes/{sandbox_id}/wake", WakeSandbox(boot)
        return await self._connection.ask(Started, "POST", path, message)

    async def set_secrets(self, sandbox_id: str, secrets: SetSecrets) -> None:
        """Give the sandbox these secrets, in the place of those it had; they are in force when this returns."""
        await self._connection.call("PUT", f"/sandboxes/{sandbox_id}/secrets", secrets)

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> Captured:
        """Capture the sandbox under a new id; it keeps running."""
        path, message = f"/sandboxes/{sandbox_id}/snapshots", TakeSnapshot(snapshot_id)
        return await self._connection.ask(Captured, "POST", path, message, limit=_LONG)

    async def snapshots(self) -> tuple[SnapshotInfo, ...]:
        """Every snapshot of a sandbox that has not been deleted."""
        return await self._connection.ask(tuple[SnapshotInfo, ...], "GET", "/snapshots")

    async def measure(self, going: Sequence[str]) -> Measured:
        """The engine's storage, and how much deleting these snapshots in this order would free."""
        message = MeasureSnapshots(tuple(going))
        return await self._connection.ask(Measured, "POST", "/snapshots/measure", message)

    async def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot's data."""
        await self._connection.call("DELETE", f"/snapshots/{snapshot_id}")

    async def search_memory(self, snapshot_id: str, values: Sequence[bytes]) -> MemoryFound:
        """Which of these values are in the memory of a snapshot, by their bytes."""
        path, message = f"/snapshots/{snapshot_id}/search", SearchMemory(tuple(values))
        return await self._connection.ask(MemoryFound, "POST", path, message, limit=_LONG)

    async def expect_creates(self, snapshot_id: str, count: int, seconds: float) -> None:
        """Have machines wait for creates from a snapshot that are to come; a hint, which the engine forgets."""
        await self._connection.call("POST", f"/snapshots/{snapshot_id}/expect", ExpectCreates(count, seconds))

    async def fork(self, sandbox_id: str, children: Sequence[SandboxSpec]) -> ForkAnswer:
        """Copy the running sandbox. If no copy could be made, the first failure is raised, and nothing was created."""
        path, message = f"/sandboxes/{sandbox_id}/fork", ForkSandbox(tuple(children))
        return await self._connection.ask(ForkAnswer, "POST", path, message)

    async def rewind(self, sandbox_id: str, snapshot_id: str) -> Started:
        """Rewind the sandbox to a snapshot. After a failure its machine may be gone."""
        path, message = f"/sandboxes/{sandbox_id}/rewind", RewindSandbox(snapshot_id)
        return await self._connection.ask(Started, "POST", path, message)

    async def diff(self, before: Point, after: Point, patch: bool) -> Diff:
        """The differences between the files of two states of the same template."""
        message = CompareFiles(before, after, patch)
        return await self._connection.ask(Diff, "POST", "/diff", message, limit=_LONG)

    @asynccontextmanager
    async def exec(self, sandbox_id: str, spec: ExecSpec) -> AsyncIterator[AsyncIterator[Record]]:
        """Run a command: yields its records, the end last.

        Leaving the block early kills the command, unless it has ``leave`` set.
        """
        async with self._connection.stream("POST", f"/sandboxes/{sandbox_id}/exec", content=encode(spec)) as response:
            yield _records(response)

    async def start_process(self, sandbox_id: str, spec: ProcessSpec) -> ProcessRecord:
        """Start a process; it runs whether or not a client reads its output."""
        return await self._connection.ask(ProcessRecord, "POST", f"/sandboxes/{sandbox_id}/processes", spec)

    async def processes(self, sandbox_id: str) -> ProcessList:
        """The guest's records of processes, and how many it retains."""
        return await self._connection.ask(ProcessList, "GET", f"/sandboxes/{sandbox_id}/processes")

    async def process(self, sandbox_id: str, process: str) -> ProcessRecord:
        """One record, by id or pid."""
        return await self._connection.ask(ProcessRecord, "GET", _process(sandbox_id, process))

    @asynccontextmanager
    async def attach(
        self, sandbox_id: str, process: str, *, stdout: int | None, stderr: int | None, follow: bool
    ) -> AsyncIterator[AsyncIterator[Record]]:
        """Read a process's output from these offsets on (None: not at all): yields records, the end last."""
        wanted = {"stdout": stdout, "stderr": stderr, "follow": int(follow)}
        params = {name: str(value) for name, value in wanted.items() if value is not None}
        url = _process(sandbox_id, process, "/output")
        async with self._connection.stream("GET", url, params=params) as response:
            yield _records(response)

    async def send_input(self, sandbox_id: str, process: str, data: bytes | AsyncIterator[bytes], close: bool) -> int:
        """Write to a process's standard input, and end it with ``close``. Waits while it does not read."""
        url, params = _process(sandbox_id, process, "/stdin"), {"close": str(int(close))}
        async with self._connection.stream("POST", url, params=params, content=data) as response:
            return decode_answer(InputTaken, await whole(response)).bytes

    async def signal(self, sandbox_id: str, process: str, number: int) -> None:
        """Send a signal to a process's group."""
        await self._connection.call("POST", _process(sandbox_id, process, "/signal"), SendSignal(number))

    async def resize(self, sandbox_id: str, process: str, size: TerminalSize) -> None:
        """Resize a process's terminal."""
        await self._connection.call("POST", _process(sandbox_id, process, "/resize"), size)

    @asynccontextmanager
    async def tunnel(
        self,
        sandbox_id: str,
        *,
        port: int | None = None,
        path: str | None = None,
        service: str | None = None,
        user: str | None = None,
        id: str | None = None,
    ) -> AsyncIterator[Tunnel]:
        """A connection to a TCP port of the guest's loopback, or to a Unix socket; leaving the block closes it.

        ``service`` is one of :data:`pandastack.contract.tunnels.SERVICES`, which runs as ``user`` (None: root).

        With an ``id`` (lower-case letters, digits and dashes) it survives hibernation and a restart of either side: see
        :class:`Tunnel` and :meth:`attach_tunnel`. Raises :class:`NotFoundError` when nothing listens there.
        """
        tunnel = Tunnel(id)
        where = {"port": None if port is None else str(port), "path": path, "service": service, "user": user, "id": id}
        async with self._socket(sandbox_id, "tunnel", where) as socket, tunnel.attached(socket):
            yield tunnel

    @asynccontextmanager
    async def attach_tunnel(self, sandbox_id: str, tunnel: Tunnel) -> AsyncIterator[None]:
        """Continue a tunnel with an id where it broke off; unacknowledged bytes are sent again, both ways.

        Leaving the block closes the connection. Raises :class:`NotFoundError` when the guest no longer has it.
        """
        where = {"id": tunnel.id, "received": str(tunnel.detach())}
        async with self._socket(sandbox_id, "tunnel", where) as socket, tunnel.attached(socket):
            yield

    @asynccontextmanager
    async def listen(
        self, sandbox_id: str, *, port: int | None = None, path: str | None = None, id: str | None = None
    ) -> AsyncIterator[AsyncIterator[Tunnel]]:
        """Listen in the guest, at a TCP port of its loopback or a Unix socket, until the block ends.

        Yields connections; attach to each with :meth:`attach_tunnel`. With an ``id``, connections wait in the guest
        after an :class:`UnavailableError` until the method is called again with the same arguments.
        """
        where = {"port": None if port is None else str(port), "path": path, "id": id}
        async with self._socket(sandbox_id, "listen", where) as socket, listening(socket) as tunnels:
            yield tunnels

    def _socket(
        self, sandbox_id: str, verb: str, params: Mapping[str, str | None]
    ) -> AbstractAsyncContextManager[Socket]:
        given = {name: value for name, value in params.items() if value is not None}
        return self._connection.socket(f"/sandboxes/{sandbox_id}/{verb}", given)

    @asynccontextmanager
    async def read_file(
        self, sandbox_id: str, path: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[tuple[int | None, AsyncIterator[bytes]]]:
        """A file of the guest: its length in bytes, if the engine reports it, and its content from ``offset``."""
        part = {"offset": str(offset)} if offset else {}
        part |= {} if length is None else {"length": str(length)}
        url, params = f"/sandboxes/{sandbox_id}/files", {"path": path, **part}
        async with self._connection.stream("GET", url, params=params) as response:
            length = response.headers.get("content-length")
            yield None if length is None else int(length), response.aiter_raw()

    async def write_file(self, sandbox_id: str, path: str, content: AsyncIterator[bytes]) -> Written:
        """Replace a file of the guest. An exception from ``content`` aborts the transfer and is raised here."""
        url, params = f"/sandboxes/{sandbox_id}/files", {"path": path}
        async with self._connection.stream("PUT", url, params=params, content=content) as response:
            return decode_answer(Written, await whole(response))

    async def delete_file(self, sandbox_id: str, path: str) -> None:
        """Delete a file or directory with everything in it; a missing path is fine."""
        await self._connection.call("DELETE", f"/sandboxes/{sandbox_id}/files", params={"path": path})

    async def directory(self, sandbox_id: str, path: str) -> Directory:
        """The entries of a directory of the guest."""
        url = f"/sandboxes/{sandbox_id}/directory"
        return await self._connection.ask(Directory, "GET", url, params={"path": path})

    async def stat(self, sandbox_id: str, path: str) -> FileEntry:
        """One entry of the guest's file system."""
        url = f"/sandboxes/{sandbox_id}/stat"
        return await self._connection.ask(FileEntry, "GET", url, params={"path": path})

    async def console(self, sandbox_id: str) -> str:
        """The last part of the machine's console output."""
        return (await self._connection.call("GET", f"/sandboxes/{sandbox_id}/console")).decode(errors="replace")

    @asynccontextmanager
    async def follow_console(self, sandbox_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The machine's console output, until it ends. The first piece is all that is retained, possibly empty."""
        url = f"/sandboxes/{sandbox_id}/console"
        async with self._connection.stream("GET", url, params={"follow": "1"}) as response:
            yield _outputs(response)

    async def events(self) -> AsyncGenerator[Event | None, None]:
        """The engine's events, endlessly; None is a sign of life.

        The first item is None: from then on no event is missed.
        """
        silence = httpx.Timeout(ANSWER_SECONDS, read=_EVENTS_SILENCE_SECONDS)
        async with self._connection.stream("GET", "/events", timeout=silence) as response:
            async for line in response.aiter_lines():
                yield decode_answer(Event, line) if line else None


def _template(name: str) -> str:
    return "/templates/" + quote(name, safe="")


def _process(sandbox_id: str, process: str, rest: str = "") -> str:
    return f"/sandboxes/{sandbox_id}/processes/{quote(process, safe='')}{rest}"


async def _outputs(response: httpx.Response) -> AsyncIterator[bytes]:
    parser = RecordParser()
    async for data in response.aiter_raw():
        for record in parser.feed(data):
            if isinstance(record, Output):
                yield record.data


async def _records(response: httpx.Response) -> AsyncIterator[Record]:
    parser = RecordParser()
    async for data in response.aiter_raw():
        for record in parser.feed(data):
            yield record
            if isinstance(record, End):
                return
    raise UnavailableError("the engine ended the command's output without a result; the outcome is unknown")
