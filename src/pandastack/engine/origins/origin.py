"""What a machine begins from, as a directory: ``memory``, ``pages``, ``devices``, ``base.img``, its disks, kernel and
initial file system, a manifest and the template's description.

A machine's own directory has the same names. The big read-only files in it are hard links: the file system counts their
users, so a snapshot or a template can be deleted at any time, and exactly the files without other users become free.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

from pandastack.disks import overlay
from pandastack.engine.spec import Attachment, SandboxSpec
from pandastack.errors import NotFoundError
from pandastack.host import files
from pandastack.model.network import OPEN
from pandastack.model.network_rules import from_json, to_json
from pandastack.model.size import Size
from pandastack.model.template import Template
from pandastack.snapshots import manifest
from pandastack.snapshots.manifest import Manifest, Snapshot, SnapshotDisk, volume_name

_TEMPLATE, _SPEC, _MANIFEST = "template.json", "order.json", "manifest.json"


@dataclass(frozen=True)
class Origin:
    """A template with the snapshot that its sandboxes are restored from."""

    template: Template
    snapshot: Snapshot
    continues: bool = False
    """Whether the sandbox restored from it continues exactly where it stopped: it is no copy, and no time is repeated.
    Only then does the host have the other ends of its tunnels (docs/design/0024-tunnels.md)."""
    resized: Size | None = None
    """The size that the sandbox restored from it gets, if not that of the snapshot."""
    attached: tuple[Path, ...] = ()
    """Volumes that come to the snapshot's blank disks: the files that those of the sandbox begin as clones of."""

    @property
    def name(self) -> str:
        return self.template.name

    @property
    def size(self) -> Size:
        """The size of the sandbox restored from it."""
        return self.resized or self.snapshot.manifest.size

    @property
    def manifest(self) -> Manifest:
        """The manifest of the sandbox restored from it."""
        return self.snapshot.manifest.with_size(self.size)

    @property
    def key(self) -> str:
        return self.snapshot.manifest.key


@dataclass(frozen=True)
class BootOrigin:
    """A template with the disks of a snapshot, whose memory is lost for ``reason``: a machine boots from them.

    There is no memory in it that could meet the wrong disks.
    """

    template: Template
    snapshot: Snapshot
    """Its manifest is that of the machine which boots here, not that of the capture."""
    starter: Snapshot
    """The snapshot whose kernel, modules and agent it boots with."""
    reason: str
    resized: Size | None = None
    """The size that the machine gets, if not that of the snapshot."""
    attached: tuple[Path, ...] = ()
    """As in an :class:`Origin`."""

    @property
    def name(self) -> str:
        return self.template.name

    @property
    def size(self) -> Size:
        """The size of the machine."""
        return self.resized or self.snapshot.manifest.size

    @property
    def key(self) -> str:
        return self.snapshot.manifest.key


Start: TypeAlias = Origin | BootOrigin
"""What a machine begins from."""


def sources(origin: Start) -> tuple[SnapshotDisk, ...]:
    """The writable disks that a machine begins with clones of: those of the snapshot, and volumes that are attached."""
    disks = origin.snapshot.disks
    captured = len(disks) - len(origin.attached)
    attached = zip(disks[captured:], origin.attached, strict=True)
    return (*disks[:captured], *(replace(disk, path=path) for disk, path in attached))


def attach(origin: Origin, volumes: Sequence[Attachment], contents: Sequence[Path]) -> Origin:
    """A template's ``origin`` whose sandbox has ``volumes``, clones of ``contents``, in its first blank places."""
    former = origin.snapshot.manifest
    names = [volume_name(each.place) for each in volumes]
    with_volumes = replace(
        former,
        disks=(*former.disks, *names),
        mounts=(*former.mounts, *(each.path for each in volumes)),
        read_only=tuple(name for name, each in zip(names, volumes, strict=True) if each.read_only),
    )
    snapshot = Snapshot(origin.snapshot.directory, with_volumes)
    return replace(origin, snapshot=snapshot, attached=tuple(contents))


def link_base(origin: Origin, directory: Path) -> Origin:
    """Give a machine in ``directory`` the files it opens when it starts; disks are empty until :func:`copy_state`.

    Raises :class:`ConflictError` when the memory that it would share has been modified.
    """
    own = Snapshot(directory, origin.snapshot.manifest)
    link(origin.snapshot.memory, own.memory)
    own.check_memory()
    _link_shared(origin.snapshot, own)
    for disk, captured in zip(own.disks, sources(origin), strict=True):
        if disk.base is None:
            files.make_sparse(disk.path, captured.path.stat().st_size)
        else:
            overlay.make_overlay(disk.path, overlay.disk_size(captured.path))
    return Origin(origin.template, own)


def fits(machine: Origin, origin: Origin) -> bool:
    """Whether a blank machine made for ``machine`` can load ``origin``: both use the same files, and disks of the same
    names."""
    if machine.snapshot.manifest.disks != origin.snapshot.manifest.disks:
        return False
    pairs = (machine.snapshot.memory, origin.snapshot.memory), (machine.snapshot.base, origin.snapshot.base)
    try:
        return all(mine.samefile(other) for mine, other in pairs)
    except FileNotFoundError:  # the template was replaced
        return False


