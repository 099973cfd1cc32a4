"""``pandastack db backup``, ``backups`` and ``restore``: earlier states of databases."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pandastack.cli.connection import connect
from pandastack.cli.output import Json, print_fields, print_json, print_table, result, size_of

Id = Annotated[str, typer.Argument(metavar="ID", help="The database's id.")]


def add_to(group: typer.Typer) -> None:
    """Add the commands to those of databases."""
    group.command()(backup)
    group.command()(backups)
    group.command()(restore)


def backup(database_id: Id, json: Json = False) -> None:
    """Take a base backup now. Restores to later times begin with it. A database that sleeps is woken."""
    with connect() as client:
        made = client.databases.backup(database_id)
    newest = made["bases"][-1]
    result(dict(made), f"{newest['created_at']}  {size_of(newest['size_bytes'])}", as_json=json)


def backups(database_id: Id, json: Json = False) -> None:
    """Show the times that a database can be restored to, and its base backups."""
    with connect() as client:
        found = client.databases.backups(database_id)
    if json:
        print_json(found)
        return
    archive = found["archive"]
    print_fields(
        {
            "archive": archive["state"],
            "error": archive.get("error"),
            "size": size_of(archive["size_bytes"]),
            "last drill": _drill(found.get("drill")),
            "times": ", ".join(f"{each['earliest']} to {each['latest']}" for each in found["windows"]) or "none yet",
        }
    )
    print_table(("BASE BACKUP", "SIZE"), [(each["created_at"], size_of(each["size_bytes"])) for each in found["bases"]])


def _drill(drill: dict[str, Any] | None) -> str:
    if drill is None:
        return "none yet"
    return f"{drill['at']}: {drill.get('error') or 'it worked'} ({drill['seconds']:.1f} s)"


def restore(
    database_id: Id,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Such as 2026-01-31T09:30:00Z. Default: now.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Up to 128 characters for people.")] = None,
    size: Annotated[str | None, typer.Option("--size", help="Memory: 1g, 4g or 16g. Default: as before.")] = None,
    json: Json = False,
) -> None:
    """Make a new database of an earlier state of one, and wait until it can be used."""
    with connect() as client:
        made = client.databases.restore(database_id, target_time=to, label=label, size=size)
    result(dict(made), f"{made['id']}\n{made.get('connection_url', '')}", as_json=json)
