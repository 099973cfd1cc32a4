"""A machine that exists only for a step of a build, without a network."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

from pandastack.contract.records import ExecFailed, ExecResult, Output
from pandastack.contract.sandboxes import WantedSize
from pandastack.contract.templates import Template
from pandastack.errors import NotFoundError
from pandastack.model.caller import Caller
from pandastack.model.network import Egress, NetworkPolicy
from pandastack.products.builds.build import Build
from pandastack.products.builds.records import BuildFailed, FailureReason
from pandastack.products.builds.trees import spool
from pandastack.services import ControlPlane
from pandastack.services.files.tar_filter import Outside
from pandastack.services.processes.spec import Command
from pandastack.services.records.spec import NewSandbox

STEP_SECONDS = 600.0
_IDLE_SECONDS = 300
_OTHER_WORK_SECONDS = 3600
"""What a machine may take besides the command: copying in and out. It is deleted afterwards even if all else fails."""
_PIECE = 1 << 20


@dataclass
class Machine:
    """A sandbox of ``template`` for ``build``, as long as the block."""

    plane: ControlPlane
    build: Build
    template: Template
    cpu: int | None = None
    sandbox_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    async def __aenter__(self) -> Self:
        record = self.build.record
        await self.build.remember((self.sandbox_id,))
        wanted = NewSandbox(
            template=self.template.name,
            ttl_seconds=_IDLE_SECONDS,
            metadata={"build": record.id},
            max_lifetime_seconds=int(record.spec.timeout_seconds) + _OTHER_WORK_SECONDS,
            size=WantedSize(cpu=self.cpu),
            id=self.sandbox_id,
            network=NetworkPolicy(Egress.NONE),
        )
        await self.plane.sandboxes.create(self.caller, wanted)
        try:
            await self._check_template()
        except BaseException:
            await self._delete()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._delete()

    @property
    def caller(self) -> Caller:
        """As whom the machine is used."""
        return Caller.server(self.build.record.workspace)

    async def unpack(self, archive: Path, path: str) -> None:
        """Unpack an archive in normal form into a directory."""
        await self.plane.archives.unpack(self.caller, self.sandbox_id, path, Outside.KEEP, _content(archive))

    async def pack(self, path: str, target: Path, most: int, field: str) -> None:
        """Write the archive of a directory to a file, made safe. Raises what :func:`spool` does."""
        async with self.plane.archives.pack(self.caller, self.sandbox_id, path, Outside.REFUSE) as (_, chunks):
            await spool(chunks, target, most, field)

    async def execute(self, command: str, limit: float, take: Callable[[bytes], None]) -> ExecResult:
        """Run a line of the shell to its end. ``take`` gets the output. Raises :class:`BuildFailed`."""
        stream = self.plane.commands.stream(self.caller, self.sandbox_id, Command(command, limit))
        async with stream as records:
            async for record in records:
                if isinstance(record, Output):
                    take(record.data)
                elif isinstance(record, ExecFailed):
                    raise record.failure.exception()
                elif isinstance(record, ExecResult):
                    return record
        raise BuildFailed(FailureReason.MACHINE, "the machine ended during the build")

    async def _check_template(self) -> None:
        """The machine is one of the known version only if the template is still that after the create."""
        now = await self.plane.templates.get(self.caller, self.template.name)
        if now.version != self.template.version:
            raise BuildFailed(FailureReason.MACHINE, f"template {now.name} was replaced during the build")

    async def _delete(self) -> None:
        with anyio.CancelScope(shield=True):
            with suppress(NotFoundError):
                await self.plane.sandboxes.delete(self.caller, self.sandbox_id)
            await self.build.remember(())


async def _content(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(_PIECE):
            yield piece
