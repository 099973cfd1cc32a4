"""What a machine is restored from, as a directory: ``memory``, ``pages``, ``devices``, its disks, ``image.erofs``, a
manifest and the template's description.

A machine's own directory has the same names. The big read-only files in it are hard links: the file system counts their
users, so a snapshot or a template can be deleted at any time, and exactly the files without other users become free.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pandastack.engine.spec import SandboxSpec
from pandastack.errors import NotFoundError
from pandastack.host import files
from pandastack.model.template import Template
from pandastack.snapshots import manifest
from pandastack.snapshots.manifest import Snapshot

_IMAGE, _TEMPLATE, _SPEC, _MANIFEST = "image.erofs", "template.json", "order.json", "manifest.json"


@dataclass(frozen=True)
class Origin:
    """A template with the snapshot that its sandboxes are restored from."""

    template: Template
    snapshot: Snapshot
    image: Path
    continues: bool = False
    """Whether the sandbox restored from it continues exactly where it stopped: it is no copy, and no time is repeated.
    Only then does the host have the other ends of its tunnels (docs/design/0024-tunnels.md)."""

    @property
    def name(self) -> str:
        return self.template.name

    @property
    def key(self) -> str:
        return self.snapshot.manifest.key


def link_base(origin: Origin, directory: Path) -> Origin:
    """Give a machine in ``directory`` the files it opens when it starts; disks are empty until :func:`copy_state`.

    Raises :class:`ConflictError` when the memory that it would share has been modified.
    """
    own = Snapshot(directory, origin.snapshot.manifest)
    link(origin.snapshot.memory, own.memory)
    own.check_memory()
    link(origin.image, directory / _IMAGE)
    for disk, captured in zip(own.disks, origin.snapshot.disks, strict=True):
        _make_sparse(disk.path, captured.path.stat().st_size)
    return Origin(origin.template, own, directory / _IMAGE)


def _make_sparse(path: Path, size: int) -> None:
    try:
        with path.open("wb") as file:
            file.truncate(size)
    except OSError as error:
        raise files.map_error(error, path) from error


def fits(machine: Origin, origin: Origin) -> bool:
    """Whether a blank machine made for ``machine`` can load ``origin``: both use the same files, and disks of the same
    names."""
    if machine.snapshot.manifest.disks != origin.snapshot.manifest.disks:
        return False
    pairs = (machine.snapshot.memory, origin.snapshot.memory), (machine.image, origin.image)
    try:
        return all(mine.samefile(other) for mine, other in pairs)
    except FileNotFoundError:  # the template was replaced
        return False


def copy_state(origin: Origin, directory: Path) -> Origin:
    """Complete a linked ``directory`` with this origin's own state, and return the origin as the machine has it."""
    own = Snapshot(directory, origin.snapshot.manifest)
    for disk, captured in zip(own.disks, origin.snapshot.disks, strict=True):
        files.clone(captured.path, disk.path)
    return _describe(directory, origin.template, own)


def describe(directory: Path, template: Template, snapshot: Snapshot, image: Path) -> Origin:
    """Add everything but memory, devices and disks to ``directory``."""
    link(image, directory / _IMAGE)
    return _describe(directory, template, snapshot)


def _describe(directory: Path, template: Template, snapshot: Snapshot) -> Origin:
    try:
        (directory / _TEMPLATE).write_text(json.dumps(template.to_json()))
        (directory / _MANIFEST).write_bytes(snapshot.manifest.to_json())
    except OSError as error:
        raise files.map_error(error, directory) from error
    return Origin(template, snapshot, directory / _IMAGE)


def load(directory: Path) -> Origin:
    """The origin in ``directory``. Raises :class:`NotFoundError` when it is incomplete."""
    try:
        template = Template.from_json((directory / _TEMPLATE).read_bytes())
        return Origin(template, manifest.load(directory), directory / _IMAGE)
    except FileNotFoundError as error:
        raise NotFoundError(f"snapshot not found: {directory.name}", field="snapshot") from error


def write_spec(directory: Path, spec: SandboxSpec) -> None:
    """Record which sandbox this is a snapshot of."""
    values = {"sandbox": spec.sandbox, "hostname": spec.hostname, "env": spec.env}
    files.write_atomically(directory / _SPEC, json.dumps(values).encode())


def read_spec(directory: Path) -> SandboxSpec:
    """The spec that :func:`write_spec` recorded. Raises :class:`NotFoundError` when there is none."""
    try:
        values = json.loads((directory / _SPEC).read_bytes())
        return SandboxSpec(values["sandbox"], values["hostname"], values["env"])
    except FileNotFoundError as error:
        raise NotFoundError(f"snapshot not found: {directory.name}", field="snapshot") from error


def link(source: Path, target: Path) -> None:
    """A hard link to a file that is no longer written to."""
    try:
        os.link(source, target)
    except OSError as error:
        raise files.map_error(error, target) from error
