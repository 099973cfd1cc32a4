"""The machine of a job, or of a refresh of a pool: a sandbox that exists as long as a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import anyio
import structlog
from anyio.lowlevel import checkpoint_if_cancelled

from pandastack.contract.records import STDOUT, ExecFailed, ExecResult, Output
from pandastack.errors import CapacityError, GuestError, NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.products.keeping import keep_machine
from pandastack.products.runners.commands import PROBE, Probed, parse_probe
from pandastack.services import ControlPlane
from pandastack.services.processes.spec import Command
from pandastack.services.records.spec import NewSandbox
from pandastack.store.sandboxes import Status

_GRACE_SECONDS = 10.0
"""How long after its limit a command may take to be killed by the guest."""
_PROBE_SECONDS = 20.0
_MOST_PROBE = 64 * 1024
_NOTICE_SECONDS = 1.5
"""How long the record of a machine that has ended may take to say so."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

log = structlog.get_logger(__name__)


@dataclass
class Machine:
    """A sandbox as ``wanted``, which has the id of its job or pool. ``is_kept``: it stays when the block ends."""

    plane: ControlPlane
    workspace: str
    wanted: NewSandbox
    say: Callable[[str], None]
    is_kept: bool = field(default=False)

    @property
    def id(self) -> str:
        assert self.wanted.id is not None
        return self.wanted.id

    @property
    def caller(self) -> Caller:
        """As whom it is used."""
        return Caller.server(self.workspace)

    async def __aenter__(self) -> Self:
        try:
            await self._create()
            await checkpoint_if_cancelled()
        except BaseException:
            await delete_machine(self.plane, self.workspace, self.id)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_kept:
            await delete_machine(self.plane, self.workspace, self.id)

    async def run(
        self, command: str, limit: float, take: Callable[[Output], None], stdin: bytes | None = None
    ) -> ExecResult:
        """Run a line of the shell to its end. ``take`` gets the output.

        Raises :class:`PandastackError` when its end is not known.
        """
        wanted = Command(command, limit, stdin=stdin)
        with anyio.move_on_after(limit + _GRACE_SECONDS):
            async with self.plane.commands.stream(self.caller, self.id, wanted) as records:
                async for record in records:
                    if isinstance(record, Output):
                        take(record)
                    elif isinstance(record, ExecFailed):
                        raise record.failure.exception()
                    elif isinstance(record, ExecResult):
                        return record
            raise GuestError("the machine ended during the command")
        return ExecResult(124, timed_out=True)

    async def printed(self, command: str, limit: float, take: Callable[[Output], None]) -> AsyncIterator[bytes]:
        """What a line of the shell prints; ``take`` gets its standard error. Raises :class:`PandastackError`."""
        async with self.plane.commands.stream(self.caller, self.id, Command(command, limit)) as records:
            async for record in records:
                if isinstance(record, Output):
                    if record.kind == STDOUT:
                        yield record.data
                    else:
                        take(record)
                elif isinstance(record, ExecFailed):
                    raise record.failure.exception()

    async def probe(self) -> Probed:
        """The guest's symptoms; none when it does not tell them."""
        said = bytearray()

        def take(output: Output) -> None:
            if output.kind == STDOUT:
                said.extend(output.data[: _MOST_PROBE - len(said)])

        try:
            await self.run(PROBE, _PROBE_SECONDS, take)
        except PandastackError:
            return Probed()
        return parse_probe(said.decode("utf-8", "replace"))

    async def end_reason(self) -> str | None:
        """Why the machine has ended by itself, if it has."""
        deadline = anyio.current_time() + _NOTICE_SECONDS
        while True:
            record = self.plane.registry.find(self.id)
            if record is None:
                return "it was deleted"
            if record.status is Status.FAILED:
                return record.reason or "its machine ended"
            if anyio.current_time() >= deadline:
                return None
            await anyio.sleep(0.05)

    async def keep(self, seconds: int) -> None:
        """Make it a sandbox of the workspace, hibernated, which is deleted when it was not used for ``seconds``."""
        await keep_machine(self.plane, self.workspace, self.id, seconds)
        self.is_kept = True

    async def _create(self) -> None:
        """Make it, as soon as the host has room. Raises what the create does, but for :class:`CapacityError`."""
        pause, told = _FIRST_PAUSE, False
        while True:
            try:
                # A machine that the engine is making is carried out. To leave now would be to delete it before it is
                # there, and then nobody would know of it.
                with anyio.CancelScope(shield=True):
                    await self.plane.sandboxes.create(self.caller, self.wanted)
                return
            except CapacityError as error:
                if not told:
                    self.say(f"waiting for room: {error.public or error.message}")
                    told = True
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


async def delete_machine(plane: ControlPlane, workspace: str, sandbox_id: str) -> None:
    """Delete a machine of ours, if it is there and has not become the workspace's. One that cannot be deleted now is
    deleted by the reaper."""
    record = plane.registry.find(sandbox_id)
    if record is None or record.product is None:
        return
    with anyio.CancelScope(shield=True):
        try:
            await plane.sandboxes.delete(Caller.server(workspace), sandbox_id)
        except NotFoundError:
            pass
        except PandastackError as error:
            log.warning("runner.not_deleted", sandbox_id=sandbox_id, cause=repr(error))
