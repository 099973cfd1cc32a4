"""``pandastack snapshot``: captured sandboxes that others can be created from."""

from __future__ import annotations

from typing import Annotated

import typer

from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, print_fields, print_json, print_table, size_of

group = typer.Typer(no_args_is_help=True, help="List, show and delete snapshots of sandboxes.", rich_markup_mode=None)


@group.command("list")
def list_(
    sandbox: Annotated[str | None, typer.Option("--sandbox", metavar="ID", help="Only those of this sandbox.")] = None,
    json: Json = False,
) -> None:
    """List the snapshots, newest first."""
    with connect() as client:
        found = client.snapshots.list(sandbox_id=sandbox)
    if json:
        print_json(found)
        return
    rows = [
        (s["id"], s.get("sandbox_id"), s.get("template"), size_of(s.get("size_bytes")), s.get("created_at"))
        for s in found
    ]
    print_table(("ID", "SANDBOX", "TEMPLATE", "SIZE", "CREATED"), rows)


@group.command()
def get(
    snapshot_id: Annotated[str, typer.Argument(metavar="ID", help="The snapshot's id.")],
    json: Json = False,
) -> None:
    """Show one snapshot."""
    with connect() as client:
        record = client.snapshots.get(snapshot_id)
    if json:
        print_json(record)
    else:
        print_fields(record)


@group.command()
def delete(
    snapshot_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The snapshots' ids.")],
    json: Json = False,
) -> None:
    """Delete snapshots; sandboxes made from them remain. The others are deleted even when one cannot be."""
    with connect() as client:
        delete_each(snapshot_ids, client.snapshots.delete, json)
