"""``pandastack registry``: what builds sign in to registries of images with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.connection import connect
from pandastack.cli.output import Json, print_fields, print_json, print_table, result

if TYPE_CHECKING:
    from pandastack.sdk._types import Registry

group = typer.Typer(
    no_args_is_help=True, help="Store credentials for the registries that images come from.", rich_markup_mode=None
)

Host = Annotated[str, typer.Argument(metavar="HOST", help="The registry: a host, with a port if it has one.")]


@group.command()
def login(
    host: Host,
    username: Annotated[str, typer.Option("--username", "-u", help="The user's name there.")],
    json: Json = False,
) -> None:
    """Store credentials for a registry; the password comes from standard input. Nothing is sent to the registry."""
    password = _password()
    with connect() as client:
        made = client.registries.put(host, username, password)
    if json:
        print_json(_fields(made))
    else:
        print_fields(_fields(made))


@group.command("list")
def list_(json: Json = False) -> None:
    """List the registries that there are credentials for."""
    with connect() as client:
        found = client.registries.list()
    if json:
        print_json([_fields(each) for each in found])
    else:
        print_table(("HOST", "USERNAME", "UPDATED"), [(each.host, each.username, each.updated_at) for each in found])


@group.command()
def logout(host: Host, json: Json = False) -> None:
    """Forget the credentials for a registry."""
    with connect() as client:
        client.registries.delete(host)
    result({"deleted": host}, f"{host}: forgotten", as_json=json)


def _password() -> str:
    """The password, without the end of its last line. It is no argument: those are seen by every user of a host."""
    if sys.stdin.isatty():
        return str(typer.prompt("password", hide_input=True))
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")


def _fields(registry: Registry) -> dict[str, object]:
    return {
        "host": registry.host,
        "username": registry.username,
        "created_at": registry.created_at,
        "updated_at": registry.updated_at,
    }
