"""``pandastack fn``: functions."""

from __future__ import annotations

import json as codec
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, note, print_fields, print_json, print_table, result
from pandastack.cli.sandbox.network import Allow, Deny, Word, egress_of
from pandastack.cli.sandbox.shell import run_terminal
from pandastack.cli.workspace import function_dev
from pandastack.cli.workspace.function_show import RuntimeName, explain, names_of, show_record, show_run
from pandastack.errors import BadRequestError, NotFoundError

if TYPE_CHECKING:
    from pandastack import Client
    from pandastack.sdk._functions import Function

group = typer.Typer(no_args_is_help=True, help="Deploy and call functions.", rich_markup_mode=None)
function_dev.add_to(group)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The function's name or id.")]

_DEBUGGER = "/usr/lib/pandastack/functions/pandastack_debug.py"

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
    secret: Annotated[
        list[str] | None, typer.Option("--secret", metavar="NAME", help="A secret that runs get (repeatable).")
    ] = None,
    network: Annotated[Word | None, typer.Option("--network", help="What runs may reach, if not rules.")] = None,
    allow: Allow = None,
    deny: Deny = None,
    json: Json = False,
) -> None:
    """Deploy a function; it is made if there is none of that name. What does not import leaves the former version."""
    chosen, entrypoint = names_of(path, name, entrypoint)
    egress = egress_of(network, allow, deny)
    with connect() as client:
        try:
            made = client.functions.deploy(
                chosen,
                runtime,
                path,
                entrypoint=entrypoint,
                template=template,
                secrets=secret,
                network=None if egress is None else {"egress": egress},
            )
        except BadRequestError as error:
            explain(error)
            raise
    for each in made.get("warnings", ()):
        note(f"warning: {each}")
    result(dict(made), f"{made['id']}\n{chosen} version {made.get('version')}", as_json=json)


@group.command()
def invoke(
    name: Name,
    event: Annotated[str | None, typer.Argument(metavar="[JSON]", help="The event; - reads it.")] = None,
    background: Annotated[bool, typer.Option("--async", help="Do not wait for the end.")] = False,
    version: Annotated[int | None, typer.Option("--version", help="By default the one that serves.")] = None,
    alias: Annotated[str | None, typer.Option("--alias", help="The version that this alias names.")] = None,
    keep: Annotated[int, typer.Option("--keep", metavar="SECONDS", help="If it fails, keep its machine.")] = 0,
    retries: Annotated[
        int | None, typer.Option("--retries", help="With --async: tries after failures, up to 5.")
    ] = None,
    callback: Annotated[
        str | None, typer.Option("--callback", metavar="URL", help="With --async: gets the run.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a function, and print what it returns. The exit status is 1 if it fails."""
    try:
        given = None if event is None else codec.loads(sys.stdin.read() if event == "-" else event)
    except ValueError as error:
        raise BadRequestError(f"the event is not JSON: {error}") from error
    if not background and (retries is not None or callback is not None):
        raise BadRequestError("--retries and --callback are for --async")
    with connect() as client:
        function_id = _id(client, name)
        chosen: dict[str, Any] = {"version": version, "alias": alias, "keep_seconds": keep}
        if background:
            run = client.functions.start(function_id, input=given, retries=retries, callback=callback, **chosen)
        else:
            run = client.functions.invoke(function_id, input=given, **chosen)
    if json:
        print_json(run)
    elif background:
        typer.echo(run["id"])
    else:
        show_run(run)
    if run.get("kept_until") and not json:
        note(f"its machine is kept: pandastack fn debug {run['id']}")
    if run["status"] not in ("success", "running"):
        raise typer.Exit(1)


@group.command()
def debug(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The id of a run whose machine is kept.")],
    pdb: Annotated[bool, typer.Option("--pdb", help="A Python debugger at the failure instead of a shell.")] = False,
) -> None:
    """Open a shell in the machine of a failed run, as the failure left it. The exit status is the shell's."""
    with connect() as client:
        kept = client.sandboxes.list(metadata={"run": run_id})
    if not kept:
        hint = "pandastack fn invoke --keep 3600 keeps the machine of a run that fails"
        raise NotFoundError(f"no machine of run {run_id} is kept", hint=hint)
    sandbox = kept[0]
    note(f"sandbox {sandbox.id}: pandastack sandbox delete {sandbox.id} ends it")
    command = f"exec python3 {_DEBUGGER}" if pdb else "cd /fn && exec bash"
    raise typer.Exit(run_terminal(sandbox.id, str(uuid.uuid4()), command))


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
        show_record(run)


@group.command("callback-secret")
def callback_secret(name: Name, json: Json = False) -> None:
    """Print what the callbacks of a function are signed with."""
    with connect() as client:
        secret = client.functions.callback_secret(_id(client, name))
    result({"secret": secret}, secret, as_json=json)


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
def alias(
    name: Name,
    alias: Annotated[
        str | None, typer.Argument(metavar="[ALIAS]", help="The alias; without it all are listed.")
    ] = None,
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="What it is to name.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the alias.")] = False,
    json: Json = False,
) -> None:
    """Have an alias name a version, show it, or delete it. The version is kept as long as it has one."""
    if delete and (alias is None or version is not None):
        raise typer.BadParameter("--delete wants an alias alone")
    with connect() as client:
        function_id = _id(client, name)
        if alias is None:
            found = client.functions.aliases(function_id)
        elif delete:
            client.functions.delete_alias(function_id, alias)
            result({"deleted": alias}, alias, as_json=json)
            return
        elif version is None:
            found = [client.functions.get_alias(function_id, alias)]
        else:
            found = [client.functions.set_alias(function_id, alias, version)]
    if json:
        print_json(found if alias is None else found[0])
    else:
        print_table(("ALIAS", "VERSION"), [(each["name"], each["version"]) for each in found])


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
