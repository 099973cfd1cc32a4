"""``pandastack workspace``: settings that hold for all sandboxes of the workspace."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pandastack.cli.connection import connect
from pandastack.cli.output import Json, print_fields, print_json

group = typer.Typer(no_args_is_help=True, help="Show and change the workspace's settings.", rich_markup_mode=None)


class Previews(StrEnum):
    open = "open"
    private = "private"


@group.command()
def get(json: Json = False) -> None:
    """Show the workspace."""
    with connect() as client:
        found = dict(client.workspace.get())
    if json:
        print_json(found)
    else:
        print_fields(found)


@group.command()
def update(
    previews: Annotated[
        Previews | None, typer.Option("--previews", help="Whether previews of all sandboxes want a token.")
    ] = None,
    json: Json = False,
) -> None:
    """Change the workspace's settings."""
    with connect() as client:
        changed = dict(client.workspace.update(previews=None if previews is None else previews.value))
    if json:
        print_json(changed)
    else:
        print_fields(changed)
