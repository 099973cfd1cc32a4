"""What the command line prints: results on standard output as text or JSON, everything else on standard
error.
"""

from __future__ import annotations

import json as json_codec
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer

from pandastack.errors import PandastackError, to_body

_ASKED_FOR = "pandastack.json"
# Wide enough that nothing is cut or folded when a program reads the table.
_PIPE_WIDTH = 1000


def _remember(ctx: typer.Context, value: bool) -> bool:
    if value:
        ctx.meta[_ASKED_FOR] = True
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.", callback=_remember)]
"""The ``--json`` option that every command has."""


def json_was_asked_for(ctx: typer.Context) -> bool:
    """Whether the command that runs below ``ctx`` was given ``--json``."""
    return bool(ctx.meta.get(_ASKED_FOR))


def print_json(value: object) -> None:
    """Print one JSON document."""
    typer.echo(json_codec.dumps(value, indent=2, default=str))


def result(value: object, text: str, *, as_json: bool) -> None:
    """Print the outcome of a command: ``value`` as JSON, or ``text`` for people."""
    if as_json:
        print_json(value)
    else:
        typer.echo("\n".join(map(printable, text.split("\n"))))


def printable(text: str) -> str:
    """``text`` without anything that a terminal would obey: control characters, including line ends, are escaped.

    Guests choose file names, command lines and error messages. An escape sequence in one could set the terminal's
    title, move its cursor or fill the clipboard.
    """
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def short(text: str, width: int) -> str:
    """``text`` in one line of at most ``width`` characters."""
    line = printable(_one_line(text))
    return line if len(line) <= width else line[: width - 1] + "…"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table without borders; absent values are shown as a dash."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(text_of(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one object, a field per line; absent values are left out."""
    present = {key: value for key, value in fields.items() if value not in (None, "", [], {})}
    width = max(map(len, present), default=0)
    for key, value in present.items():
        typer.echo(f"{key:<{width}}  {text_of(value)}")


def text_of(value: object) -> str:
    """A value in a cell: lists are joined, mappings shown as ``key=value``, absent values as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, Mapping):
        value = [f"{key}={each}" for key, each in value.items()]
    return printable(" ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))


def size_of(size_bytes: int | None) -> str | None:
    """A number of bytes for people, in whole megabytes."""
    return None if size_bytes is None else f"{size_bytes / 2**20:.0f} MB"


def note(text: str) -> None:
    """Print a note to the user that is not part of the result."""
    typer.echo(printable(text), err=True)


def report(error: PandastackError, as_json: bool) -> None:
    """Print an error: one line for it, one for its hint, or the same JSON object as the server sends.

    Some messages include a failed program's last lines of output, each indented by two spaces.
    """
    if as_json:
        typer.echo(json_codec.dumps(to_body(error)), err=True)
        return
    what, *printed = error.message.split("\n  ")
    lines = [f"error: {_one_line(what) or error.code}", *printed]
    typer.echo("\n  ".join(map(printable, lines)), err=True)
    if error.hint:
        note(f"hint: {_one_line(error.hint)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
