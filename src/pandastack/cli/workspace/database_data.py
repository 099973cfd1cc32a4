"""``pandastack db``: statements, and whole databases as files."""

from __future__ import annotations

import json as json_codec
import sys
from pathlib import Path
from typing import IO, Annotated, Any, cast

import typer

from pandastack.cli.connection import connect
from pandastack.cli.output import Json, note, print_json, print_table, text_of
from pandastack.errors import BadRequestError

Id = Annotated[str, typer.Argument(metavar="ID", help="The database's id.")]
Inner = Annotated[str, typer.Option("--database", "-d", metavar="NAME", help="A database of the server.")]


def query(
    database_id: Id,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One statement.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="TEXT", help="The value of $1, $2, … (repeatable).")
    ] = None,
    database: Inner = "pandastack",
    read_only: Annotated[bool, typer.Option("--read-only", help="Have the server let it write nothing.")] = False,
    max_rows: Annotated[int | None, typer.Option("--max-rows", min=1, max=10_000, help="Default: 10,000.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Default: 30.")] = None,
    json: Json = False,
) -> None:
    """Carry out one statement over HTTP, and show its rows. A database that sleeps is woken."""
    options = {"database": database, "read_only": read_only, "max_rows": max_rows, "timeout": timeout}
    with connect() as client:
        found = client.databases.query(database_id, sql, param or [], **cast("dict[str, Any]", options))
    if json:
        print_json(found)
        return
    if found["columns"]:
        print_table([each["name"] for each in found["columns"]], [list(map(_cell, row)) for row in found["rows"]])
        if found["truncated"]:
            note(f"there are more than these {found['count']} rows: --max-rows")
    elif found["rows_affected"] is not None:
        note(f"{found['rows_affected']} rows affected")


def export(
    database_id: Id,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help="Default: standard output."),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="SQL, instead of a dump for pg_restore.")] = False,
    database: Inner = "pandastack",
    json: Json = False,
) -> None:
    """Write everything in a database to standard output, or to a file, which appears once it is whole."""
    if output is None and sys.stdout.isatty() and not plain:
        raise BadRequestError("a dump is not for terminals", hint="redirect it, or give --output FILE, or --plain")
    with connect() as client:
        if output is None:
            client.databases.export(database_id, sys.stdout.buffer, database=database, plain=plain)
            sys.stdout.flush()
            return
        unfinished = output.with_name(f".{output.name}.unfinished")
        try:
            with unfinished.open("wb") as file:
                client.databases.export(database_id, file, database=database, plain=plain)
            unfinished.replace(output)
        finally:
            unfinished.unlink(missing_ok=True)
    if json:
        print_json({"output": str(output), "bytes": output.stat().st_size})


def import_(
    database_id: Id,
    source: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", dir_okay=False, exists=True, help="Default: standard input.")
    ] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Delete first what the dump has.")] = False,
    database: Inner = "pandastack",
    json: Json = False,
) -> None:
    """Restore a dump that `db export` or `pg_dump -Fc` has written, in one transaction: all of it or nothing."""
    with connect() as client:
        if source is None:
            client.databases.import_(database_id, sys.stdin.buffer, database=database, clean=clean)
        else:
            with source.open("rb") as file:
                client.databases.import_(database_id, cast("IO[bytes]", file), database=database, clean=clean)
    if json:
        print_json({"id": database_id, "database": database})


def _cell(value: object) -> str:
    """Lists and objects as JSON, and NULL apart from text that is empty."""
    if value is None:
        return "NULL"
    return json_codec.dumps(value) if isinstance(value, list | dict | bool) else text_of(value) if value != "" else ""
