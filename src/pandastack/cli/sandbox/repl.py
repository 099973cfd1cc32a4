"""``pandastack sandbox repl``: cells of code in a session, from a terminal or from standard input."""

from __future__ import annotations

import base64
import codeop
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.connection import Id, connect
from pandastack.cli.output import note
from pandastack.errors import SandboxTimeout

if TYPE_CHECKING:
    from pandastack import CodeContext, Execution


def repl(
    sandbox_id: Id,
    language: Annotated[str, typer.Option("--language", "-l", help="python, bash or node.")] = "python",
    timeout: Annotated[float | None, typer.Option("--timeout", min=0.001, help="Limit of a cell in seconds.")] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="DIRECTORY", help="Directory for pictures, written as 1.png and so on."),
    ] = None,
) -> None:
    """Run code in a session that keeps its state.

    At a terminal each statement is a cell, and the session ends with Ctrl-D. Otherwise standard input is one cell, and
    the exit status is 1 when it raised an exception, else the cell's.
    """
    with connect() as client, client.sandboxes.get(sandbox_id).create_code_context(language) as context:
        names = (save / f"{number}.png" for number in count(1)) if save else None
        if not sys.stdin.isatty():
            ran = context.run_code(sys.stdin.read(), timeout)
            _show(ran, names)
            raise typer.Exit(ran.exit_code)
        _converse(context, timeout, names)


def _converse(context: CodeContext, timeout: float | None, names: Iterator[Path] | None) -> None:
    for code in _cells(context.language):
        try:
            _show(context.run_code(code, timeout), names)
        except SandboxTimeout as error:
            note(str(error))


def _cells(language: str) -> Iterator[str]:
    """The typed input, one statement at a time."""
    lines: list[str] = []
    while True:
        try:
            lines.append(input("... " if lines else "$ " if language == "bash" else ">>> "))
        except KeyboardInterrupt:
            typer.echo()
            lines.clear()
            continue
        except EOFError:
            typer.echo()
            return
        code = "\n".join(lines)
        if not code.strip():
            lines.clear()
        elif language != "python" or is_complete(code):
            yield code
            lines.clear()


def is_complete(code: str) -> bool:
    """Whether a statement of Python needs no further line; IPython's own, like ``%time``, never do."""
    if code.lstrip().startswith(("%", "!", "?")):
        return True
    try:
        return codeop.compile_command(code, symbol="single") is not None
    except (SyntaxError, ValueError, OverflowError):  # the kernel reports the error better
        return True


def _show(ran: Execution, names: Iterator[Path] | None) -> None:
    typer.echo(ran.stdout, nl=False)
    typer.echo(ran.stderr, nl=False, err=True)
    for each in ran.results:
        if each.png and names:
            path = next(names)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(each.png))
            note(f"saved {path}")
        elif each.text is not None:
            typer.echo(each.text)
    if ran.error:
        typer.echo(ran.error, err=True)
