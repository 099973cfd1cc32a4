"""``pandastack sandbox diff``: files that differ between two states."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.connection import Id, connect
from pandastack.cli.output import Json, note, print_json, print_table, printable

if TYPE_CHECKING:
    from pandastack import Diff, FileChange

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_STATE = "a checkpoint, a snapshot, another sandbox, 'template' or 'now'"


def diff(
    sandbox_id: Id,
    since: Annotated[
        str, typer.Argument(metavar="[FROM]", help=f"Compare with {_STATE}.", show_default=True)
    ] = "template",
    until: Annotated[str, typer.Option("--to", metavar="STATE", help=f"The later state: {_STATE}.")] = "now",
    patch: Annotated[bool, typer.Option("--patch", help="Print a unified diff of small text files.")] = False,
    json: Json = False,
) -> None:
    """Show which files of a sandbox differ: from its template, a checkpoint, a snapshot or another sandbox."""
    with connect() as client:
        found = client.sandboxes.get(sandbox_id).diff(since, until, patch=patch)
    if json:
        print_json(asdict(found))
    elif patch:
        typer.echo(_shown(found.patch()), nl=False)
        _tell_of_the_rest(found)
    else:
        print_table(("", "PATH", "KIND", "SIZE", "WHAT"), map(_row, found.changes))
    if found.truncated:
        note(f"only {len(found.changes)} of {found.added + found.removed + found.changed} changes are shown")


def _row(each: FileChange) -> tuple[str, ...]:
    sizes = [str(state.size) for state in (each.before, each.after) if state is not None and state.kind == "file"]
    size = " → ".join(dict.fromkeys(sizes)) or "-"
    what = " ".join(each.what) + (" (not compared)" if each.unread else "")
    return _SIGNS.get(each.change, "?"), each.path, each.kind, size, what


def _tell_of_the_rest(found: Diff) -> None:
    without = [each for each in found.changes if each.patch is None]
    for each in without:
        note(f"{_SIGNS.get(each.change, '?')} {each.path} ({each.kind}): no text to show")


def _shown(text: str) -> str:
    """A guest's text with escapes for a terminal; a file or program gets it unchanged."""
    if not sys.stdout.isatty():
        return text
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))
