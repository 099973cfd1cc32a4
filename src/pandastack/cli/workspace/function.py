"""``pandastack fn``: functions."""

from __future__ import annotations

import json as codec
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, note, print_fields, print_json, print_table, printable, result
from pandastack.errors import BadRequestError, NotFoundError

if TYPE_CHECKING:
    from pandastack import Client
    from pandastack.sdk._functions import Function, FunctionRun

group = typer.Typer(no_args_is_help=True, help="Deploy and call functions.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The function's name or id.")]
RuntimeName = Annotated[str, typer.Option("--runtime", help="python or nodejs.")]

_BEGINNINGS = {
    "python": (
        "handler.py",
        'def handler(event, context):\n    return {"hello": (event or {}).get("name", "world")}\n',
    ),
    "nodejs": ("handler.js", 'exports.handler = async (event) => ({ hello: event?.name ?? "world" });\n'),
}


@group.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A folder, which is made.", show_default=False)],
    runtime: RuntimeName = "python",
    json: Json = False,
) -> None:
    """Write the beginning of a function into a folder."""
    if runtime not in _BEGINNINGS:
        raise BadRequestError(f"unknown runtime {runtime!r}", field="runtime", hint="python or nodejs")
    name, text = _BEGINNINGS[runtime]
    path = folder / name
    if path.exists():
        raise BadRequestError(f"{path} exists already")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    result({"path": str(path)}, f"{path}", as_json=json)


@group.command()
def deploy(
    path: Annotated[Path, typer.Argument(help="A folder with the function, or its file.", show_default=False)],
    name: Annotated[str | None, typer.Option("--name", help="By default the folder's name.")] = None,
    runtime: RuntimeName = "python",
    entrypoint: Annotated[str | None, typer.Option("--entrypoint", help="FILE or FILE:NAME.")] = None,
    template: Annotated[str | None, typer.Option("--template", help="For a function that is made.")] = None,
    json: Json = False,
) -> None:
    """Deploy a function; it is made if there is none of that name. What does not import leaves the former version."""
    chosen = name or (path.resolve().stem if path.is_file() else path.resolve().name)
    if entrypoint is None and path.is_file():
        entrypoint = None if path.name in ("handler.py", "handler.js") else path.name
    with connect() as client:
        try:
            made = client.functions.deploy(chosen, runtime, path, entrypoint=entrypoint, template=template)
        except BadRequestError as error:
            _explain(error)
            raise
    result(dict(made), f"{made['id']}\n{chosen} version {made.get('version')}", as_json=json)


@group.command()
def invoke(
    name: Name,
    event: Annotated[str | None, typer.Argument(metavar="[JSON]", help="The event; - reads it.")] = None,
    background: Annotated[bool, typer.Option("--async", help="Do not wait for the end.")] = False,
    json: Json = False,
) -> None:
    """Run a function, and print what it returns. The exit status is 1 if it fails."""
    try:
        given = None if event is None else codec.loads(sys.stdin.read() if event == "-" else event)
    except ValueError as error:
        raise BadRequestError(f"the event is not JSON: {error}") from error
    with connect() as client:
        function_id = _id(client, name)
        begin = client.functions.start if background else client.functions.invoke
        run = begin(function_id, input=given)
    if json:
        print_json(run)
    elif background:
        typer.echo(run["id"])
    else:
        _show(run)
    if run["status"] not in ("success", "running"):
        raise typer.Exit(1)


@group.command("list")
def list_(json: Json = False) -> None:
    """List the functions."""
    with connect() as client:
        found = client.functions.list()
    if json:
        print_json(found)
        return
    rows = [(f["id"], f["name"], f.get("runtime"), f.get("version"), f.get("kind"), f.get("updated_at")) for f in found]
    print_table(("ID", "NAME", "RUNTIME", "VERSION", "KIND", "UPDATED"), rows)


@group.command()
def get(name: Name, json: Json = False) -> None:
    """Show one function."""
    with connect() as client:
        found = client.functions.get(_id(client, name))
    if json:
        print_json(found)
    else:
        print_fields(found)


@group.command()
def logs(name: Name, json: Json = False) -> None:
    """Print the output of the last runs, oldest first."""
    with connect() as client:
        found = client.functions.runs(_id(client, name))
    if json:
        print_json(found)
        return
    for run in reversed(found):
        took = "" if run.get("duration_ms") is None else f" {run['duration_ms']} ms"
        typer.echo(f"{run.get('started_at')} {run['status']}{took} {run['id']}")
        for text in (run.get("stdout"), run.get("stderr"), run.get("traceback") or run.get("error")):
            for line in (text or "").splitlines():
                typer.echo(f"  {printable(line)}")


@group.command()
def rollback(
    name: Name,
    version: Annotated[int | None, typer.Option("--version", help="By default the one before.")] = None,
    json: Json = False,
) -> None:
    """Have an earlier version serve."""
    with connect() as client:
        made = client.functions.rollback(_id(client, name), version)
    result(dict(made), f"{made['name']} version {made.get('version')}", as_json=json)


@group.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The functions' names or ids.")],
    json: Json = False,
) -> None:
    """Delete functions with their versions and runs. The others are deleted even when one cannot be."""
    with connect() as client:
        delete_each(names, lambda name: client.functions.delete(_id(client, name)), json)


def _id(client: Client, name: str) -> str:
    """The id of a function. Raises NotFoundError."""
    found: list[Function] = client.functions.list()
    for each in found:
        if name in (each["id"], each["name"]):
            return each["id"]
    raise NotFoundError(f"function not found: {name}", hint="pandastack fn list lists the functions")


def _explain(error: BadRequestError) -> None:
    for name in ("stderr", "traceback"):
        for line in str(error.detail.get(name) or "").splitlines():
            note(line)


def _show(run: FunctionRun) -> None:
    for text, is_error in ((run.get("stdout"), False), (run.get("stderr"), True)):
        for line in (text or "").splitlines():
            typer.echo(printable(line), err=is_error)
    if run["status"] == "success":
        value: Any = run.get("result")
        if value is not None:
            typer.echo(codec.dumps(value, ensure_ascii=False))
        return
    told = run.get("traceback") or f"{run['status']}: {run.get('error', '')}"
    for line in told.splitlines():
        note(line)
