"""Terminals: shells that several clients can view and type into at once, and reconnect to after a broken connection."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from pandastack.contract.processes import ProcessRecord, ProcessSpec, TerminalSize
from pandastack.contract.records import Record
from pandastack.errors import BadRequestError, NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.services.processes.idle_watch import ProcessFound
from pandastack.services.processes.processes import Processes
from pandastack.services.processes.spec import checked_id, checked_size
from pandastack.services.records.bus import Bus
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import SandboxRecord

_LOGIN_SHELL = "if [ -x /bin/bash ]; then exec /bin/bash -l; fi; exec /bin/sh -l"
_HANGUP = 1
_HANGUPS, _HANGUP_SECONDS = 3, 1.0
"""A shell about to read a line notes the signal but waits all the same; the next signal ends it."""
_DEFAULT_SCROLLBACK = 64 * 1024

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TerminalView:
    """The position of a viewer: terminal ``id`` of a sandbox, output from ``offset`` on."""

    caller: Caller
    sandbox_id: str
    id: str
    offset: int


@dataclass(slots=True)
class _Terminal:
    viewers: int = 0
    changed: anyio.Event = field(default_factory=anyio.Event)


class Terminals:
    """Opens terminals; ends those without viewers, in ``tasks``."""

    def __init__(self, processes: Processes, bus: Bus, tasks: TaskGroup, settings: Settings) -> None:
        self._processes = processes
        self._bus = bus
        self._tasks = tasks
        self._settings = settings
        self._watched: dict[tuple[str, str], _Terminal] = {}

    async def open(
        self,
        caller: Caller,
        sandbox_id: str,
        *,
        wanted: str | None,
        size: tuple[int, int] | None,
        cmd: str | None,
        scrollback: int | None,
        offset: int | None,
    ) -> TerminalView:
        """The terminal ``wanted``, or a new one; if ``wanted`` does not exist, the new one gets that id.

        An existing terminal first sends its last ``scrollback`` bytes, or all output from ``offset`` on.
        """
        wanted_size = checked_size(*size) if size else None
        if scrollback is not None and not 0 <= scrollback <= self._settings.max_scrollback_bytes:
            most = self._settings.max_scrollback_bytes
            raise BadRequestError(f"scrollback: must be between 0 and {most}", field="scrollback")
        number = wanted is not None and wanted.isdecimal()
        name = wanted if wanted is not None and number else checked_id(wanted) if wanted else str(uuid.uuid4())
        if wanted is not None:
            try:
                return await self._existing(caller, sandbox_id, name, wanted_size, scrollback, offset)
            except NotFoundError:
                await self._processes.check(caller, sandbox_id)
                if number:
                    raise
        env = {"TERM": "xterm-256color"}
        terminal = wanted_size or TerminalSize(24, 80)
        spec = ProcessSpec(cmd=cmd or _LOGIN_SHELL, id=name, env=env, background=True, terminal=terminal)
        await self._processes.start(caller, sandbox_id, spec)
        return TerminalView(caller, sandbox_id, name, 0)

    async def _existing(
        self,
        caller: Caller,
        sandbox_id: str,
        name: str,
        size: TerminalSize | None,
        scrollback: int | None,
        offset: int | None,
    ) -> TerminalView:
        record = await self._processes.get(caller, sandbox_id, name)
        if not record.pty:
            raise BadRequestError(f"process {name} has no terminal", field="id")
        base, end = record.stdout.base, record.stdout.end
        start = end - (_DEFAULT_SCROLLBACK if scrollback is None else scrollback) if offset is None else offset
        if size is not None and record.running:
            await self._processes.resize(caller, sandbox_id, record.id, size.rows, size.columns)
        return TerminalView(caller, sandbox_id, record.id, min(max(base, start), end))

    @asynccontextmanager
    async def viewer(self, place: TerminalView) -> AsyncIterator[AsyncIterator[Record]]:
        """Attach a viewer while the block runs: yields the terminal's output and its end."""
        terminal = self._watched.setdefault((place.sandbox_id, place.id), _Terminal())
        self._count(terminal, 1)
        try:
            view = self._processes.view(place.caller, place.sandbox_id, place.id, stdout=place.offset)
            async with view as records:
                yield records
        finally:
            self._count(terminal, -1)
            if not terminal.viewers:
                self._tasks.start_soon(self._linger, place, terminal)

    async def type(self, place: TerminalView, data: bytes) -> None:
        """Send a viewer's input; waits while the terminal does not read."""
        await self._processes.send_input(place.caller, place.sandbox_id, place.id, data, close=False)

    async def resize(self, place: TerminalView, rows: int, cols: int) -> None:
        """Resize the terminal, for all viewers."""
        await self._processes.resize(place.caller, place.sandbox_id, place.id, rows, cols)

    async def leave(self, place: TerminalView) -> None:
        """Detach a viewer for good: if it was the only one, the terminal is hung up."""
        terminal = self._watched.get((place.sandbox_id, place.id))
        if terminal is not None and terminal.viewers == 1:
            await self._hang_up(place)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Hang up terminals of previous servers and machines whose viewers do not reconnect, until cancelled."""
        with self._bus.subscribe(ProcessFound) as events:
            task_status.started()
            async for event in events:
                self._adopt(event.sandbox, event.process)

    def _adopt(self, sandbox: SandboxRecord, process: ProcessRecord) -> None:
        if process.pty and process.cmd == _LOGIN_SHELL:
            place = TerminalView(Caller.server(sandbox.workspace), sandbox.id, process.id, 0)
            terminal = self._watched.setdefault((place.sandbox_id, place.id), _Terminal())
            self._tasks.start_soon(self._linger, place, terminal)

    async def _linger(self, place: TerminalView, terminal: _Terminal) -> None:
        with anyio.move_on_after(self._settings.terminal_linger_seconds):
            while not terminal.viewers:
                await terminal.changed.wait()
            return
        self._watched.pop((place.sandbox_id, place.id), None)
        await self._hang_up(place)

    async def _hang_up(self, place: TerminalView) -> None:
        try:
            await self._processes.check(place.caller, place.sandbox_id, running=True)
            where = place.caller, place.sandbox_id, place.id
            for _ in range(_HANGUPS):
                await self._processes.signal(*where, _HANGUP)
                if not (await self._processes.wait(*where, _HANGUP_SECONDS)).running:
                    return
        except PandastackError as error:
            log.debug("terminal.gone", sandbox_id=place.sandbox_id, cause=repr(error))

    def _count(self, terminal: _Terminal, change: int) -> None:
        terminal.viewers += change
        terminal.changed.set()
        terminal.changed = anyio.Event()
