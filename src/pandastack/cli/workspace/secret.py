"""``pandastack secret``: secrets that sandboxes use and do not see."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, print_fields, print_json, print_table, result
from pandastack.errors import BadRequestError

if TYPE_CHECKING:
    from pandastack.sdk._types import Secret

group = typer.Typer(
    no_args_is_help=True, help="Store secrets that sandboxes use and do not see.", rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name, and the variable's in sandboxes.")]
Host = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="A host that may get the value: a name or *.example.org; repeatable."),
]
FromFile = Annotated[
    Path | None, typer.Option("--from-file", metavar="FILE", help="Read the value from a file, not standard input.")
]


@group.command()
def create(name: Name, host: Host = None, from_file: FromFile = None, json: Json = False) -> None:
    """Store a secret; the value comes from standard input. Without --host, sandboxes get the value itself."""
    value = _value(from_file)
    with connect() as client:
        _show(client.secrets.create(name, value, hosts=host or ()), json)


@group.command()
def update(
    name: Name,
    host: Host = None,
    from_file: FromFile = None,
    keep_value: Annotated[bool, typer.Option("--keep-value", help="Change only the hosts.")] = False,
    json: Json = False,
) -> None:
    """Give a secret another value, other hosts, or both. Sandboxes that have it use them at once."""
    value = None if keep_value else _value(from_file)
    with connect() as client:
        _show(client.secrets.update(name, value=value, hosts=host), json)


@group.command("list")
def list_(json: Json = False) -> None:
    """List the secrets, without their values."""
    with connect() as client:
        found = client.secrets.list()
    if json:
        print_json([_fields(each) for each in found])
        return
    rows = [(each.name, ", ".join(each.hosts) or "(environment)", each.updated_at) for each in found]
    print_table(("NAME", "HOSTS", "UPDATED"), rows)


@group.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="The secrets' names.")], json: Json = False
) -> None:
    """Delete secrets, also from the sandboxes that have them. The others are deleted even when one cannot be."""
    with connect() as client:
        delete_each(names, client.secrets.delete, json)


@group.command("rotate-key")
def rotate_key(json: Json = False) -> None:
    """Encrypt all secrets of the server anew, with a new key."""
    with connect() as client:
        count = client.secrets.rotate_key()
    result({"secrets": count}, f"{count} secrets are encrypted with a new key", as_json=json)


def _value(from_file: Path | None) -> str:
    """The value, without the end of its last line. It is no argument: those are seen by every user of a host."""
    try:
        if from_file is not None:
            text = from_file.read_text(encoding="utf-8")
        elif sys.stdin.isatty():
            text = typer.prompt("value", hide_input=True)
        else:
            text = sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"cannot read the value: {error}", field="value") from error
    return text.removesuffix("\n").removesuffix("\r")


def _fields(secret: Secret) -> dict[str, object]:
    return {
        "name": secret.name,
        "hosts": list(secret.hosts),
        "placeholder": secret.placeholder,
        "created_at": secret.created_at,
        "updated_at": secret.updated_at,
    }


def _show(secret: Secret, json: bool) -> None:
    if json:
        print_json(_fields(secret))
    else:
        print_fields({**_fields(secret), "hosts": ", ".join(secret.hosts) or None})
