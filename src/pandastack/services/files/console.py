"""What machines print on their consoles, as text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from pandastack.cluster import Engines
from pandastack.errors import ConflictError, NotFoundError
from pandastack.model.caller import Caller
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import SandboxRecord, Status

_REPLAY = 4096  # characters of the console that a follower is shown first
_OVERLAP = 512


class Consoles:
    """What machines write to their consoles. A console is a terminal, whose lines end with CR and LF; shown are LF."""

    def __init__(self, sandboxes: Sandboxes, engines: Engines, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._engines = engines
        self._poll_seconds = settings.log_poll_seconds

    async def read(self, caller: Caller, sandbox_id: str, tail: int | None) -> str:
        """The console's text, or its last ``tail`` lines."""
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            text = (await self._engines.of(sandbox).console(sandbox.id)).replace("\r\n", "\n")
        if tail is None or tail <= 0:
            return text
        return "".join(text.splitlines(keepends=True)[-tail:])

    @asynccontextmanager
    async def follow(self, caller: Caller, sandbox_id: str, tail: int | None) -> AsyncIterator[AsyncIterator[str]]:
        """Whole lines: first those of the last 4 KiB (or ``tail``), then new ones until the sandbox ends."""
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            text = await self._engines.of(sandbox).console(sandbox.id)
            yield self._lines(caller, sandbox, text, tail)

    async def _lines(self, caller: Caller, sandbox: SandboxRecord, text: str, tail: int | None) -> AsyncIterator[str]:
        start = (
            text[-_REPLAY:] if tail is None else "".join(text.splitlines(keepends=True)[-tail:] if tail > 0 else text)
        )
        pending = start
        while True:
            *whole, pending = pending.split("\n")
            for line in whole:
                yield line.removesuffix("\r") + "\n"
            # The engine announces nothing here: the console is a file that the machine writes.
            await anyio.sleep(self._poll_seconds)
            try:
                if self._sandboxes.get(caller, sandbox.id).status != Status.RUNNING:
                    break  # following must not wake it
                async with self._sandboxes.use(caller, sandbox.id):
                    newer = await self._engines.of(sandbox).console(sandbox.id)
            except (NotFoundError, ConflictError):
                break
            pending += appended(text, newer)
            text = newer
        if pending:
            yield pending + "\n"


def appended(before: str, after: str) -> str:
    """What a window on the end of a growing text shows newly, when it showed ``before`` and now shows ``after``."""
    if after.startswith(before):
        return after[len(before) :]
    mark = before[-_OVERLAP:]
    found = after.rfind(mark)
    return after[found + len(mark) :] if found >= 0 else after
