"""Ways into sandboxes for products: connections to what listens there, and looks that count as no use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from anyio.abc import ByteStream

from pandastack.cluster import Engines
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDERR, STDOUT, ExecFailed, ExecResult, Output
from pandastack.errors import GuestError, NotFoundError, UnavailableError
from pandastack.model.caller import Caller
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.store.sandboxes import SandboxRecord, Status

_MOST_BYTES = 4 * 1024 * 1024
"""Of the output of a look."""


class NothingListens(UnavailableError):
    """Nothing in the guest listens there, or not yet."""


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
