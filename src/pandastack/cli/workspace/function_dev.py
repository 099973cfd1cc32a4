"""``pandastack fn dev``: deploys a function again whenever its files change, and shows its runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.connection import connect
from pandastack.cli.output import note, report
from pandastack.cli.workspace.function_show import RuntimeName, explain, names_of, show_record
from pandastack.errors import BadRequestError, PandastackError

if TYPE_CHECKING:
    from pandastack import Client

PAUSE_SECONDS = 0.5
"""Between two looks at the files and the runs."""

Files = Mapping[str, tuple[int, int]]
"""Times of change and sizes, by path."""


def add_to(group: typer.Typer) -> None:
    """Add the command of this module."""
    group.command()(dev)


def dev(
    path: Annotated[Path, typer.Argument(help="A folder with the function, or its file.", show_default=False)],
    name: Annotated[str | None, typer.Option("--name", help="By default the folder's name.")] = None,
    runtime: RuntimeName = "python",
    entrypoint: Annotated[str | None, typer.Option("--entrypoint", help="FILE or FILE:NAME.")] = None,
    template: Annotated[str | None, typer.Option("--template", help="For a function that is made.")] = None,
) -> None:
    """Deploy a function at each change of its files, and print its runs as they end, until Ctrl-C."""
    if not path.exists():
        raise BadRequestError(f"{path} is neither a folder nor a file")
    chosen, entrypoint = names_of(path, name, entrypoint)
    with connect() as client:
        session = Session(client, path, chosen, runtime, entrypoint, template)
        try:
            while True:
                session.look()
                time.sleep(PAUSE_SECONDS)
        except KeyboardInterrupt:
            note(f"{chosen} serves on as it was deployed last")


class Session:
    """What was deployed last, and which runs were shown."""

    def __init__(
        self, client: Client, path: Path, name: str, runtime: str, entrypoint: str | None, template: str | None
    ) -> None:
        self._client = client
        self._path = path
        self._name, self._runtime = name, runtime
        self._entrypoint, self._template = entrypoint, template
        self._deployed: Files | None = None
        self._seen: Files | None = None
        self._function: str | None = None
        self._shown: set[str] = set()

    def look(self) -> None:
        """Deploy what has changed, once it is the same in two looks: an editor may be writing. Else print the runs that
        have ended since the last look. What fails is printed, and tried again after the next change."""
        now = files_of(self._path)
        if now != self._deployed and (self._seen is None or now == self._seen):
            self._deployed = now
            self._deploy()
        elif self._function is not None:
            self._show_runs(self._function)
        self._seen = now

    def _deploy(self) -> None:
        began = time.monotonic()
        try:
            made = self._client.functions.deploy(
                self._name, self._runtime, self._path, entrypoint=self._entrypoint, template=self._template
            )
        except PandastackError as error:
            if isinstance(error, BadRequestError):
                explain(error)
            report(error, as_json=False)
            return
        typer.echo(f"{self._name} version {made.get('version')} in {time.monotonic() - began:.1f} s")
        if self._function is None:
            self._function = made["id"]
            self._shown = {run["id"] for run in self._client.functions.runs(made["id"])}

    def _show_runs(self, function_id: str) -> None:
        try:
            found = self._client.functions.runs(function_id)
        except PandastackError as error:
            report(error, as_json=False)
            return
        for run in reversed(found):
            if run["id"] not in self._shown and run["status"] != "running":
                show_record(run)
                self._shown.add(run["id"])
        self._shown &= {run["id"] for run in found}


def files_of(root: Path) -> dict[str, tuple[int, int]]:
    """The files that a deploy of ``root`` packs. One that goes meanwhile is not there."""
    found = {}
    for path in _walk(root):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found[str(path)] = status.st_mtime_ns, status.st_size
    return found


def _walk(root: Path) -> Iterator[Path]:
    from pandastack.sdk._functions import is_packed

    if root.is_file():
        yield root
    for folder, names, files in os.walk(root):
        names[:] = [each for each in names if is_packed(each)]
        yield from (Path(folder, each) for each in files if is_packed(each))
