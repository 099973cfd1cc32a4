"""``pandastack template lock``: resolve the declared packages of a folder and write them down beside the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.output import Json, note, print_json

if TYPE_CHECKING:
    from pandastack.images.packages.lock import Lock


def lock(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A template's folder.")],
    json: Json = False,
) -> None:
    """Resolve a template's declared packages and write packages.lock. Commit it beside the recipe."""
    import anyio

    from pandastack.images.packages.lock import LOCK

    made = anyio.run(_lock, folder)
    counts = {kind: len(getattr(made, kind)) for kind in ("debian", "python", "npm")}
    if json:
        print_json(counts)
        return
    for kind, count in counts.items():
        typer.echo(f"{kind:8}{count} packages")
    note(f"wrote {folder / LOCK}; `pandastack template build {folder}` uses it")


async def _lock(folder: Path) -> Lock:
    from pandastack.engine.build.describe import lock_packages
    from pandastack.engine.build.install import shipped_recipes
    from pandastack.host.files import write_atomically
    from pandastack.images.packages.lock import LOCK

    made = await lock_packages(folder, shipped_recipes())
    write_atomically(folder / LOCK, made.render().encode(), mode=0o644)
    return made
