"""The command line's way to the server, and the output of a command as it appears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from pandastack.cli.output import note

if TYPE_CHECKING:
    from pandastack import Client, CreateRetryEvent, Sandbox


def connect() -> Client:
    """A client from the environment and the configuration file; waits for capacity are told to the user."""
    from pandastack import Client

    return Client(on_create_retry=_tell)


def _tell(event: CreateRetryEvent) -> None:
    note(f"{event.error}; trying again in {event.delay_seconds:.0f} s")


@dataclass(frozen=True)
class Outcome:
    """How a command ended; the texts are empty when they were shown live."""

    exit_code: int
    stdout: str = ""
    stderr: str = ""


def follow(sandbox: Sandbox, cmd: str, timeout_seconds: int | None, collect: bool) -> Outcome:
    """Run ``cmd`` and show its output as it appears, or with ``collect`` return it.

    Raises SandboxTimeout and ExecInterrupted.
    """
    if not collect:
        return Outcome(sandbox.exec_stream(cmd, _show, _show_error, timeout_seconds))
    stdout: list[str] = []
    stderr: list[str] = []
    exit_code = sandbox.exec_stream(cmd, stdout.append, stderr.append, timeout_seconds)
    return Outcome(exit_code, "".join(stdout), "".join(stderr))


def _show(chunk: str) -> None:
    typer.echo(chunk, nl=False)


def _show_error(chunk: str) -> None:
    typer.echo(chunk, nl=False, err=True)
