"""``pandastack db``: PostgreSQL databases."""

from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from pandastack import config
from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, print_fields, print_json, print_table, printable, result, size_of
from pandastack.cli.workspace import database_backups, database_data
from pandastack.cli.workspace.database_data import Id
from pandastack.errors import PandastackError

if TYPE_CHECKING:
    from pandastack.sdk._types import Database

group = typer.Typer(no_args_is_help=True, help="Make, copy and use PostgreSQL databases.", rich_markup_mode=None)
database_backups.add_to(group)

group.command()(database_data.query)
group.command()(database_data.export)
group.command("import")(database_data.import_)

Label = Annotated[str | None, typer.Option("--label", help="Up to 128 characters for people.")]


@group.command()
def create(
    label: Label = None,
    size: Annotated[str | None, typer.Option("--size", help="Memory: 1g (default), 4g or 16g.")] = None,
    always_on: Annotated[bool, typer.Option("--always-on", help="Do not let it sleep when it is idle.")] = False,
    json: Json = False,
) -> None:
    """Make a database, and wait until it can be used."""
    with connect() as client:
        _made(client.databases.create(label=label, size=size, always_on=always_on or None), json)


@group.command("list")
def list_(json: Json = False) -> None:
    """List the databases."""
    with connect() as client:
        found = client.databases.list()
    if json:
        print_json(found)
        return
    rows = [
        (d["id"], d.get("label"), d["status"], d.get("size"), d.get("cloned_from"), d.get("created_at")) for d in found
    ]
    print_table(("ID", "LABEL", "STATUS", "SIZE", "COPY OF", "CREATED"), rows)


@group.command()
def get(database_id: Id, json: Json = False) -> None:
    """Show one database, with its password."""
    with connect() as client:
        _show(client.databases.get(database_id), json)


@group.command(context_settings={"ignore_unknown_options": True})
def psql(
    database_id: Id,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGUMENT…]", help="Options of psql.", show_default=False),
    ] = None,
) -> None:
    """Open a database in psql, or run a command there. One that sleeps is woken."""
    if shutil.which("psql") is None:
        raise PandastackError("this command needs the program psql", hint="apt install postgresql-client")
    with connect() as client:
        database = client.databases.get(database_id)
    if not database.get("connection_url"):
        raise PandastackError(f"database {database_id} is {database['status']}", hint="wait until it is running")
    os.execvpe("psql", ["psql", *(arguments or [])], {**os.environ, **_environment(database)})


@group.command()
def branch(database_id: Id, label: Label = None, json: Json = False) -> None:
    """Copy a database as it runs now, and wait until the copy can be used."""
    with connect() as client:
        _made(client.databases.clone(database_id, label=label), json)


@group.command()
def reset(database_id: Id, json: Json = False) -> None:
    """Give a copy the present data of its source in place of its own, and wait until it can be used."""
    with connect() as client:
        _made(client.databases.reset(database_id), json)


@group.command()
def delete(
    database_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The databases' ids.")], json: Json = False
) -> None:
    """Delete databases with everything in them. The others are deleted even when one cannot be."""
    with connect() as client:
        delete_each(database_ids, client.databases.delete, json)


@group.command()
def wake(database_id: Id, json: Json = False) -> None:
    """Wake a database, and wait until it runs."""
    with connect() as client:
        client.databases.wake(database_id)
        _made(client.databases.wait_until_ready(database_id), json)


@group.command()
def update(
    database_id: Id,
    always_on: Annotated[
        bool | None, typer.Option("--always-on/--sleep", help="Whether it sleeps when it is idle.")
    ] = None,
    disk: Annotated[int | None, typer.Option("--disk", min=1, metavar="GB", help="A larger disk, in GiB.")] = None,
    json: Json = False,
) -> None:
    """Change whether a database sleeps when it is idle, or give it a larger disk as it runs."""
    if always_on is None and disk is None:
        raise typer.BadParameter("nothing to change: --always-on, --sleep or --disk")
    with connect() as client:
        _show(client.databases.update(database_id, always_on=always_on, disk_gb=disk), json)


@group.command()
def reset_credentials(database_id: Id, json: Json = False) -> None:
    """Give a database another password, and end every session of it."""
    with connect() as client:
        _show(client.databases.reset_credentials(database_id), json)


@group.command()
def logs(
    database_id: Id,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=10, max=2000, help="How many. Default: 300.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the last lines of a database server's log."""
    with connect() as client:
        text = client.databases.logs(database_id, lines)
    if json:
        print_json({"logs": text})
        return
    for line in text.splitlines():
        typer.echo(printable(line))


@group.command()
def stats(database_id: Id, json: Json = False) -> None:
    """Show numbers of a database server."""
    with connect() as client:
        numbers = client.databases.stats(database_id)
    if json:
        print_json(numbers)
    else:
        sizes = {key: size_of(each) for key, each in numbers.items() if key.endswith("_bytes") and each is not None}
        print_fields({**numbers, **sizes})


def _environment(database: Database) -> dict[str, str]:
    """What libpq reads. The password is no argument: those are seen by every user of a host.

    Names below ``localhost`` are not known everywhere. libpq gets the address of the server beside such a name, which
    it still tells the gateway.
    """
    host = database["host"]
    given = {
        "PGHOST": host,
        "PGPORT": str(database["port"]),
        "PGUSER": database["username"],
        "PGDATABASE": database["database"],
        "PGPASSWORD": database["password"],
        "PGSSLMODE": os.environ.get("PGSSLMODE", "require"),
    }
    if host.endswith(".localhost"):
        server = urlsplit(config.resolve_client().api_url).hostname or "127.0.0.1"
        given["PGHOSTADDR"] = str(socket.getaddrinfo(server, database["port"], type=socket.SOCK_STREAM)[0][4][0])
    return given


def _show(database: Database, json: bool) -> None:
    if json:
        print_json(database)
    else:
        print_fields(database)


def _made(database: Database, json: bool) -> None:
    result(dict(database), f"{database['id']}\n{database.get('connection_url', '')}", as_json=json)
