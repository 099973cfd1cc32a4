"""Processes: commands that go on whoever looks at them, as the guest remembers them (docs/design/0012)."""

from __future__ import annotations

import math
import re
import signal as signals
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from pandastack.cluster import EngineClient
from pandastack.cluster.exec_records import Record
from pandastack.errors import BadRequestError, QuotaError
from pandastack.services.processes.commands import Streams, checked_id
from pandastack.services.processes.idle_watch import IdleWatch
from pandastack.services.records.activity import Activity
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.settings import Settings
from pandastack.store.sandboxes import Status

LONGEST_WAIT_SECONDS = 3600.0
_MAX_TEXT = 4096
_MAX_ENV_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class NewProcess:
    """What to start. ``terminal`` is rows and columns; ``background`` does not keep its sandbox from being idle."""

    cmd: str
    id: str
    timeout_seconds: float | None = None
    cwd: str | None = None
    user: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bool = False
    background: bool = False
    terminal: tuple[int, int] | None = None


class Processes:
    """Starts processes, and finds those that a sandbox has."""

    def __init__(
        self,
        registry: Registry,
        sandboxes: Sandboxes,
        engine: EngineClient,
        activity: Activity,
        streams: Streams,
        idle_watch: IdleWatch,
        settings: Settings,
    ) -> None:
        self._registry = registry
        self._sandboxes = sandboxes
        self._engine = engine
        self._activity = activity
        self._streams = streams
        self._idle_watch = idle_watch
        self._settings = settings

    def plan(self, body: Mapping[str, Any]) -> NewProcess:
        """Check what a caller sent; raises :class:`BadRequestError` with the field's name."""
        cmd, seconds = body.get("cmd") or "", body.get("timeout_seconds") or 0.0
        if not cmd:
            raise BadRequestError("cmd: must not be empty", field="cmd")
        for name, text in (("cmd", cmd), ("cwd", body.get("cwd") or ""), ("user", body.get("user") or "")):
            if "\0" in text or (name != "cmd" and len(text) > _MAX_TEXT):
                raise BadRequestError(f"{name}: must be shorter than 4096 characters, without NUL", field=name)
        if (cwd := body.get("cwd")) and not cwd.startswith("/"):
            raise BadRequestError("cwd: must be absolute", field="cwd")
        if not math.isfinite(seconds) or not 0 <= seconds <= self._settings.max_command_seconds:
            most = self._settings.max_command_seconds
            raise BadRequestError(f"timeout_seconds: must be between 0 and {most:.0f}", field="timeout_seconds")
        given = body.get("id")
        return NewProcess(
            cmd=cmd,
            id=checked_id(given) if given is not None else str(uuid.uuid4()),
            timeout_seconds=seconds or None,
            cwd=cwd or None,
            user=body.get("user") or None,
            env=_checked_env(body.get("env") or {}),
            stdin=bool(body.get("stdin")),
            background=bool(body.get("background")),
            terminal=checked_size(body.get("rows") or 24, body.get("cols") or 80) if body.get("pty") else None,
        )

    async def start(self, workspace: str, sandbox_id: str, new: NewProcess) -> dict[str, Any]:
        """Start it and return its record; raises :class:`QuotaError` when the sandbox has too many."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            await self._admit(sandbox.id)
            self._activity.ran(sandbox.id, new.cmd)
            try:
                record = await self._engine.start_process(sandbox.id, self._order(new))
            finally:
                self._activity.done(sandbox.id)  # what it does later is not this command's
            if not new.background:
                self._idle_watch.watch(sandbox.id, new.id)
            return record

    def _order(self, new: NewProcess) -> dict[str, Any]:
        order: dict[str, Any] = {
            "cmd": new.cmd,
            "id": new.id,
            "timeout_seconds": new.timeout_seconds,
            "cwd": new.cwd,
            "user": new.user,
            "env": dict(new.env),
            "stdin_open": new.stdin,
            "background": new.background,
            "spool": True,
            "keep_bytes": self._settings.kept_output_bytes,
        }
        if new.terminal is not None:
            order["terminal"] = {"rows": new.terminal[0], "cols": new.terminal[1]}
        return order

    async def _admit(self, sandbox_id: str) -> None:
        found = (await self._engine.processes(sandbox_id))["processes"]
        running = sum(bool(each.get("running")) for each in found)
        if running >= self._settings.max_processes:
            raise QuotaError(
                f"sandbox {sandbox_id} already runs {running} processes",
                hint="end some, or ask the operator to raise PANDASTACK_MAX_PROCESSES",
            )

    async def check(self, workspace: str, sandbox_id: str, *, running: bool = False) -> None:
        """Raise when the sandbox does not exist, or with ``running`` when it would have to be woken."""
        record = self._sandboxes.get(workspace, sandbox_id)
        if record.status not in ((Status.RUNNING,) if running else (Status.RUNNING, Status.HIBERNATED)):
            raise await self._registry.refusal(record)

    async def list(self, workspace: str, sandbox_id: str) -> dict[str, Any]:
        """``processes``, oldest first, and ``retention``."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            return await self._engine.processes(sandbox.id)

    async def get(self, workspace: str, sandbox_id: str, process: str) -> dict[str, Any]:
        """One record, by id or pid."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            return await self._engine.process(sandbox.id, process)

    @asynccontextmanager
    async def view(
        self,
        workspace: str,
        sandbox_id: str,
        process: str,
        *,
        stdout: int | None = None,
        stderr: int | None = None,
        follow: bool = True,
    ) -> AsyncIterator[AsyncIterator[Record]]:
        """Output from these offsets on; a negative one counts from the end. Leaving leaves the process as it is."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            if (stdout or 0) < 0 or (stderr or 0) < 0:
                record = await self._engine.process(sandbox.id, process)
                stdout, stderr = _from_end(record, "stdout", stdout), _from_end(record, "stderr", stderr)
            with self._streams.one(sandbox.id):
                view = self._engine.attach(sandbox.id, process, stdout=stdout, stderr=stderr, follow=follow)
                async with view as records:
                    yield records

    async def wait(self, workspace: str, sandbox_id: str, process: str, seconds: float) -> dict[str, Any]:
        """The record when the process has ended, or as it is after ``seconds``."""
        with anyio.move_on_after(seconds):
            async with self.view(workspace, sandbox_id, process) as records:
                async for _ in records:
                    pass
        return await self.get(workspace, sandbox_id, process)

    async def send_input(
        self, workspace: str, sandbox_id: str, process: str, data: bytes | AsyncIterator[bytes], *, close: bool
    ) -> int:
        """Write to the standard input; returns the bytes that it took."""
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            with self._streams.one(sandbox.id):
                return await self._engine.send_input(sandbox.id, process, data, close)

    async def signal(self, workspace: str, sandbox_id: str, process: str, signal: int | str) -> None:
        """Send a signal, by number or name, to the process's group."""
        number = checked_signal(signal)
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            await self._engine.signal(sandbox.id, process, number)

    async def resize(self, workspace: str, sandbox_id: str, process: str, rows: int, cols: int) -> None:
        """Give the process's terminal another size."""
        await self.check(workspace, sandbox_id)
        size = checked_size(rows, cols)
        async with self._sandboxes.use(workspace, sandbox_id) as sandbox:
            await self._engine.resize(sandbox.id, process, *size)


