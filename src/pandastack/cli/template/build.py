"""``pandastack template build`` and ``pin``: make templates on this host, with or without a server running."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from pandastack import config
from pandastack.cli.output import Json, note, print_json
from pandastack.cli.sandbox import logs
from pandastack.cli.server import daemon


def build(
    folders: Annotated[
        list[str] | None,
        typer.Argument(help="Folders with a Dockerfile, or names of shipped templates. Default: all shipped ones."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the server keeps everything.")] = None,
    json: Json = False,
) -> None:
    """Build templates. What is in the cache is not built again; a running server has them at once."""
    import anyio

    built = anyio.run(_build, folders or [], config.data_dir(data_dir))
    if json:
        print_json(built)


def pin(json: Json = False) -> None:
    """Move the pinned guest kernel to the newest that the distribution's mirror has."""
    import anyio

    from pandastack.images.kernel import LOCK_FILE, refresh_lock

    pins = anyio.run(refresh_lock)
    if json:
        print_json({arch: vars(each) for arch, each in pins.items()})
        return
    for arch, each in pins.items():
        typer.echo(f"{arch}  {each.package} {each.version}  sha256 {each.sha256}")
    note(f"wrote {LOCK_FILE}; build the templates again to use it")


async def _build(names: Iterable[str], data: Path) -> list[dict[str, object]]:
    from pandastack.cli.template.progress import TerminalProgress
    from pandastack.disks.pool import open_pool
    from pandastack.engine.build.host import open_build_host
    from pandastack.engine.build.install import install_template, recipe_folders, shipped_recipes
    from pandastack.engine.layout import Layout
    from pandastack.images.template import load_template

    logs.configure("warning")
    shipped, progress = shipped_recipes(), TerminalProgress()
    recipes = [load_template(folder) for folder in recipe_folders(names, shipped)]
    daemon.own(data)
    layout = Layout(data, config.cache_dir())
    built: list[dict[str, object]] = []
    try:
        host = await open_build_host(layout, shipped, progress)
        async with open_pool(layout.engine) as pool:
            for recipe in recipes:
                note(f"template {recipe.name}")
                installed = await install_template(host, pool, recipe)
                built.append(installed.template.to_json())
    finally:
        progress.stop()
    return built
