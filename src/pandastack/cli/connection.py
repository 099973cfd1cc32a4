"""The command line's connection to the server and to a sandbox there, and the live output of commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pandastack.cli.output import note, print_json, report
from pandastack.errors import PandastackError

if TYPE_CHECKING:
    from pandastack import Client, CreateRetryEvent, Sandbox


Id = Annotated[str, typer.Argument(metavar="ID", help="The sandbox's id.")]
"""The argument of every command about one sandbox."""


def connect() -> Client:
    """A client configured by the environment and the configuration file; it reports waits for capacity."""
    from pandastack import Client

    return Client(on_create_retry=_tell)


def _tell(event: CreateRetryEvent) -> None:
    note(f"{event.error}; retrying in {event.delay_seconds:.0f} s")


def delete_each(names: Sequence[str], delete: Callable[[str], object], as_json: bool) -> NoReturn:
    """Delete what ``names`` name, the others also when one cannot be, and exit: with 1 if one could not be."""
    deleted: list[str] = []
    for each in names:
        try:
            delete(each)
            deleted.append(each)
        except PandastackError as error:
            report(error, as_json)
    if as_json:
        print_json({"deleted": deleted})
    raise typer.Exit(int(len(deleted) < len(names)))


def record_of(sandbox: Sandbox) -> dict[str, object]:
    """A sandbox as the object that ``--json`` prints."""
    names = (each.name for each in fields(sandbox))
    return {name: getattr(sandbox, name) for name in names if not name.startswith("_")}


@dataclass(frozen=True)
class Outcome:
    """How a command ended; the texts are empty if the output was shown live."""

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
