"""``pandastack template build``: by the running server, or in this process when there is none."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandastack import config
from pandastack.cli import credentials
from pandastack.cli.output import Json, note, print_json
from pandastack.cli.sandbox import logs
from pandastack.cli.server import daemon
from pandastack.cli.template.given import read_given, recipe_of_image
from pandastack.errors import BadRequestError, BuildError

if TYPE_CHECKING:
    from pandastack.cli.template.progress import TerminalProgress
    from pandastack.contract.builds import BuildOptions
    from pandastack.engine.build.builds import Builds
    from pandastack.engine.build.host import OnFailedRun
    from pandastack.engine.build.machine import BuildMachine
    from pandastack.images.actions import RunAction

_DEFAULT = ("base", "code-interpreter")


def build(
    folders: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders with a Dockerfile, or names of shipped templates. Default: base and code-interpreter."
        ),
    ] = None,
    all_shipped: Annotated[bool, typer.Option("--all", help="Build all shipped templates.")] = False,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the server keeps everything.")] = None,
    debug_shell: Annotated[
        bool, typer.Option("--debug-shell", help="Open a shell in the build machine when an instruction fails.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option("--target", help="The stage that becomes the template, by name or index. Default: the last one."),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Carry the Dockerfile's instructions out whatever is cached.")
    ] = False,
    build_arg: Annotated[
        list[str] | None,
        typer.Option("--build-arg", metavar="NAME=VALUE", help="The value of an ARG; repeatable."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="id=NAME,src=FILE",
            help="A file for RUN --mount=type=secret; env=VARIABLE or stored=NAME in place of src; repeatable.",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="REF", help="In place of folders: the image of a registry.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the template of --image is called.")] = None,
    json: Json = False,
) -> None:
    """Build templates. Cached steps are not built again; a running server offers the templates at once."""
    from pandastack.contract.builds import BuildOptions

    given = read_given(build_arg or (), secret or ())
    if given and (not folders or not all(map(_is_folder, folders))):
        raise BadRequestError("--build-arg and --secret are for folders, not for shipped templates", field="build-arg")
    options = BuildOptions(target or "", no_cache, arguments=given.arguments, secrets=given.secrets)
    with recipe_of_image(image, name, folders or ()) as named:
        wanted = [] if all_shipped else named or list(_DEFAULT)
        built = _build(wanted, config.data_dir(data_dir), options, given.stored, debug=debug_shell)
    if json:
        print_json(built)


def pin(json: Json = False) -> None:
    """Pin the newest guest kernel and file system check that the distribution's mirror has."""
    import anyio

    from pandastack.images.pins import LOCK_FILE
    from pandastack.images.refresh import refresh_lock

    pins = anyio.run(refresh_lock)
    if json:
        print_json({what: {arch: vars(each) for arch, each in table.items()} for what, table in pins.items()})
        return
    for table in pins.values():
        for arch, each in table.items():
            typer.echo(f"{arch}  {each.package} {each.version}  sha256 {each.sha256}")
    note(f"wrote {LOCK_FILE}; build the templates again to use it")


def _is_folder(name: str) -> bool:
    return (Path(name) / "Dockerfile").is_file()


def _build(
    names: list[str], data: Path, options: BuildOptions, stored: Mapping[str, str], *, debug: bool
) -> list[dict[str, Any]]:
    server, token = daemon.find(data), credentials.first_token(data)
    if server is not None and token is not None and not debug:
        return _build_by_server(server.url, token, names, options, stored)
    if stored:
        raise BadRequestError("--secret stored=NAME needs a running server", field="secret", hint="pandastack up")
    import anyio

    return anyio.run(_build_here, names, data, debug, options)


def _build_by_server(
    url: str, token: str, names: Iterable[str], options: BuildOptions, stored: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Build one after the other; an interrupt cancels the current build."""
    from pandastack import Client
    from pandastack.cli.template.progress import TerminalProgress

    built: list[dict[str, Any]] = []
    progress = TerminalProgress()
    try:
        with Client(url, token) as client:
            for name in names or client.templates.recipes():
                note(f"template {Path(name).name if _is_folder(name) else name}")
                folder, shipped = (name, None) if _is_folder(name) else (None, name)
                started = client.templates.start_build(
                    folder,
                    shipped=shipped,
                    target=options.target or None,
                    no_cache=options.no_cache,
                    build_args=options.arguments,
                    secrets=options.secrets,
                    stored_secrets=stored,
                )
                try:
                    for event in client.templates.events(started.id):
                        progress.show(event.name, event.data)
                except KeyboardInterrupt:
                    client.templates.cancel_build(started.id)
                    raise
                ended = client.templates.get_build(started.id)
                if ended.status != "done":
                    raise BuildError(ended.error or "the build failed")
                built.append(asdict(client.templates.get(ended.name)))
    finally:
        progress.stop()
    return built


async def _build_here(names: list[str], data: Path, debug: bool, options: BuildOptions) -> list[dict[str, Any]]:
    from pandastack.cli.template.progress import TerminalProgress
    from pandastack.disks.pool import open_pool
    from pandastack.engine.build.builds import open_builds
    from pandastack.engine.build.install import shipped_recipes
    from pandastack.engine.layout import Layout
    from pandastack.engine.origins.catalog import Templates

    built: list[dict[str, Any]] = []
    progress, layout = TerminalProgress(), Layout(data, config.cache_dir())
    look = _debugger(progress) if debug else None
    logs.configure("warning")
    daemon.own(data)
    try:
        async with open_pool(layout.engine) as pool, open_builds(layout, pool, shipped_recipes(), look) as builds:
            for name in names or builds.recipes():
                note(f"template {Path(name).name if _is_folder(name) else name}")
                template = await _follow(builds, await _start(builds, name, options), progress)
                built.append(Templates(layout.templates, pool).get(template).template.to_json())
    finally:
        progress.stop()
    return built


async def _start(builds: Builds, name: str, options: BuildOptions) -> str:
    build_id = str(uuid.uuid4())
    if _is_folder(name):
        await builds.start_folder(build_id, Path(name), options)
    else:
        await builds.start_shipped(build_id, name, options)
    return build_id


async def _follow(builds: Builds, build_id: str, progress: TerminalProgress) -> str:
    """Show the build to its end; returns the name of its template."""
    async for event in builds.read(build_id, follow=True):
        progress.show(event.KIND, asdict(event))
    build = builds.get(build_id)
    if build.status != "done":
        raise BuildError(build.error or f"the build is {build.status}")
    return build.template


def _debugger(progress: TerminalProgress) -> OnFailedRun:
    from pandastack.cli.template.debug_shell import check_terminal, debug_shell

    check_terminal()

    async def look(machine: BuildMachine, action: RunAction) -> None:
        progress.stop()
        await debug_shell(machine, action)

    return look
