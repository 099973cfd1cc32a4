"""Ways into sandboxes for products: connections to what listens there, and looks that count as no use."""

from __future__ import annotations

import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import anyio
from anyio.abc import ByteStream

from pandastack.cluster import EngineClient, Engines
from pandastack.contract.processes import ExecSpec, ProcessSpec
from pandastack.contract.records import STDERR, STDOUT, ExecFailed, ExecResult, Output, Record
from pandastack.errors import ConflictError, GuestError, NotFoundError, PandastackError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.store.sandboxes import SandboxRecord, Status

_MOST_BYTES = 4 * 1024 * 1024
"""Of the output of a look."""
_MOST_COMPLAINTS = 16 * 1024
_KILL_SECONDS = 10.0


class NothingListens(UnavailableError):
    """Nothing in the guest listens there, or not yet."""


class ProgramFailed(GuestError):
    """A program in the guest ended with an error; ``complaints`` is the end of what it wrote to standard error."""

    def __init__(self, result: ExecResult, complaints: bytes) -> None:
        what = "took too long" if result.timed_out else "failed"
        super().__init__(f"a program of the template {what} in the guest", detail={"exit_code": result.exit_code})
        self.complaints = complaints.decode(errors="replace").strip()


class Interior:
    """Reaches into sandboxes of any workspace, as the caller may."""

    def __init__(self, sandboxes: Sandboxes, engines: Engines) -> None:
        self._sandboxes = sandboxes
        self._engines = engines

    @asynccontextmanager
    async def connect(
        self, caller: Caller, sandbox_id: str, path: str, *, look: bool = False
    ) -> AsyncIterator[ByteStream]:
        """A connection to a Unix socket in the guest, until the block ends.

        It wakes the sandbox and counts as use of it; a ``look`` does neither. Raises :class:`NothingListens`,
        and for a look :class:`UnavailableError` unless the sandbox runs.
        """
        async with self._entered(caller, sandbox_id, look) as record, AsyncExitStack() as stack:
            tunnel = self._engines.of(record).tunnel(record.id, path=path)
            try:
                stream = await stack.enter_async_context(tunnel)
            except NotFoundError as error:
                raise NothingListens(f"nothing listens at {path} in sandbox {record.id}") from error
            yield stream

    async def output(self, caller: Caller, sandbox_id: str, command: str, limit: float, *, look: bool = False) -> bytes:
        """What a shell command prints within ``limit`` seconds: at most 4 MiB. ``look``: as for :meth:`connect`.

        Raises :class:`GuestError` when it fails.
        """
        printed, spec = bytearray(), ExecSpec(cmd=command, timeout_seconds=limit)
        async with (
            self._entered(caller, sandbox_id, look) as record,
            self._engines.of(record).exec(record.id, spec) as records,
        ):
            async for each in records:
                if isinstance(each, Output) and each.kind == STDOUT and len(printed) < _MOST_BYTES:
                    printed += each.data[: _MOST_BYTES - len(printed)]
                elif isinstance(each, ExecFailed):
                    raise each.failure.exception()
                elif isinstance(each, ExecResult) and (each.exit_code or each.timed_out):
                    raise GuestError(
                        "a program of the template failed in the guest", detail={"exit_code": each.exit_code}
                    )
        return bytes(printed)

    @asynccontextmanager
    async def stream(
        self, caller: Caller, sandbox_id: str, command: str, limit: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """What a shell command prints, as it comes. It waits while nobody reads, and ends with the block.

        The iterator raises :class:`ProgramFailed`. The sandbox is used until the block ends.
        """
        spec = ExecSpec(cmd=command, timeout_seconds=limit)
        async with (
            self._entered(caller, sandbox_id, look=False) as record,
            self._engines.of(record).exec(record.id, spec) as records,
        ):
            yield _printed(records)

    async def feed(
        self, caller: Caller, sandbox_id: str, command: str, content: AsyncIterator[bytes], limit: float
    ) -> None:
        """Have a shell command read ``content`` as it comes, and return once it has ended. It is killed before this
        raises what ``content`` raises. Raises :class:`ProgramFailed`. The sandbox is used meanwhile.
        """
        spec = ProcessSpec(
            cmd=command,
            id=str(uuid.uuid4()),
            stdin_open=True,
            background=True,
            timeout_seconds=limit,
            keep_bytes=_MOST_COMPLAINTS,
            spool=True,
        )
        async with self._entered(caller, sandbox_id, look=False) as record:
            engine = self._engines.of(record)
            await engine.start_process(record.id, spec)
            try:
                await _fed(engine, record.id, spec.id, content)
            finally:
                with anyio.move_on_after(_KILL_SECONDS, shield=True), suppress(PandastackError):
                    await engine.signal(record.id, spec.id, signal.SIGKILL)  # one that has ended is not found

    async def end_programs(self, caller: Caller, sandbox_id: str, beginning: str) -> None:
        """Kill the processes whose command has this beginning: an earlier server has left them. It is a look."""
        async with self._entered(caller, sandbox_id, look=True) as record:
            engine = self._engines.of(record)
            for each in (await engine.processes(record.id)).processes:
                if each.running and each.cmd.startswith(beginning):
                    with suppress(NotFoundError, ConflictError):
                        await engine.signal(record.id, each.id, signal.SIGKILL)

    async def log(self, caller: Caller, sandbox_id: str, process: str, most: int) -> bytes:
        """A look at the last ``most`` bytes that a process has written to its standard error.

        Raises :class:`UnavailableError` unless the sandbox runs, and :class:`GuestError` when there is no such process.
        """
        async with self._entered(caller, sandbox_id, look=True) as record:
            engine, taken = self._engines.of(record), bytearray()
            try:
                kept = (await engine.process(record.id, process)).stderr
                start = max(kept.base, kept.end - most)
                async with engine.attach(record.id, process, stdout=None, stderr=start, follow=False) as records:
                    async for each in records:
                        if isinstance(each, Output) and each.kind == STDERR:
                            taken += each.data[: most - len(taken)]
            except NotFoundError as error:
                raise GuestError(f"there is no process {process} in sandbox {record.id}") from error
        return bytes(taken)

    @asynccontextmanager
    async def _entered(self, caller: Caller, sandbox_id: str, look: bool) -> AsyncIterator[SandboxRecord]:
        if not look:
            async with self._sandboxes.use(caller, sandbox_id) as record:
                yield record
            return
        record = self._sandboxes.get(caller, sandbox_id)
        if record.status is not Status.RUNNING:
            raise UnavailableError(f"sandbox {record.id} is {record.status}")
        yield record


async def _printed(records: AsyncIterator[Record]) -> AsyncIterator[bytes]:
    complaints = bytearray()
    async for each in records:
        if isinstance(each, Output) and each.kind == STDOUT:
            yield each.data
        else:
            _note(each, complaints)


async def _fed(engine: EngineClient, sandbox_id: str, process: str, content: AsyncIterator[bytes]) -> None:
    """Send ``content`` while the process runs. One that has ended reads no more of it."""
    failures, complaints = list[BaseException](), bytearray()

    async def send() -> None:
        try:
            await engine.send_input(sandbox_id, process, content, close=True)
        except ConflictError:
            pass  # it has closed its input: its end tells why
        except Exception as error:
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with (
        engine.attach(sandbox_id, process, stdout=None, stderr=0, follow=True) as records,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(send)
        try:
            async for each in records:
                _note(each, complaints)
        except Exception as error:  # raised as it is, not inside an exception group
            failures.append(error)
        tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]


def _note(record: Record, complaints: bytearray) -> None:
    """Take what a program complains of, and its end. Raises :class:`ProgramFailed`."""
    if isinstance(record, Output):
        complaints += record.data
        del complaints[:-_MOST_COMPLAINTS]
    elif isinstance(record, ExecFailed):
        raise record.failure.exception()
    elif isinstance(record, ExecResult) and (record.exit_code or record.timed_out):
        raise ProgramFailed(record, bytes(complaints))
