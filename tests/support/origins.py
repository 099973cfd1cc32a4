"""Captures on the disk, as far as no machine is needed to make them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pandastack.disks.overlay import make_overlay
from pandastack.engine.origins.origin import Origin
from pandastack.snapshots import manifest
from pandastack.snapshots.manifest import Manifest, Snapshot
from tests.support.manifests import MANIFEST, TEMPLATE


def captured(directory: Path, made: Manifest = MANIFEST, *, bootable: bool = True) -> Origin:
    """A capture on the disk; the fields of ``made`` but for the stamps of its files."""
    directory.mkdir()
    snapshot = Snapshot(directory, made)
    boot = ("kernel", "initramfs") if bootable else ()
    for name in ("memory", "devices", "base.img", "modules.img", *boot):
        (directory / name).write_bytes(name.encode())
    make_overlay(snapshot.root, 2**20)
    stamps = {"memory_stamp": manifest.stamp(snapshot.memory), "disk_stamps": (manifest.stamp(snapshot.root),)}
    return Origin(TEMPLATE, Snapshot(directory, replace(made, parent="p", **stamps)))
