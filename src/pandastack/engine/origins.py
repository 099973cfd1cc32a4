"""What a machine is restored from, as a directory: ``memory``, ``pages``, ``devices``, ``disk.img``, ``image.erofs``, a
manifest and the template's description.

A machine's own directory has the same names. The big read-only files in it are hard links: the file system counts who
still uses them, so a snapshot or a template can be deleted at any time, and exactly what nobody else uses becomes free.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import anyio

from pandastack.engine.sandbox import Order
from pandastack.engine.templates import Installed
from pandastack.errors import NotFoundError
from pandastack.host import files
from pandastack.model.template import Template
from pandastack.snapshots import manifest
from pandastack.snapshots.manifest import Snapshot

_IMAGE, _TEMPLATE, _ORDER, _MANIFEST = "image.erofs", "template.json", "order.json", "manifest.json"
_UNFINISHED = ".new-"


def moor(origin: Installed, directory: Path) -> Installed:
    """Give a machine in ``directory`` the files it opens when it starts. Its disk is empty until :func:`fill`."""
    own = Snapshot(directory, origin.snapshot.manifest)
    link(origin.snapshot.memory, own.memory)
    link(origin.image, directory / _IMAGE)
    try:
        with own.disk.open("wb") as file:
            file.truncate(origin.snapshot.disk.stat().st_size)
    except OSError as error:
        raise files.map_error(error, own.disk) from error
    return Installed(origin.template, own, directory / _IMAGE)


def fits(machine: Installed, origin: Installed) -> bool:
    """Whether a machine that was moored for ``machine`` can be filled with ``origin``: it has the same files open."""
    pairs = (machine.snapshot.memory, origin.snapshot.memory), (machine.image, origin.image)
    try:
        return all(mine.samefile(other) for mine, other in pairs)
    except FileNotFoundError:  # the template was replaced
        return False


def fill(origin: Installed, directory: Path) -> Installed:
    """Make what was moored in ``directory`` this origin's, and return it as the machine has it."""
    own = Snapshot(directory, origin.snapshot.manifest)
    files.clone(origin.snapshot.disk, own.disk)
    return _describe(directory, origin.template, own)


def describe(directory: Path, template: Template, snapshot: Snapshot, image: Path) -> Installed:
    """Complete ``directory`` with everything but memory, devices and disk."""
    link(image, directory / _IMAGE)
    return _describe(directory, template, snapshot)


def _describe(directory: Path, template: Template, snapshot: Snapshot) -> Installed:
    try:
        (directory / _TEMPLATE).write_text(json.dumps(template.to_json()))
        (directory / _MANIFEST).write_bytes(snapshot.manifest.to_json())
    except OSError as error:
        raise files.map_error(error, directory) from error
    return Installed(template, snapshot, directory / _IMAGE)


def load(directory: Path) -> Installed:
    """What is in ``directory``. Raises :class:`NotFoundError` when it is not whole."""
    try:
        template = Template.from_json((directory / _TEMPLATE).read_bytes())
        return Installed(template, manifest.load(directory), directory / _IMAGE)
    except FileNotFoundError as error:
        raise NotFoundError(f"snapshot not found: {directory.name}", field="snapshot") from error


def keep_order(directory: Path, order: Order) -> None:
    """Remember whose snapshot this is."""
    files.write_atomically(directory / _ORDER, json.dumps(asdict(order)).encode())


def order_in(directory: Path) -> Order:
    """What :func:`keep_order` kept. Raises :class:`NotFoundError` when there is nothing."""
    try:
        return Order(**json.loads((directory / _ORDER).read_bytes()))
    except FileNotFoundError as error:
        raise NotFoundError(f"snapshot not found: {directory.name}", field="snapshot") from error


def link(source: Path, target: Path) -> None:
    """Another name for a file that nobody writes to any more."""
    try:
        os.link(source, target)
    except OSError as error:
        raise files.map_error(error, target) from error


class Shelf:
    """Origins under ids. One appears when it is whole, and disappears whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        for left in directory.glob(f"{_UNFINISHED}*"):  # of a former run; there is one engine to a directory
            shutil.rmtree(left, ignore_errors=True)

    def path(self, name: str) -> Path:
        return self._directory / name

    def names(self) -> list[str]:
        return sorted(each.name for each in self._directory.iterdir() if not each.name.startswith("."))

    def has(self, name: str) -> bool:
        return self.path(name).exists()

    def get(self, name: str) -> Installed:
        """Raises :class:`NotFoundError`."""
        return load(self.path(name))

    @asynccontextmanager
    async def adding(self, name: str) -> AsyncIterator[Path]:
        """A directory to fill; the origin is there when the block ends well, and nothing is left when it does not.

        What is there survives a power cut: it may be all that is left of a sandbox.
        """
        with files.directory_for_now(self._directory / f"{_UNFINISHED}{name}") as work:
            yield work
            await anyio.to_thread.run_sync(files.make_durable, work)
            work.rename(self.path(name))
            try:
                await anyio.to_thread.run_sync(files.make_durable, self._directory, False)
            except BaseException:
                self.remove(name)
                raise

    def remove(self, name: str) -> None:
        """Raises :class:`NotFoundError`."""
        dying = self._directory / f"{_UNFINISHED}dying-{name}"
        try:
            self.path(name).rename(dying)
        except FileNotFoundError as error:
            raise NotFoundError(f"snapshot not found: {name}", field="snapshot") from error
        shutil.rmtree(dying, ignore_errors=True)
