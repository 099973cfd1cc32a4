# Generated from ../_async/processes.py by scripts/generate_sync.py: change that file, not this one.
"""Processes of a sandbox: commands that run whether or not a client is attached, and whose output is retained."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Literal, Self

import httpx

from pandastack.errors import ConnectionError, ExecInterrupted, PandastackError, UnavailableError
from pandastack.sdk._runtime import pause
from pandastack.sdk._sse import EventDecoder
from pandastack.sdk._sync.interfaces import SandboxHandle
from pandastack.sdk._types import ProcessInfo
from pandastack.sdk.wire.call import STREAM_SILENCE_SECONDS, Call, segment
from pandastack.sdk.wire.coding import json_object, json_value, mapped_transport_errors

_WAIT_SECONDS = 20.0
"""How long one request waits for the end of a process; well below the time that clients wait for an answer."""
_INPUT_BYTES = 1 << 20
"""Bytes in one request to a standard input."""
_RECONNECT_SECONDS = 60.0
"""How long a broken stream is retried."""


class Process:
    """One process, as the server last reported it in ``info``; :meth:`refresh` asks again."""

    def __init__(self, sandbox: SandboxHandle, info: ProcessInfo) -> None:
        self._sandbox = sandbox
        self.info = info

    @property
    def id(self) -> str:
        """Its id, valid for as long as the sandbox remembers it."""
        return self.info.id

    def refresh(self) -> Self:
        """Fetch the current record from the server."""
        self.info = ProcessInfo.from_dict(self._sandbox.client.transport.object(self._call("GET")))
        return self

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Wait for its end and return the exit code. Raises TimeoutError when it still runs after the timeout."""
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = _WAIT_SECONDS if end is None else max(0.0, min(_WAIT_SECONDS, end - time.monotonic()))
            call = self._call("POST", "/wait", json={"timeout_seconds": left}, silence=_WAIT_SECONDS + 30)
            self.info = ProcessInfo.from_dict(self._sandbox.client.transport.object(call))
            if self.info.exit_code is not None:
                return self.info.exit_code
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"process {self.id} is still running after {timeout_seconds:g} s")

    def output(self, stream: str = "stdout", offset: int = 0) -> bytes:
        """Its output so far on ``stdout`` or ``stderr``, from ``offset`` on (negative: from the end)."""
        query = {"stream": stream, "offset": str(offset)}
        response = self._sandbox.client.transport.run(self._call("GET", "/output", params=query))
        return response.content

    def follow(
        self,
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        *,
        on_gap: Callable[[str, int, int], object] | None = None,
    ) -> int:
        """Pass its output, from the first byte on, to the callbacks as it arrives, and return the exit code.

        A broken stream is resumed where it stopped, and nothing arrives twice. ``on_gap`` gets the name of the
        stream and the offsets between which bytes are no longer retained. Raises ExecInterrupted when the server
        does not come back within a minute.
        """
        view = _View(on_stdout, on_stderr, on_gap)
        lost_at: float | None = None
        while True:
            try:
                exit_code = self._look(view)
                if exit_code is not None:
                    return exit_code
            except (ConnectionError, UnavailableError) as cause:
                if lost_at is None or view.moved:
                    lost_at = time.monotonic()
                if time.monotonic() - lost_at > _RECONNECT_SECONDS:
                    raise ExecInterrupted(f"{cause.message}; process {self.id} may still be running") from cause
                view.moved = False
            pause(0.5, None)

    def _look(self, view: _View) -> int | None:
        """Read one connection; None when it ended before the process did."""
        query = {"follow": "1", "offset": str(view.at["stdout"]), "stderr_offset": str(view.at["stderr"])}
        call = self._call("GET", "/output", params=query, silence=STREAM_SILENCE_SECONDS, streamed=True)
        response = self._sandbox.client.transport.run(call)
        with closing(response):
            return self._read(response, view)

    def _read(self, response: httpx.Response, view: _View) -> int | None:
        decoder = EventDecoder()
        pieces = response.iter_bytes()
        while True:
            with mapped_transport_errors(self._sandbox.client.api_url):
                piece = next(pieces, None)
            if piece is None:
                return None
            for event in decoder.feed(piece):
                exit_code = view.take(event.name, event.data)
                if exit_code is not None:
                    return exit_code

    def send_stdin(self, data: bytes | str, *, close: bool = False) -> int:
        """Write to its standard input, and close it with ``close``; returns the number of bytes accepted."""
        content = data.encode() if isinstance(data, str) else bytes(data)
        taken = 0
        for at in range(0, max(len(content), 1), _INPUT_BYTES):
            piece = content[at : at + _INPUT_BYTES]
            last = at + len(piece) == len(content)
            query = {"close": "1"} if close and last else {}
            answer = self._sandbox.client.transport.object(
                self._call("POST", "/stdin", params=query, content=piece)
            )
            taken += int(answer["bytes"])
        return taken

    def signal(self, signal: int | str = "TERM") -> None:
        """Send a signal, by name or number, to its process group. Raises ConflictError when it has ended."""
        self._sandbox.client.transport.run(self._call("POST", "/signal", json={"signal": signal}))

    def kill(self) -> None:
        """Send it KILL."""
        self.signal("KILL")

    def _call(self, method: str, below: str = "", **options: Any) -> Call:
        path = f"/sandboxes/{segment(self._sandbox.id)}/processes/{segment(self.id)}{below}"
        return Call(method, path, **options)


