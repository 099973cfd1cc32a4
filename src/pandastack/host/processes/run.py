"""The only way in which this package starts other processes.

:func:`run` is for tools that end by themselves; :func:`spawn` and :func:`stop` are for long-running processes. Every
failure names the argv, the exit status and the last lines the process printed.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import ByteReceiveStream, Process

from pandastack.errors import ServerError

TAIL_LINES = 20
"""How many of the last lines of output an error shows."""

OUTPUT_LIMIT = 64 * 1024 * 1024
"""The most bytes of each output that :func:`run` accepts; a tool that prints more is ended."""

LINE_LIMIT = 64 * 1024
"""Lines are passed on in pieces of at most this many bytes."""


@dataclass(frozen=True)
class Completed:
    """How a process ended and everything it printed."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "replace")


class CommandError(ServerError):
    """A tool of the host failed, could not be started or ran out of time."""

    code = "host_command_failed"
    public = "a program of the host failed"

    def __init__(self, argv: Sequence[str], reason: str, output: bytes = b"", *, hint: str | None = None) -> None:
        tail = output.decode("utf-8", "replace").strip().splitlines()[-TAIL_LINES:]
        super().__init__("\n  ".join([f"{shlex.join(argv)}: {reason}", *tail]), hint=hint)
        self.argv = tuple(argv)
        self.reason = reason


async def run(
    argv: Sequence[str | Path],
    *,
    input: bytes | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run ``argv`` to its end and return what it printed.

    ``env`` is added to the host's environment. ``timeout`` is in seconds. ``on_line`` sees each line of both outputs
    as it comes. Raises :class:`CommandError`; with ``check=False`` a non-zero exit status is returned instead.
    """
    words = [str(word) for word in argv]
    out, err = bytearray(), bytearray()
    try:
        with anyio.fail_after(timeout):
            async with await _open(words, input=input, cwd=cwd, env=env) as process:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_collect, process, process.stdout, out, on_line)
                    tasks.start_soon(_collect, process, process.stderr, err, on_line)
                    if process.stdin is not None:
                        await _feed(process, input or b"")
                await process.wait()
    except TimeoutError as error:
        raise CommandError(words, f"timeout after {timeout:g} s", bytes(err or out)) from error
    status = process.returncode
    assert status is not None
    if max(len(out), len(err)) > OUTPUT_LIMIT:
        raise CommandError(words, f"printed more than {OUTPUT_LIMIT // 2**20} MiB and was killed")
    if check and status != 0:
        raise CommandError(words, describe_status(status), bytes(err.strip() or out))
    return Completed(tuple(words), status, bytes(out), bytes(err))


async def _open(words: list[str], *, input: bytes | None, cwd: Path | None, env: Mapping[str, str] | None) -> Process:
    try:
        return await anyio.open_process(
            words,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            cwd=cwd,
            env=None if env is None else {**os.environ, **env},
        )
    except FileNotFoundError as error:
        raise CommandError(words, "not installed", hint="`pandastack doctor` names the package") from error
    except OSError as error:
        raise CommandError(words, str(error)) from error


async def _feed(process: Process, data: bytes) -> None:
    assert process.stdin is not None
    # The process may end without reading everything: its exit status tells whether that is an error.
    with suppress(anyio.BrokenResourceError, BrokenPipeError):
        await process.stdin.send(data)
        await process.stdin.aclose()


async def _collect(
    process: Process, stream: ByteReceiveStream | None, into: bytearray, on_line: Callable[[str], None] | None
) -> None:
    assert stream is not None
    line = bytearray()
    async for chunk in stream:
        into += chunk
        if len(into) > OUTPUT_LIMIT:
            _signal(process, signal.SIGKILL)
            return
        if on_line is None:
            continue
        line += chunk
        *whole, rest = line.split(b"\n")
        for piece in whole:
            on_line(piece.decode("utf-8", "replace"))
        line = rest if len(rest) < LINE_LIMIT else bytearray()
    if line and on_line is not None:
        on_line(line.decode("utf-8", "replace"))


def describe_status(status: int) -> str:
    """A process's exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


async def stop(process: Process, *, grace: float = 2.0) -> int:
    """End ``process``: terminate, wait ``grace`` seconds, kill, wait. Returns its exit status. Safe to call twice."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None and grace > 0:
            _signal(process, signal.SIGTERM)
            with anyio.move_on_after(grace):
                await process.wait()
        if process.returncode is None:
            _signal(process, signal.SIGKILL)
        await process.wait()
    assert process.returncode is not None
    return process.returncode


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it may end between the check and the signal
        process.send_signal(number)


@asynccontextmanager
async def spawn(
    argv: Sequence[str | Path],
    *,
    pass_fds: Sequence[int] = (),
    log: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    grace: float = 0.0,
) -> AsyncIterator[Process]:
    """A process whose life is this block.

    ``log`` is the fd that its output goes to. ``env`` is its whole environment (default: the host's). ``grace`` is as
    for :func:`stop`.
    """
    words = [str(word) for word in argv]
    try:
        process = await anyio.open_process(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=tuple(pass_fds), env=env
        )
    except OSError as error:
        raise CommandError(words, str(error)) from error
    try:
        yield process
    finally:
        await stop(process, grace=grace)
