"""``pandastack template export`` and ``import``: a baked template as a file, to have it on another host.

Both work on the data directory itself, whether or not a server runs: an archive holds a machine's memory and device
state, and so is for the operator alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandastack import config
from pandastack.cli.output import Json, result, size_of
from pandastack.cli.server import daemon

if TYPE_CHECKING:
    from pandastack.cli.template.progress import TerminalProgress

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the server keeps everything.")]


def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write.")],
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Write a baked template into a file, which `pandastack template import` reads on another host."""
    import anyio

    done = anyio.run(_export, config.data_dir(data_dir), name, file.absolute())
    size = file.stat().st_size
    result({**done, "file": str(file), "bytes": size}, f"wrote {file}, {size_of(size)}", as_json=json)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `pandastack template export` wrote.")],
    name: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Its name here.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of a template of this name.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Install a template from a file. It must have been baked with this host's VMM build and CPU.

    A running server offers it at once.
    """
    import anyio

    data = config.data_dir(data_dir)
    daemon.own(data)
    done = anyio.run(_import, data, file.absolute(), name or "", replace)
    result(done, f"installed template {done['name']}", as_json=json)


async def _export(data: Path, name: str, file: Path) -> dict[str, Any]:
    import anyio

    from pandastack.disks.pool import open_pool
    from pandastack.engine.layout import Layout
    from pandastack.engine.origins.catalog import Templates
    from pandastack.engine.origins.transfer import export_template

    layout = Layout(data, config.cache_dir())
    with _step(f"export {name}") as progress:
        async with open_pool(layout.engine) as pool:
            templates = Templates(layout.templates, pool)
            index = await anyio.to_thread.run_sync(export_template, templates, name, file, progress.advance)
    return {"name": index.template.name, "version": index.template.version}


async def _import(data: Path, file: Path, name: str, replace: bool) -> dict[str, Any]:
    import anyio

    from pandastack.disks.pool import open_pool
    from pandastack.engine.driver import open_driver
    from pandastack.engine.layout import Layout
    from pandastack.engine.origins.catalog import Templates
    from pandastack.engine.origins.transfer import ImportOptions, import_template
    from pandastack.engine.work import sweep_orphans, work_directory

    layout, options = Layout(data, config.cache_dir()), ImportOptions(name, replace)
    with _step(f"import {file.name}") as progress:
        async with open_pool(layout.engine) as pool:
            sweep_orphans(pool.directory)  # of imports that were killed
            templates, driver = Templates(layout.templates, pool), await open_driver()
            async with work_directory(pool.directory, "import") as work:
                origin = await anyio.to_thread.run_sync(
                    import_template, templates, pool, driver, file, work, options, progress.advance
                )
    return asdict(origin.template)


@contextmanager
def _step(title: str) -> Iterator[TerminalProgress]:
    from pandastack.cli.template.progress import TerminalProgress

    progress = TerminalProgress()
    progress.begin(title)
    try:
        yield progress
    finally:
        progress.stop()
