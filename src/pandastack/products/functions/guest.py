"""What a function has in its machine: its files, what they depend on, and the warm process that answers calls."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from pydantic_core import from_json

from pandastack.contract.records import ExecFailed, ExecResult, Output
from pandastack.errors import BadRequestError, GuestError, PandastackError
from pandastack.in_guest import function_programs
from pandastack.model.caller import Caller
from pandastack.products.functions.bundle import Bundle
from pandastack.products.functions.dependencies import REQUIREMENTS, Install
from pandastack.products.functions.frames import Frames, passed_on
from pandastack.products.functions.spec import RUNTIMES, file_of, name_of
from pandastack.products.functions.streams import Stream
from pandastack.products.functions.verdict import Copy, parse_copy, parse_sockets
from pandastack.services import ControlPlane
from pandastack.services.files.scripts import plan_command
from pandastack.services.files.tar_filter import Outside
from pandastack.services.processes.spec import Command
from pandastack.store.functions import RunStatus

ROOT = "/fn"
PROGRAMS = "/usr/lib/pandastack/functions"
SOCKET = "/run/pandastack-function.sock"
OUTPUT = "/run/pandastack-function"
MOST_TEXT = 64 * 1024
"""Characters of an output, a traceback and a complaint that are kept: the last ones."""

_MOST_ANSWER = 24 * 1024 * 1024
_MOST_CHECK = 256 * 1024
_CHECK_SECONDS = 30.0
_PIECE = 1 << 20
_PARSED_HERE = 64 * 1024
_INSTALL_SECONDS = 900.0
_IMPORT_SECONDS = 180.0
_KINDS = ("handler", "wsgi", "asgi", "fetch", "script")

_START = f"""mkdir -p {OUTPUT}
cd {PROGRAMS}
{{ setsid PROGRAM "$1" 3>&1 >/dev/null 2>&1 </dev/null & }} | cat
"""


class Ended(Exception):
    """The function's process ended before it answered."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a process has imported: its kind, and the connections that were open then."""

    kind: str
    sockets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the process in the machine says of a call. ``result`` is JSON; ``body`` is the whole output of a script."""

    status: RunStatus
    exit_code: int | None
    error: str | None
    traceback: str | None
    result: str | None
    body: str | None
    stdout: str
    stderr: str
    duration_ms: float | None
    cpu_seconds: float | None
    peak_memory_mb: float | None


class Guest:
    """The machine of a function, by the id of its sandbox."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def put(self, caller: Caller, sandbox_id: str, bundle: Bundle, runtime: str) -> None:
        """Write a function's files and our programs. Raises :class:`BadRequestError` for an unsafe archive."""
        programs = await anyio.to_thread.run_sync(function_programs, runtime)
        for name, content in programs.items():
            await self._plane.files.write(caller, sandbox_id, f"{PROGRAMS}/{name}", _once(content))
        await self._plane.archives.unpack(caller, sandbox_id, ROOT, Outside.REFUSE, _content(bundle.archive))

    async def install(self, caller: Caller, sandbox_id: str, install: Install) -> None:
        """Install what the function depends on. Raises :class:`BadRequestError` with what the installer said."""
        if install.requirements is not None:
            await self._plane.files.write(caller, sandbox_id, REQUIREMENTS, _once(install.requirements))
        code, _, complaints = await self._run(caller, sandbox_id, install.script, _INSTALL_SECONDS)
        if code:
            detail = {"exit_code": code, "stderr": complaints}
            hint = "`detail.stderr` has the end of what the installer printed"
            raise BadRequestError(
                f"the dependencies in {install.source} cannot be installed", field="bundle", detail=detail, hint=hint
            )

    async def start(self, caller: Caller, sandbox_id: str, entrypoint: str, runtime: str) -> Loaded:
        """Start the process, and return what it has imported. Raises :class:`BadRequestError` with the
        traceback when it cannot."""
        given = {
            "root": ROOT,
            "entrypoint": file_of(entrypoint),
            "name": name_of(entrypoint),
            "socket": SOCKET,
            "output": OUTPUT,
        }
        script = _START.replace("PROGRAM", RUNTIMES[runtime].program)
        command = plan_command(script, json.dumps(given))
        _, said, complaints = await self._run(caller, sandbox_id, command, _IMPORT_SECONDS)
        try:
            report = from_json(said)
            kind = report.get("kind")
        except (ValueError, AttributeError):
            detail = {"stderr": complaints or said}
            hint = f"does the template have {RUNTIMES[runtime].program.split()[0]}?"
            raise BadRequestError("the function ended while it was imported", detail=detail, hint=hint) from None
        if kind in _KINDS:
            return Loaded(str(kind), parse_sockets(report.get("sockets")))
        detail = {name: str(report.get(name) or "")[-MOST_TEXT:] for name in ("traceback", "stderr")}
        why = str(report.get("error") or "unknown error")[:500]
        hint = "`detail.traceback` says where; the former version serves on"
        raise BadRequestError(f"the function cannot be imported: {why}", detail=detail, hint=hint)

    async def call(
        self, caller: Caller, sandbox_id: str, request: Mapping[str, Any], limit: float, stream: Stream | None = None
    ) -> Answer:
        """Send one call, and return the answer. What comes before it in pieces goes to ``stream``, if there is one.

        Raises :class:`TimeoutError` after ``limit`` seconds, :class:`Ended`, :class:`ClientLeft`, and
        :class:`GuestError` for an answer that makes no sense."""
        with anyio.fail_after(limit):
            async with self._asked(caller, sandbox_id, request) as frames:
                answer = await (
                    frames.next(_MOST_ANSWER) if stream is None else passed_on(frames, stream, _MOST_ANSWER)
                )
        if len(answer) <= _PARSED_HERE:
            return _answer(answer)
        return await anyio.to_thread.run_sync(_answer, answer)

    async def check(self, caller: Caller, sandbox_id: str) -> Copy:
        """What a copy of the machine draws and holds; no handler runs. The same errors."""
        with anyio.fail_after(_CHECK_SECONDS):
            async with self._asked(caller, sandbox_id, {"check": ROOT}) as frames:
                return parse_copy(await frames.next(_MOST_CHECK))

    @asynccontextmanager
    async def _asked(self, caller: Caller, sandbox_id: str, request: Mapping[str, Any]) -> AsyncIterator[Frames]:
        data = json.dumps(request).encode()
        async with self._plane.interior.connect(caller, sandbox_id, SOCKET) as connection:
            try:
                await connection.send(struct.pack("!I", len(data)) + data)
                yield Frames(connection)
            except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
                raise Ended from error

    async def printed(self, caller: Caller, sandbox_id: str, name: str) -> str:
        """The end of what was printed to ``stdout`` or ``stderr`` by a process that has ended."""
        data = b""
        with suppress(PandastackError), anyio.move_on_after(5):
            entry = await self._plane.files.stat(caller, sandbox_id, f"{OUTPUT}/{name}")
            start = max(0, entry.size - MOST_TEXT)
            async with self._plane.files.read(caller, sandbox_id, f"{OUTPUT}/{name}", start, MOST_TEXT) as (_, chunks):
                async for chunk in chunks:
                    data += chunk
        return data.decode(errors="replace")[-MOST_TEXT:]

    async def _run(self, caller: Caller, sandbox_id: str, script: str, limit: float) -> tuple[int, str, str]:
        """Run a script: its exit code, and the ends of both outputs."""
        ends = {1: bytearray(), 2: bytearray()}
        code = -1
        async with self._plane.commands.stream(caller, sandbox_id, Command(script, limit)) as records:
            async for record in records:
                if isinstance(record, Output):
                    end = ends[2 if record.kind == 2 else 1]
                    end += record.data
                    del end[:-MOST_TEXT]
                elif isinstance(record, ExecFailed):
                    raise record.failure.exception()
                elif isinstance(record, ExecResult):
                    code = -1 if record.timed_out else record.exit_code
                    if record.timed_out:
                        ends[2] += f"\nit took over {limit:g} s".encode()
        return code, ends[1].decode(errors="replace"), ends[2].decode(errors="replace")


