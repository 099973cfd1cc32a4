"""The console output of machines, as text."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pandastack.cluster import Engines
from pandastack.model.caller import Caller
from pandastack.services.sandboxes.sandboxes import Sandboxes

_REPLAY = 4096  # characters of past output that a follower is shown first
_MOST_LINE = 64 * 1024  # characters; a longer line is shown in pieces


class Consoles:
    """The console output of machines. A console is a terminal, whose lines end with CR and LF; shown is only LF."""

    def __init__(self, sandboxes: Sandboxes, engines: Engines) -> None:
        self._sandboxes = sandboxes
        self._engines = engines

    async def read(self, caller: Caller, sandbox_id: str, tail: int | None) -> str:
        """The console's text, or its last ``tail`` lines."""
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            text = (await self._engines.of(sandbox).console(sandbox.id)).replace("\r\n", "\n")
        if tail is None or tail <= 0:
            return text
        return "".join(text.splitlines(keepends=True)[-tail:])

    @asynccontextmanager
    async def follow(self, caller: Caller, sandbox_id: str, tail: int | None) -> AsyncIterator[AsyncIterator[str]]:
        """Whole lines: first those of the last 4 KiB (or ``tail``), then new lines until the sandbox's machine ends."""
        async with (
            self._sandboxes.use(caller, sandbox_id) as sandbox,
            self._engines.of(sandbox).follow_console(sandbox.id) as pieces,
        ):
            yield whole_lines(pieces, tail)


async def whole_lines(pieces: AsyncIterator[bytes], tail: int | None) -> AsyncIterator[str]:
    """The last lines of the first piece, then those of all further pieces; the last line may be unfinished."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    pending = _end_of(decoder.decode(await anext(pieces, b"")), tail)
    while True:
        *lines, pending = pending.split("\n")
        for line in lines:
            yield line.removesuffix("\r") + "\n"
        if len(pending) > _MOST_LINE:
            yield pending + "\n"
            pending = ""
        piece = await anext(pieces, None)
        if piece is None:
            break
        pending += decoder.decode(piece)
    if pending:
        yield pending + "\n"


def _end_of(text: str, tail: int | None) -> str:
    if tail is None:
        return text[-_REPLAY:]
    return "".join(text.splitlines(keepends=True)[-tail:]) if tail > 0 else text
