"""Programs that speak with strangers: run as a user of their own, without privileges, in namespaces in which there is
no other process, and no network but listeners of ours. Whatever such a program wants to reach comes through these.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import Process

from pandastack.host.processes import isolating
from pandastack.host.processes.run import CommandError, stop

MEMORY = "memory"
"""The folder below the program's ``/tmp`` whose files are in memory, and gone with the process."""

_START_SECONDS, _END_SECONDS = 20.0, 5.0
_MOST_LISTENERS = 64


@dataclass(frozen=True)
class Isolation:
    """``folder`` is the program's ``/tmp``, an absolute path; ``uid`` its user (None: ours). ``listen`` are addresses
    and ports inside; ``files`` texts by their names in ``/tmp/memory``. ``limits`` are those of getrlimit(2)."""

    folder: Path
    uid: int | None
    listen: tuple[tuple[str, int], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    limits: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Isolated:
    """A running program, and the listeners inside its namespace in the order of ``listen``; they close with it."""

    process: Process
    listeners: Sequence[socket.socket]


@asynccontextmanager
async def isolated(argv: Sequence[str | Path], isolation: Isolation) -> AsyncIterator[Isolated]:
    """The program for as long as the block runs, with its output as pipes. Killed with us, however we end.

    Raises :class:`CommandError` when it cannot be isolated.
    """
    words = [str(each) for each in argv]
    order = json.dumps(
        {
            "folder": str(isolation.folder),
            "uid": isolation.uid,
            "listen": isolation.listen,
            "files": isolation.files,
            "memory": MEMORY,
            "limits": isolation.limits,
            "argv": words,
            "env": isolation.env,
        }
    ).encode()
    ours, theirs = socket.socketpair()
    with closing(ours):
        with closing(theirs):
            launcher = [sys.executable, "-I", str(Path(isolating.__file__)), str(theirs.fileno())]
            process = await anyio.open_process(
                launcher, stdin=subprocess.DEVNULL, env={}, pass_fds=(theirs.fileno(),), start_new_session=True
            )
        try:
            listeners = await _handed_over(ours, order, process, words)
            try:
                yield Isolated(process, listeners)
            finally:
                for each in listeners:
                    each.close()
        finally:
            await stop(process, grace=_END_SECONDS)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()


async def _handed_over(
    ours: socket.socket, order: bytes, process: Process, words: Sequence[str]
) -> Sequence[socket.socket]:
    """Send the order; what comes back are the listeners."""
    ours.settimeout(_START_SECONDS)
    try:
        descriptors = await anyio.to_thread.run_sync(_exchange, ours, order)
    except OSError:
        descriptors = None
    if descriptors is None:
        await stop(process, grace=0)
        said = b"".join([chunk async for chunk in process.stderr]) if process.stderr else b""
        raise CommandError(words, "cannot be isolated", said, hint="`pandastack doctor` checks namespaces")
    return [_listener(each) for each in descriptors]


def _exchange(ours: socket.socket, order: bytes) -> list[int] | None:
    """Runs in a thread. None: the other end died."""
    ours.sendall(order)
    ours.shutdown(socket.SHUT_WR)
    data, descriptors, _, _ = socket.recv_fds(ours, 1, _MOST_LISTENERS)
    return descriptors if data else None


def _listener(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    return listener
