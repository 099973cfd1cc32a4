"""Code sessions: an interpreter in the sandbox that retains its state between cells."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from pandastack.errors import PandastackError
from pandastack.sdk._async.interfaces import AsyncSandboxHandle
from pandastack.sdk._code import Execution, run_cell, sessions_path
from pandastack.sdk.wire.call import Call
from pandastack.sdk.wire.coding import json_object, mapped_command_timeout


class AsyncCodeContext:
    """A session in a sandbox, opened by ``sandbox.create_code_context``. As a context manager it is closed at the end.

    It survives hibernation, and forks of the sandbox have it under the same id.
    """

    def __init__(self, sandbox: AsyncSandboxHandle, session_id: str, language: str = "python") -> None:
        self._sandbox = sandbox
        self.id = session_id
        self.language = language

    async def run_code(self, code: str, timeout_seconds: float | None = None) -> Execution:
        """Run a cell (by default for at most 30 seconds) and return its result.

        An exception in the code is not raised here: see ``error`` of the result. Raises SandboxTimeout when the cell
        was interrupted at its limit; the session remains usable.
        """
        return await self._run(code, timeout_seconds, checkpoint=False)

    async def run_code_and_checkpoint(self, code: str, timeout_seconds: float | None = None) -> Execution:
        """Run a cell, then take a checkpoint of the sandbox: ``checkpoint_id`` of the result names it.

        A sandbox forked from it, or rewound to it, has this session as it was after the cell.
        """
        return await self._run(code, timeout_seconds, checkpoint=True)

    async def _run(self, code: str, timeout_seconds: float | None, *, checkpoint: bool) -> Execution:
        client = self._sandbox.client
        call = run_cell(self._sandbox.id, self.id, code, timeout_seconds, checkpoint, client.timeout)
        with mapped_command_timeout():
            return Execution.from_dict(json_object(await client.transport.run(call)))

    async def interrupt(self) -> bool:
        """Interrupt the running cell, from another task or thread; False when none runs."""
        call = Call("POST", self._path("/interrupt"))
        return bool((await self._sandbox.client.transport.object(call)).get("interrupted"))

    async def variables(self) -> list[dict[str, Any]]:
        """The variables of a Python session, each as ``{"name", "type", "shape", "repr"}``."""
        return await self._sandbox.client.transport.list(Call("GET", self._path("/variables")), "variables")

    async def close(self) -> None:
        """End the session. Never raises: a session that is already gone is fine."""
        try:
            await self._sandbox.client.transport.run(Call("DELETE", self._path()))
        except PandastackError:
            return

    def _path(self, below: str = "") -> str:
        return sessions_path(self._sandbox.id, self.id, below)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()
