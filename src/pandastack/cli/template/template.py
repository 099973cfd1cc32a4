"""``pandastack template``: templates that sandboxes can be created from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, note, print_fields, print_json, print_table, size_of
from pandastack.cli.template.build import build, pin
from pandastack.cli.template.lock import lock
from pandastack.cli.template.prune import prune
from pandastack.cli.template.transfer import export, import_

if TYPE_CHECKING:
    from pandastack import Template

group = typer.Typer(no_args_is_help=True, help="List, show, build, move and delete templates.", rich_markup_mode=None)


@group.command("list")
def list_(json: Json = False) -> None:
    """List the templates: those of every workspace, then the workspace's own."""
    with connect() as client:
        found = client.templates.list()
    if json:
        print_json([asdict(each) for each in found])
        return
    rows = [
        (t.name, _whose(t), t.cpu, _mega(t.memory_mb), size_of(t.size_bytes), *_baked(t), t.description) for t in found
    ]
    print_table(("NAME", "WHOSE", "CPU", "MEMORY", "SIZE", "BAKED IN", "STATE", "DESCRIPTION"), rows)
    for each in found:
        if each.meta and each.meta.get("state_reason"):
            note(f"{each.name} is {_state(each.meta)}: {each.meta['state_reason']}")


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


@group.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="The templates' names.")],
    json: Json = False,
) -> None:
    """Delete templates; sandboxes made from them remain. The others are deleted even when one cannot be."""
    with connect() as client:
        delete_each(names, client.templates.delete, json)


group.command("build")(build)
group.command("export")(export)
group.command("import")(import_)
group.command("lock")(lock)
group.command("pin")(pin)
group.command("prune")(prune)


def _baked(template: Template) -> tuple[str | None, str | None]:
    return _seconds(template.meta), _state(template.meta)


def _whose(template: Template) -> str:
    return "workspace's" if template.is_global is False else "everybody's"


def _seconds(meta: dict[str, Any] | None) -> str | None:
    seconds = (meta or {}).get("bake_seconds")
    return f"{seconds:.1f} s" if isinstance(seconds, (int, float)) else None


def _state(meta: dict[str, Any] | None) -> str | None:
    return (meta or {}).get("state")


def _mega(memory_mb: int | None) -> str | None:
    return None if memory_mb is None else f"{memory_mb} MB"
