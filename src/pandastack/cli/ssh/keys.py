"""``pandastack ssh-key``: the public keys that open the workspace's sandboxes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, print_json, print_table, result
from pandastack.errors import PandastackError

group = typer.Typer(no_args_is_help=True, help="Add, list and delete SSH keys.", rich_markup_mode=None)


@group.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A public key, as ~/.ssh/id_ed25519.pub.")],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Its name; by default its own comment.")] = None,
    json: Json = False,
) -> None:
    """Add a public key. It opens every sandbox of the workspace."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise PandastackError(f"cannot read {file}: {error.strerror}") from error
    with connect() as client:
        key = client.ssh_keys.add(text, name)
    result(key, f"{key['id']}  {key['fingerprint']}", as_json=json)


@group.command("list")
def list_(json: Json = False) -> None:
    """List the keys, oldest first."""
    with connect() as client:
        found = client.ssh_keys.list()
    if json:
        print_json(found)
        return
    columns = ("id", "name", "fingerprint", "created_at", "last_used_at")
    print_table(("ID", "NAME", "FINGERPRINT", "CREATED", "LAST USED"), [[k.get(c) for c in columns] for k in found])


@group.command()
def delete(
    key_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The keys' ids.")],
    json: Json = False,
) -> None:
    """Delete keys. The others are deleted even when one cannot be."""
    with connect() as client:
        delete_each(key_ids, client.ssh_keys.delete, json)
