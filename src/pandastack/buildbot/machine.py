"""One machine of a latent worker, from its creation to its end. Blocking: it has a thread of its own."""

from __future__ import annotations

import json
import secrets
import shlex
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pandastack.errors import NotFoundError, PandastackError
from pandastack.sdk import Client, Sandbox

PROGRAM = "/run/pandastack-buildbot.py"
_IDLE_SECONDS = 60
"""How long a machine outlives a master that was killed: its worker program ends with the connection."""
_ENOUGH = 4000
"""Characters of the program's last output that are kept to explain its end."""


@dataclass(frozen=True)
class Wanted:
    """What machines a latent worker has."""

    pool: str
    owner: Mapping[str, str]
    """The metadata of its machines, by which one finds what a former master has left."""
    trusted: bool = False
    python: str = "python3"
    directory: str = "/var/lib/buildbot-worker"
    max_lifetime_seconds: int | None = None


@dataclass(frozen=True)
class Login:
    """Whom the worker program logs in as at the master, and the token that a tunnel must show to be its connection."""

    name: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)


def plan_input(wanted: Wanted, login: Login) -> str:
    """The standard input of the worker program."""
    told = {"name": login.name, "password": login.password, "token": login.token, "directory": wanted.directory}
    return json.dumps(told)


def find_port(printed: str) -> int | None:
    """The port in what the program has printed so far. Raises PandastackError when that is something else."""
    line, end, _ = printed.partition("\n")
    if not end and len(line) < 6:
        return None
    if not (line.isascii() and line.isdecimal() and 0 < int(line[:6]) < 65536):
        raise PandastackError(f"the worker program printed {line[:40]!r} instead of a port")
    return int(line)


def tunnel_url(api_url: str, sandbox_id: str, port: int) -> str:
    """The WebSocket that is a connection to a port of a sandbox."""
    parts = urlsplit(api_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, f"{parts.path}/v1/sandboxes/{sandbox_id}/tunnel/{port}", "", ""))


class Machine:
    """A machine with a worker program. :meth:`run` lasts as long as it does; :meth:`stop` ends both."""

    def __init__(self, client: Client, wanted: Wanted, login: Login) -> None:
        self._client, self._wanted, self.login = client, wanted, login
        self._lock = threading.Lock()
        self._sandbox: Sandbox | None = None
        self._stopped = False

    def run(self, listening: Callable[[str, int], object]) -> str:
        """Make the machine, start the program, and wait for its end; returns what it said last. ``listening`` is given
        the sandbox's id and the port. The machine is gone when this returns or raises.
        """
        wanted = self._wanted
        sandbox = self._client.runners.sandbox(
            wanted.pool,
            trusted=wanted.trusted,
            ttl_seconds=_IDLE_SECONDS,
            max_lifetime_seconds=wanted.max_lifetime_seconds,
            metadata=wanted.owner,
        )
        try:
            with self._lock:
                self._sandbox = sandbox
                stopped = self._stopped
            return "" if stopped else self._work(sandbox, listening)
        finally:
            end(sandbox)

    def stop(self) -> bool:
        """End the machine. False when it is being created still: then :meth:`run` ends it."""
        with self._lock:
            self._stopped = True
            sandbox = self._sandbox
        if sandbox is None:
            return False
        end(sandbox)
        return True

    def _work(self, sandbox: Sandbox, listening: Callable[[str, int], object]) -> str:
        sandbox.filesystem.write(PROGRAM, Path(__file__).with_name("guest.py").read_bytes())
        command = f"exec {shlex.quote(self._wanted.python)} -u {PROGRAM}"
        process = sandbox.processes.start(command, stdin=True)
        process.send_stdin(plan_input(self._wanted, self.login), close=True)
        printed, last = "", ""

        def take(text: str) -> None:
            nonlocal printed
            if find_port(printed) is not None:
                return
            printed += text
            if (port := find_port(printed)) is not None:
                listening(sandbox.id, port)

        def keep(text: str) -> None:
            nonlocal last
            last = (last + text)[-_ENOUGH:]

        exit_code = process.follow(take, keep)
        return f"the worker program ended with exit code {exit_code}: {last.strip()}"


def end(sandbox: Sandbox) -> None:
    """Delete a machine that may be gone."""
    with suppress(NotFoundError):
        sandbox.kill()


def end_leftovers(client: Client, owner: Mapping[str, str]) -> int:
    """Delete the machines that a master has left that was killed; returns how many there were."""
    left = client.sandboxes.list(metadata=owner)
    for each in left:
        end(each)
    return len(left)