def checked_signal(signal: int | str) -> int:
    """A signal's number: 1 to 64, or a name such as ``TERM`` or ``SIGTERM``."""
    text = str(signal)[:32]
    name = text.upper().removeprefix("SIG")
    number = int(text) if re.fullmatch("[0-9]{1,2}", text) else signals.Signals.__members__.get(f"SIG{name}", 0)
    if not 1 <= number <= 64:
        raise BadRequestError(f"signal: unknown signal {text}", field="signal", hint="such as TERM, KILL or 15")
    return int(number)


def checked_size(rows: int, cols: int) -> tuple[int, int]:
    """Rows and columns of a terminal."""
    if not (1 <= rows <= 65535 and 1 <= cols <= 65535):
        raise BadRequestError("rows and cols: must be between 1 and 65535", field="rows")
    return rows, cols


def _checked_env(env: Mapping[str, str]) -> Mapping[str, str]:
    for key, value in env.items():
        if not key or "=" in key or "\0" in key + value:
            raise BadRequestError(f"env: {key[:64]!r} is not a valid variable", field="env")
    if sum(len(key) + len(value) for key, value in env.items()) > _MAX_ENV_BYTES:
        raise BadRequestError(f"env: must not be longer than {_MAX_ENV_BYTES} bytes", field="env")
    return env


def _from_end(record: Mapping[str, Any], name: str, offset: int | None) -> int | None:
    if offset is None or offset >= 0:
        return offset
    return max(int(record[name]["base"]), int(record[name]["end"]) + offset)
