"""``pandastack process``: commands in a sandbox that run independently of their clients."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pandastack.cli.connection import Id, connect
from pandastack.cli.output import Json, note, print_fields, print_json, print_table, result, short

if TYPE_CHECKING:
    from pandastack.sdk._sync.processes import Process

group = typer.Typer(no_args_is_help=True, help="Processes of a sandbox.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="PROCESS", help="The process's id or pid.")]
_SHOWN_COMMAND = 50


@contextmanager
def _found(sandbox_id: str, process: str) -> Iterator[Process]:
    with connect() as client:
        yield client.sandboxes.get(sandbox_id).processes.get(process)


@group.command()
def start(
    sandbox_id: Id,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="A shell command.")],
    background: Annotated[
        bool, typer.Option("--background", help="Do not count it as activity of the sandbox.")
    ] = False,
    cwd: Annotated[str | None, typer.Option("--cwd", help="Working directory.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="The user who runs it.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Keep its standard input open.")] = False,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, help="Limit in seconds.")] = None,
    json: Json = False,
) -> None:
    """Start a command in the background and print its id."""
    with connect() as client:
        processes = client.sandboxes.get(sandbox_id).processes
        process = processes.start(
            command, background=background, cwd=cwd, user=user, stdin=stdin, timeout_seconds=timeout
        )
    result(vars(process.info), process.id, as_json=json)


@group.command("list")
def list_(
    sandbox_id: Id,
    filter_: Annotated[
        Literal["status=running", "status=exited"] | None, typer.Option("--filter", help="Only this kind.")
    ] = None,
    json: Json = False,
) -> None:
    """List running processes and ended ones on record, oldest first."""
    status: Literal["running", "exited"] | None = None
    if filter_ is not None:
        status = "running" if filter_ == "status=running" else "exited"
    with connect() as client:
        found = [each.info for each in client.sandboxes.get(sandbox_id).processes.list(status=status)]
    if json:
        print_json([vars(each) for each in found])
        return
    rows = [
        (
            p.id,
            p.pid,
            p.status if p.exit_code is None else f"{p.status} {p.exit_code}",
            p.started_at,
            short(p.cmd, _SHOWN_COMMAND),
        )
        for p in found
    ]
    print_table(("ID", "PID", "STATUS", "STARTED", "COMMAND"), rows)


@group.command()
def get(sandbox_id: Id, process: Name, json: Json = False) -> None:
    """Show one process."""
    with _found(sandbox_id, process) as found:
        record = vars(found.info)
    if json:
        print_json(record)
    else:
        print_fields(record)


@group.command()
def output(
    sandbox_id: Id,
    process: Name,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error instead of output.")] = False,
    offset: Annotated[int, typer.Option("--offset", help="Where to begin; negative: from the end.")] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Both outputs, from the first byte to its end.")
    ] = False,
) -> None:
    """Print what a process has written. With --follow the exit status is the process's."""
    with _found(sandbox_id, process) as found:
        if follow:
            raise typer.Exit(found.follow(_show, _show_error, on_gap=_tell))
        sys.stdout.buffer.write(found.output("stderr" if stderr else "stdout", offset))


@group.command()
def wait(
    sandbox_id: Id,
    process: Name,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, help="Give up after this many seconds.")] = None,
) -> None:
    """Wait for a process's end. The exit status is the process's, or 124 if it still runs."""
    with _found(sandbox_id, process) as found:
        try:
            code = found.wait(timeout)
        except TimeoutError as error:
            note(str(error))
            code = 124
    raise typer.Exit(code)


@group.command()
def signal(
    sandbox_id: Id,
    process: Name,
    name: Annotated[str, typer.Option("--signal", "-s", help="Name or number.")] = "TERM",
) -> None:
    """Send a signal to a process and its group."""
    with _found(sandbox_id, process) as found:
        found.signal(name)


@group.command()
def stdin(
    sandbox_id: Id,
    process: Name,
    close: Annotated[bool, typer.Option("--close", help="Close its input afterwards.")] = False,
) -> None:
    """Send what is typed or piped here to a process's standard input."""
    with _found(sandbox_id, process) as found:
        found.send_stdin(sys.stdin.buffer.read(), close=close)


def _show(chunk: str) -> None:
    typer.echo(chunk, nl=False)


def _show_error(chunk: str) -> None:
    typer.echo(chunk, nl=False, err=True)


def _tell(stream: str, start: int, end: int) -> None:
    note(f"[pandastack: bytes {start} to {end} of {stream} are no longer retained]")