class Processes:
    """The processes of one sandbox."""

    def __init__(self, sandbox: SandboxHandle) -> None:
        self._sandbox = sandbox

    def start(
        self,
        cmd: str,
        *,
        background: bool = False,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stdin: bool = False,
        timeout_seconds: float | None = None,
        id: str | None = None,
    ) -> Process:
        """Start a command and return at once. It keeps running when this program, or the server, ends.

        A ``background`` process does not count as activity of the sandbox; ``stdin`` leaves standard input open. With
        your own ``id`` (a UUID) you can always find it again; a second start with the same id raises ConflictError.
        """
        optional = {
            "background": background or None,
            "cwd": cwd,
            "env": None if env is None else dict(env),
            "user": user,
            "stdin": stdin or None,
            "timeout_seconds": timeout_seconds,
            "id": id,
        }
        body = {"cmd": cmd, **{key: value for key, value in optional.items() if value is not None}}
        answer = self._sandbox.client.transport.object(Call("POST", self._path(), json=body))
        return Process(self._sandbox, ProcessInfo.from_dict(answer))

    def list(self, *, status: Literal["running", "exited"] | None = None) -> list[Process]:
        """Running and remembered processes, or only one kind, oldest first. Commands run by ``exec`` are included."""
        call = Call("GET", self._path(), params={} if status is None else {"status": status})
        answer = json_object(self._sandbox.client.transport.run(call))
        return [Process(self._sandbox, ProcessInfo.from_dict(each)) for each in answer["processes"]]

    def get(self, process: str | int) -> Process:
        """One process, by its id or pid. Raises NotFoundError."""
        call = Call("GET", f"{self._path()}/{segment(str(process))}")
        answer = json_value(self._sandbox.client.transport.run(call))
        return Process(self._sandbox, ProcessInfo.from_dict(answer))

    def _path(self) -> str:
        return f"/sandboxes/{segment(self._sandbox.id)}/processes"


class _View:
    """The position of a reader, across any number of connections."""

    def __init__(
        self,
        on_stdout: Callable[[str], object] | None,
        on_stderr: Callable[[str], object] | None,
        on_gap: Callable[[str, int, int], object] | None,
    ) -> None:
        self.at = {"stdout": 0, "stderr": 0}
        self.moved = False
        self._listeners = {"stdout": on_stdout, "stderr": on_stderr}
        self._on_gap = on_gap

    def take(self, name: str, text: str) -> int | None:
        """Handle one event; returns the exit code after the last one."""
        data = json.loads(text) if text else {}
        if name in self.at:
            self.at[name], self.moved = int(data["end"]), True
            listener = self._listeners[name]
            if listener is not None:
                listener(str(data["chunk"]))
        elif name == "gap":
            self.at[str(data["stream"])] = int(data["end"])
            if self._on_gap is not None:
                self._on_gap(str(data["stream"]), int(data["start"]), int(data["end"]))
        elif name == "exit":
            return int(data["exit_code"])
        elif name == "error":
            message = str(data.get("error") or "the output cannot be read")
            raise UnavailableError(message) if data.get("code") != "not_found" else PandastackError(message)
        return None
