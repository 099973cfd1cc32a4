"""``pandastack template``: templates that sandboxes can be created from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pandastack.cli.connection import connect
from pandastack.cli.output import Json, print_fields, print_json, print_table, size_of
from pandastack.cli.template.build import build, pin

group = typer.Typer(no_args_is_help=True, help="List, show and build templates.", rich_markup_mode=None)


@group.command("list")
def list_(json: Json = False) -> None:
    """List the templates."""
    with connect() as client:
        found = client.templates.list()
    if json:
        print_json([asdict(each) for each in found])
        return
    rows = [(t.name, t.cpu, _mega(t.memory_mb), size_of(t.size_bytes), t.description) for t in found]
    print_table(("NAME", "CPU", "MEMORY", "SIZE", "DESCRIPTION"), rows)


@group.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")],
    json: Json = False,
) -> None:
    """Show one template."""
    with connect() as client:
        record = asdict(client.templates.get(name))
    if json:
        print_json(record)
    else:
        print_fields(record)


group.command("build")(build)
group.command("pin")(pin)


def _mega(memory_mb: int | None) -> str | None:
    return None if memory_mb is None else f"{memory_mb} MB"