def copy_state(origin: Origin, directory: Path) -> Origin:
    """Complete a linked ``directory`` with this origin's own state, and return the origin as the machine has it.

    A VMM that waits for a guest reads its overlays anew when the guest is loaded. Raises :class:`ServerError` for an
    overlay that no machine of ours has written.
    """
    own = Snapshot(directory, origin.manifest)
    for disk, captured in zip(own.disks, sources(origin), strict=True):
        files.clone(captured.path, disk.path)
        if disk.base is not None:
            overlay.disk_size(disk.path)
    return _describe(directory, origin.template, own)


def resize(machine: Origin, size: Size) -> Origin:
    """Record that the sandbox of a machine has another size than the origin that is linked in its directory."""
    own = Snapshot(machine.snapshot.directory, machine.snapshot.manifest.with_size(size))
    files.write_atomically(own.directory / _MANIFEST, own.manifest.to_json())
    return Origin(machine.template, own)


def copy_disks(origin: BootOrigin, directory: Path) -> Origin:
    """Give a machine in ``directory`` all files that it boots from, and an empty memory of its own.

    Raises :class:`ServerError` for an overlay that no machine of ours has written, or that was written in part.
    """
    own = Snapshot(directory, origin.snapshot.manifest.with_size(origin.size))
    link(origin.snapshot.base, own.base)
    _link_starter(origin.starter, own)
    for disk, captured in zip(own.disks, sources(origin), strict=True):
        files.clone(captured.path, disk.path)
        if disk.base is not None:
            overlay.check(disk.path)
    files.make_sparse(own.memory, own.manifest.max_memory_mb * 1024 * 1024)
    own = Snapshot(directory, replace(own.manifest, memory_stamp=manifest.stamp(own.memory)))
    return _describe(directory, origin.template, own)


def keep_disks(machine: Path, directory: Path, reason: str) -> None:
    """Put the disks of a machine that was lost for ``reason`` into ``directory``, without its memory.

    Raises :class:`NotFoundError` when the machine had no guest yet, :class:`ServerError` for a damaged overlay.
    """
    former = load(machine)
    kept = Snapshot(directory, _without_memory(former.snapshot.manifest, reason))
    _link_shared(former.snapshot, kept)
    for disk, written in zip(kept.disks, former.snapshot.disks, strict=True):
        link(written.path, disk.path)
        if disk.base is not None:
            overlay.check(disk.path)
    _describe(directory, former.template, kept)


def _without_memory(former: Manifest, reason: str) -> Manifest:
    return replace(former, parent=former.key, memory_lost=reason, memory_stamp="", disk_stamps=())


def _link_shared(former: Snapshot, own: Snapshot) -> None:
    """Link the files that are never written again, besides memory. Snapshots of older releases have no kernel."""
    link(former.base, own.base)
    _link_starter(former, own)


def _link_starter(former: Snapshot, own: Snapshot) -> None:
    link(former.modules, own.modules)
    if former.bootable:
        link(former.kernel, own.kernel)
        link(former.initramfs, own.initramfs)


def describe(directory: Path, former: Origin, snapshot: Snapshot) -> Origin:
    """Add to ``directory`` what a capture of ``former`` has besides memory, devices and writable disks."""
    _link_shared(former.snapshot, snapshot)
    return _describe(directory, former.template, snapshot)


def _describe(directory: Path, template: Template, snapshot: Snapshot) -> Origin:
    try:
        (directory / _TEMPLATE).write_text(json.dumps(template.to_json()))
        (directory / _MANIFEST).write_bytes(snapshot.manifest.to_json())
    except OSError as error:
        raise files.map_error(error, directory) from error
    return Origin(template, snapshot)


def load(directory: Path) -> Origin:
    """The origin in ``directory``. Raises :class:`NotFoundError` when it is incomplete."""
    try:
        template = Template.from_json((directory / _TEMPLATE).read_bytes())
        return Origin(template, manifest.load(directory))
    except FileNotFoundError as error:
        raise NotFoundError(f"snapshot not found: {directory.name}", field="snapshot") from error


def write_spec(directory: Path, spec: SandboxSpec) -> None:
    """Record which sandbox this is a snapshot of."""
    network = to_json(spec.network)
    values = {
        "sandbox": spec.sandbox,
        "hostname": spec.hostname,
        "env": spec.env,
        "network": network,
        "volumes": [asdict(each) for each in spec.volumes],
    }
    files.write_atomically(directory / _SPEC, json.dumps(values).encode())


def read_spec(directory: Path) -> SandboxSpec:
    """The spec that :func:`write_spec` recorded. Raises :class:`NotFoundError` when there is none."""
    try:
        values = json.loads((directory / _SPEC).read_bytes())
        network = from_json(values.get("network", OPEN.egress.value))  # older ones have none
        volumes = tuple(Attachment(**each) for each in values.get("volumes", ()))
        return SandboxSpec(values["sandbox"], values["hostname"], values["env"], network=network, volumes=volumes)
    except FileNotFoundError as error:
        raise NotFoundError(f"snapshot not found: {directory.name}", field="snapshot") from error


def link(source: Path, target: Path) -> None:
    """A hard link to a file that is no longer written to."""
    try:
        os.link(source, target)
    except OSError as error:
        raise files.map_error(error, target) from error
