# Generated from ../_async/commands.py by scripts/generate_sync.py: change that file, not this one.
"""Runs commands in a sandbox: with all output at the end, or streamed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx

from pandastack.errors import CommandFailed, ConnectionError, ExecInterrupted, SandboxTimeout, ServerError
from pandastack.sdk._sse import Event, EventDecoder
from pandastack.sdk._sync.interfaces import Connection, SandboxHandle
from pandastack.sdk._types import ExecResult
from pandastack.sdk.wire.call import exec_command
from pandastack.sdk.wire.coding import json_object, mapped_command_timeout, mapped_transport_errors

_PARTIAL_OUTPUT_CHARACTERS = 1 << 20


class SandboxCommands:
    """Another spelling of the sandbox's :meth:`exec`."""

    def __init__(self, sandbox: SandboxHandle) -> None:
        self._sandbox = sandbox

    def run(self, cmd: str, timeout: int | None = None) -> ExecResult:
        """Run a shell command; ``timeout`` in seconds. Raises SandboxTimeout."""
        return run_command(self._sandbox.client, self._sandbox.id, cmd, timeout, check=False)


def run_command(
    client: Connection, sandbox_id: str, cmd: str, timeout_seconds: float | None, check: bool
) -> ExecResult:
    """Run ``cmd`` to its end. Raises SandboxTimeout, and CommandFailed if ``check`` and it failed."""
    call = exec_command(sandbox_id, cmd, timeout_seconds, streamed=False, default=client.timeout)
    with mapped_command_timeout():
        result = ExecResult.from_dict(json_object(client.transport.run(call)))
    if check and result.exit_code != 0:
        raise CommandFailed(
            f"the command exited with status {result.exit_code}: {cmd}",
            exit_code=result.exit_code,
            stdout=result.stdout,
            stderr=result.stderr,
        )
    return result


class _Tail:
    """The last part of a text that arrives in pieces, for errors; bounded, since a command may print forever."""

    def __init__(self) -> None:
        self._chunks: deque[str] = deque()
        self._size = 0

    def add(self, chunk: str) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._chunks[0]) >= _PARTIAL_OUTPUT_CHARACTERS:
            self._size -= len(self._chunks.popleft())

    def text(self) -> str:
        return "".join(self._chunks)[-_PARTIAL_OUTPUT_CHARACTERS:]


class CommandStream:
    """One streamed command: hands out chunks, and retains the last of them in case the stream breaks."""

    def __init__(self, on_stdout: Callable[[str], object] | None, on_stderr: Callable[[str], object] | None) -> None:
        self._listeners = {"stdout": on_stdout, "stderr": on_stderr}
        self._tails = {"stdout": _Tail(), "stderr": _Tail()}
        self._process_id: str | None = None

    def run(self, client: Connection, sandbox_id: str, cmd: str, timeout_seconds: float | None) -> int:
        """Run ``cmd`` and return its exit code. Raises SandboxTimeout and ExecInterrupted."""
        call = exec_command(sandbox_id, cmd, timeout_seconds, streamed=True, default=client.timeout)
        with mapped_command_timeout():
            response = client.transport.run(call)
        self._process_id = response.headers.get("x-pandastack-process")
        with closing(response):
            return self._read(response, client.api_url)

    def _read(self, response: httpx.Response, url: str) -> int:
        decoder = EventDecoder()
        pieces = response.iter_bytes()
        while True:
            try:
                with mapped_transport_errors(url):
                    piece = next(pieces, None)
            except ConnectionError as cause:
                raise self._interrupted(cause.message) from cause
            if piece is None:
                raise self._interrupted("the stream ended without the command's outcome")
            for event in decoder.feed(piece):
                exit_code = self._handle(event)
                if exit_code is not None:
                    return exit_code

    def _handle(self, event: Event) -> int | None:
        """Handle one event; returns the exit code after the last one."""
        if event.name not in ("stdout", "stderr", "exit", "error"):
            return None
        data = self._decoded(event)
        if event.name == "exit":
            return int(data["exit_code"] if "exit_code" in data else data["exit"])
        if event.name == "error":
            message = str(data.get("error") or "the command could not be run")
            raise (SandboxTimeout if "timeout" in message.lower() else ServerError)(message)
        chunk = str(data.get("chunk") or "")
        self._tails[event.name].add(chunk)
        listener = self._listeners[event.name]
        if listener is not None:
            listener(chunk)
        return None

    def _decoded(self, event: Event) -> dict[str, Any]:
        try:
            data = json.loads(event.data)
        except ValueError as cause:
            raise self._interrupted(f"the stream holds a broken {event.name} event") from cause
        valid = isinstance(data, dict) and (event.name != "exit" or "exit_code" in data or "exit" in data)
        if not valid:
            raise self._interrupted(f"the stream holds a broken {event.name} event")
        return dict(data)

    def _interrupted(self, reason: str) -> ExecInterrupted:
        return ExecInterrupted(
            f"{reason}; whether the command finished is unknown",
            partial_stdout=self._tails["stdout"].text(),
            partial_stderr=self._tails["stderr"].text(),
            process_id=self._process_id,
        )
