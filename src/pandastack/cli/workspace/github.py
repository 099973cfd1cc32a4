"""``pandastack github``: the workspace's connection to GitHub."""

from __future__ import annotations

import sys

import typer

from pandastack.cli.connection import connect as open_connection
from pandastack.cli.output import Json, note, print_fields, print_json, result

group = typer.Typer(no_args_is_help=True, help="Connect the workspace to GitHub.", rich_markup_mode=None)


@group.command()
def connect(json: Json = False) -> None:
    """Store a token of GitHub's, which comes from standard input, and show what to set a webhook up with."""
    token = _token()
    with open_connection() as client:
        made = client.github.connect(token)
    if json:
        print_json(made)
        return
    print_fields(made)
    note("at GitHub: Settings, Webhooks, Add webhook; content type application/json")


@group.command()
def status(json: Json = False) -> None:
    """Show the connection, without token and secret."""
    with open_connection() as client:
        found = client.github.connection()
    if json:
        print_json(found)
    else:
        print_fields(found)


@group.command()
def disconnect(json: Json = False) -> None:
    """Forget the token and the webhook."""
    with open_connection() as client:
        client.github.disconnect()
    result({"disconnected": True}, "disconnected", as_json=json)


def _token() -> str:
    """The token, without the end of its line. It is no argument: those are seen by every user of a host."""
    if sys.stdin.isatty():
        return str(typer.prompt("token", hide_input=True))
    return sys.stdin.read().strip()
