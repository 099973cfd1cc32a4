"""The server of a data directory, seen from outside: find it, start it in the background, stop it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pandastack.errors import PandastackError, ServerError
from pandastack.host.files import own_directory, write_atomically
from pandastack.host.processes.identity import ProcessIdentity, alive, identify, kill

STATE_FILE = "server.json"
LOG_FILE = "server.log"

STOP_DEADLINE = 120.0
"""Seconds a server may take to hibernate or end all its machines before it is killed."""

READY_VARIABLE = "PANDASTACK_READY_FD"
"""The descriptor on which a detached server reports that it answers."""


@dataclass(frozen=True)
class Server:
    """A running server; ``url`` is where its API answers, ``ports`` are those of the gateway's doors."""

    url: str
    process: ProcessIdentity
    ports: Mapping[str, int] = field(default_factory=dict)


def own(data: Path) -> None:
    """Make the data directory, accessible to this user only: it holds the store and every machine's memory."""
    hint = f"look at what is in it, then chown and chmod 700 {data}, or choose another data directory"
    own_directory(data, links=True, hint=hint)


def record(data: Path, url: str, ports: Mapping[str, int] | None = None) -> None:
    """Record that this process is the server of ``data``."""
    identity = identify(os.getpid())
    assert identity is not None
    write_atomically(
        data / STATE_FILE, json.dumps({"url": url, "process": asdict(identity), "ports": dict(ports or {})}).encode()
    )


def forget(data: Path) -> None:
    (data / STATE_FILE).unlink(missing_ok=True)


def find(data: Path) -> Server | None:
    """The living server of ``data``, if there is one."""
    try:
        state = json.loads((data / STATE_FILE).read_bytes())
        server = Server(str(state["url"]), ProcessIdentity(**state["process"]), dict(state.get("ports", {})))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return server if alive(server.process) else None


def start_detached(data: Path, arguments: list[str], deadline: float) -> str:
    """Start ``pandastack up`` in a session of its own; returns the line that it prints when it answers.

    Raises :class:`ServerError` with the end of its log when it does not.
    """
    own(data)
    log = data / LOG_FILE
    receive, send = os.pipe()
    argv = [sys.executable, "-m", "pandastack.cli", "up", *arguments]
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[send],
            env={**os.environ, READY_VARIABLE: str(send)},
            start_new_session=True,
        )
    os.close(send)
    with os.fdopen(receive, "rb") as ready:
        line = _line(ready.fileno(), deadline)
    if not line:
        process.kill()
        process.wait()
        tail = "\n  ".join(log.read_text(errors="replace").strip().splitlines()[-15:])
        raise ServerError(f"the server did not start:\n  {tail}", hint=f"the whole log is {log}")
    return line


def _line(fd: int, deadline: float) -> str:
    """One line from a pipe; empty when its writer ended or the deadline (seconds) passed."""
    if not select.select([fd], [], [], deadline)[0]:
        return ""
    return os.read(fd, 4096).decode().strip()


def announce(line: str) -> None:
    """Report that the server answers: to the terminal, and to the process that started it in the background."""
    print(line, flush=True)
    descriptor = os.environ.pop(READY_VARIABLE, None)
    if descriptor is not None:
        os.write(int(descriptor), line.encode() + b"\n")
        os.close(int(descriptor))


def stop(server: Server) -> None:
    """Ask the server to end and wait until it has; kill it when it does not within :data:`STOP_DEADLINE`."""
    try:
        fd = os.pidfd_open(server.process.pid)
    except ProcessLookupError:
        return
    try:
        if not alive(server.process):
            return
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        if select.select([fd], [], [], STOP_DEADLINE)[0]:
            return
        kill(server.process)
        select.select([fd], [], [], STOP_DEADLINE)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)
    raise PandastackError(
        f"the server did not stop within {STOP_DEADLINE:g} s and was killed",
        hint="the next `pandastack up` takes over the sandboxes that are still running",
    )
