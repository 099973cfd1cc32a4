"""``pandastack volume``: disks that outlive sandboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandastack.cli.connection import connect, delete_each
from pandastack.cli.output import Json, print_fields, print_json, print_table, result

if TYPE_CHECKING:
    from pandastack.sdk._types import Volume

group = typer.Typer(no_args_is_help=True, help="Keep files on disks that outlive sandboxes.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The volume's name.")]
NewName = Annotated[str, typer.Argument(metavar="NEW", help="The new volume's name.")]
Size = Annotated[int | None, typer.Option("--size", min=1, metavar="MB", help="Size in MiB.")]
Volumes = Annotated[
    list[str] | None,
    typer.Option(
        "--volume",
        metavar="NAME[:PATH][:ro]",
        help="A volume, mounted at /mnt/NAME or PATH; with ro a copy that is only read (repeatable).",
    ),
]


@group.command()
def create(name: Name, size: Size = None, json: Json = False) -> None:
    """Make an empty volume, by default of 256 MiB."""
    with connect() as client:
        _made(client.volumes.create(name, size), json)


@group.command("list")
def list_(json: Json = False) -> None:
    """List the volumes."""
    with connect() as client:
        found = client.volumes.list()
    if json:
        print_json(found)
        return
    rows = [(v["name"], f"{v['size_mb']} MB", v.get("kind"), _holders(v) or "", v.get("created_at")) for v in found]
    print_table(("NAME", "SIZE", "KIND", "ATTACHED TO", "CREATED"), rows)


@group.command()
def get(name: Name, json: Json = False) -> None:
    """Show one volume."""
    with connect() as client:
        volume = client.volumes.get(name)
    if json:
        print_json(volume)
    else:
        print_fields({**volume, "attached_to": _holders(volume)})


@group.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="The volumes' names.")], json: Json = False
) -> None:
    """Delete volumes with everything in them. The others are deleted even when one cannot be."""
    with connect() as client:
        delete_each(names, client.volumes.delete, json)


@group.command()
def grow(
    name: Name,
    size: Annotated[int, typer.Option("--size", min=1, metavar="MB", help="The new size in MiB.")],
    json: Json = False,
) -> None:
    """Make a volume larger, while a sandbox writes to it, too."""
    with connect() as client:
        volume = client.volumes.grow(name, size)
    result(dict(volume), f"{volume['name']} has {volume['size_mb']} MB", as_json=json)


@group.command()
def clone(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A volume, or ID:/PATH: what a sandbox has mounted there.")
    ],
    new: NewName,
    size: Size = None,
    json: Json = False,
) -> None:
    """Copy a volume as it is now, in use or not, or keep what a sandbox has mounted."""
    first, colon, path = source.partition(":")
    with connect() as client:
        if colon:
            _made(client.volumes.keep(first, path, new, size_mb=size), json)
        else:
            _made(client.volumes.clone(first, new, size_mb=size), json)


@group.command()
def snapshot(name: Name, new: NewName, json: Json = False) -> None:
    """Copy a volume as it is now, for reading and cloning."""
    with connect() as client:
        _made(client.volumes.snapshot(name, new), json)


def mounts(given: list[str]) -> list[dict[str, Any]]:
    """The volumes of a new sandbox, as they are sent. Raises ``typer.BadParameter``."""
    return [_mount(each) for each in given]


def _mount(text: str) -> dict[str, Any]:
    """``NAME[:PATH][:ro]``: a name has no colon, a path begins with a slash."""
    read_only = text.endswith(":ro")
    name, colon, path = text.removesuffix(":ro").partition(":")
    if not name or (colon and not path.startswith("/")):
        raise typer.BadParameter(f"{text!r} is not NAME[:PATH][:ro]", param_hint="--volume")
    return {"name": name} | ({"path": path} if path else {}) | ({"read_only": True} if read_only else {})


def _holders(volume: Volume) -> str | None:
    shown = [f"{each['sandbox_id']}{' (ro)' if each['read_only'] else ''}" for each in volume.get("attached_to", ())]
    return ", ".join(shown) or None


def _made(volume: Volume, json: bool) -> None:
    result(dict(volume), volume["name"], as_json=json)