def _answer(data: bytes) -> Answer:
    """Raises :class:`GuestError`."""
    try:
        given = from_json(data, allow_inf_nan=False)
        result = _text(given, "result", _MOST_ANSWER)
        if result is not None:
            from_json(result, allow_inf_nan=False)
        return Answer(
            status=RunStatus(given["status"]),
            exit_code=None
            if given.get("exit_code") is None
            else max(-(2**31), min(int(given["exit_code"]), 2**31 - 1)),
            error=_text(given, "error"),
            traceback=_text(given, "traceback"),
            result=result,
            body=_text(given, "body", _MOST_ANSWER),
            stdout=_text(given, "stdout") or "",
            stderr=_text(given, "stderr") or "",
            duration_ms=_number(given, "duration_ms"),
            cpu_seconds=_number(given, "cpu_seconds"),
            peak_memory_mb=_number(given, "peak_memory_mb"),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise GuestError("the answer of the function's process is malformed") from error


def _text(given: Mapping[str, Any], name: str, most: int = MOST_TEXT) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(name)
    return None if value is None else value[-most:].replace("\0", "\N{REPLACEMENT CHARACTER}")


def _number(given: Mapping[str, Any], name: str) -> float | None:
    value = given.get(name)
    return None if value is None else max(0.0, min(float(value), 1e12))


async def _content(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(_PIECE):
            yield piece


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
