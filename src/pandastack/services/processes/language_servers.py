"""Language servers inside sandboxes, one process for each client, so that several editors do not disturb each other.

The traffic passes through unread. It is the base protocol of the Language Server Protocol, over the server's standard
input and output.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import structlog

from pandastack.contract.processes import ProcessSpec
from pandastack.contract.records import Record
from pandastack.errors import BadRequestError, PandastackError
from pandastack.model.caller import Caller
from pandastack.services.processes.processes import Processes

log = structlog.get_logger(__name__)

MISSING = 127
"""The shell's exit code for a program that does not exist."""
_TERMINATE = 15
_CLEAN_UP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class LanguageServer:
    """The server of a language, if the sandbox's template contains it."""

    language: str
    aliases: tuple[str, ...]
    command: str
    template: str
    """A template that contains it, to suggest to callers whose template does not."""


SERVERS = (LanguageServer("python", ("py",), "pylsp", "code-interpreter"),)
"""To add a language, add a line here and a template that contains its server."""


def server_for(language: str) -> LanguageServer:
    """Look up the server of a language. Raises :class:`BadRequestError` when there is none."""
    for each in SERVERS:
        if language == each.language or language in each.aliases:
            return each
    known = ", ".join(each.language for each in SERVERS)
    raise BadRequestError(
        f"lang: there is no language server for {language[:32]!r}", field="lang", hint=f"one of {known}"
    )


@dataclass(frozen=True, slots=True)
class Session:
    """A running server and its client."""

    server: LanguageServer
    caller: Caller
    sandbox_id: str
    process: str


class LanguageServers:
    """Starts servers and ends them with their clients."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    @asynccontextmanager
    async def session(self, caller: Caller, sandbox_id: str, language: str) -> AsyncIterator[Session]:
        """Run a server for one client inside the block."""
        server = server_for(language)
        process = ProcessSpec(cmd=f"exec {server.command}", id=str(uuid.uuid4()), stdin_open=True, background=True)
        await self._processes.start(caller, sandbox_id, process)
        session = Session(server, caller, sandbox_id, process.id)
        try:
            yield session
        finally:
            await self._end(session)

    @asynccontextmanager
    async def output(self, session: Session) -> AsyncIterator[AsyncIterator[Record]]:
        """Everything that the server writes, then its end."""
        place = session.caller, session.sandbox_id, session.process
        async with self._processes.view(*place, stdout=0, stderr=0) as records:
            yield records

    async def send(self, session: Session, data: bytes) -> None:
        """Write bytes from the client; waits while the server does not read."""
        await self._processes.send_input(session.caller, session.sandbox_id, session.process, data, close=False)

    async def _end(self, session: Session) -> None:
        with anyio.move_on_after(_CLEAN_UP_SECONDS, shield=True):
            try:
                await self._processes.check(session.caller, session.sandbox_id, running=True)
                await self._processes.signal(session.caller, session.sandbox_id, session.process, _TERMINATE)
            except PandastackError as error:
                log.debug("language_server.gone", sandbox_id=session.sandbox_id, cause=repr(error))
