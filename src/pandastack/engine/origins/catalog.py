"""The templates installed on this host: a small record each, pointing at a snapshot in the pool.

A template may have an owner, a word of the control plane's that means nothing here. Names are unique for each owner. An
owner finds its own templates before those without one, which are everybody's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

from pandastack.disks.pool import Pool
from pandastack.engine.crash_points import crash_at
from pandastack.engine.origins.origin import Origin, link
from pandastack.errors import NotFoundError, PandastackError
from pandastack.host import files
from pandastack.host.lock import FileLock
from pandastack.images.cache import file_sha256
from pandastack.model.accelerator import Accelerator
from pandastack.model.template import Template
from pandastack.snapshots import manifest
from pandastack.snapshots.manifest import Snapshot

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
GRACE_SECONDS = 3600.0
"""How long a version stays in the pool without a template that names it."""


class Templates:
    """The templates in a data directory. Another process may install one at any time, so each call reads the disk."""

    def __init__(self, records: Path, pool: Pool) -> None:
        self._records = records
        self._pool = pool
        self._seen: tuple[int, dict[tuple[str, str], Origin]] = (0, {})

    def list(self) -> list[Origin]:
        """All templates, by owner and name: first those of everybody."""
        return [each for _, each in sorted(self._load().items())]

    def find(self, name: str, owner: str = "") -> Origin | None:
        """The template of ``owner`` with the name ``name``, if it is installed."""
        return self._load().get((owner, name))

    def answering(self, name: str, owner: str = "") -> Origin | None:
        """The template of ``owner`` with the name or alias ``name``, if there is one."""
        if found := self.find(name, owner):
            return found
        owned = (each for (whose, _), each in self._load().items() if whose == owner)
        return next((each for each in owned if name in each.template.aliases), None)

    def get(self, name: str, owner: str = "") -> Origin:
        """The template with the name or alias ``name``: one of ``owner``'s, else one of everybody's. Raises
        :class:`NotFoundError`, which names none that the owner cannot use."""
        found = self.answering(name, owner) or self.answering(name)
        if found is not None:
            return found
        usable = sorted({name for whose, name in self._load() if whose in ("", owner)})
        known = ", ".join(usable) or "none yet: run `pandastack template build`"
        raise NotFoundError(f"unknown template {name!r}", field="template", hint=f"templates here: {known}")

    def weakest_accelerator(self) -> Accelerator:
        """The least isolating of the templates' accelerators."""
        used = {Accelerator(each.snapshot.manifest.accelerator) for each in self.list()}
        return Accelerator.KVM if used == {Accelerator.KVM} else Accelerator.TCG

    def _load(self) -> dict[tuple[str, str], Origin]:
        self._records.mkdir(parents=True, exist_ok=True)
        changed = self._records.stat().st_mtime_ns
        if changed != self._seen[0]:
            loaded = (self._open(path) for path in sorted(self._records.glob("*.json")))
            self._seen = (changed, {(each.template.owner, each.name): each for each in loaded if each})
        return self._seen[1]

    def _open(self, record: Path) -> Origin | None:
        template = Template.from_json(record.read_bytes())
        directory = self._pool.snapshots / template.version
        if not (directory / "manifest.json").exists():
            return None
        return Origin(template, manifest.load(directory))

    def install(self, template: Template, baked: Path) -> Origin:
        """Clone a baked snapshot into the pool and register the template under its name. Blocking.

        Several builds, also of other processes, may install the same version at once: one brings it in.
        """
        directory = self._pool.snapshots / template.version
        with FileLock(self._records.with_name("templates.lock")) as lock:
            lock.exclusive()
            if not _is_whole(directory):
                _bring_in(baked, directory, self._pool)
        crash_at("brought_in")
        self._records.mkdir(parents=True, exist_ok=True)
        self._retire(template)
        record = json.dumps(template.to_json(), indent=2).encode() + b"\n"
        files.write_atomically(self._record(template.name, template.owner), record, mode=0o644)
        installed = self.find(template.name, template.owner)
        assert installed is not None
        return installed

    def remove(self, name: str, owner: str = "") -> Origin:
        """Remove the template of ``owner`` with the name ``name``, which is free from then on; its version stays until
        :meth:`remove_unused`. Raises :class:`NotFoundError`."""
        found = self.find(name, owner)
        if found is None:
            raise NotFoundError(f"unknown template {name!r}", field="template")
        self._record(name, owner).unlink(missing_ok=True)
        files.make_durable(self._records, contents=False)
        return found

    def _record(self, name: str, owner: str) -> Path:
        return self._records / (f"{owner}~{name}.json" if owner else f"{name}.json")  # no name has a tilde

    def _retire(self, template: Template) -> None:
        """Begin the grace of the version that ``template`` replaces: a create may be about to link its files."""
        former = self._load().get((template.owner, template.name))
        if former is not None and former.template.version != template.version:
            os.utime(former.snapshot.directory)

    def unused(self, now: float) -> tuple[Path, ...]:
        """The versions in the pool that no template has any more. ``now`` is in epoch seconds.

        What was made from one keeps it: machines and captures have links to its files. A build of another process
        brings its version in before it names it, so that young ones stay, and so do those that were just replaced.
        """
        named = {Template.from_json(each.read_bytes()).version for each in self._records.glob("*.json")}
        found = (each for each in sorted(self._pool.snapshots.iterdir()) if each.name not in named)
        return tuple(each for each in found if _is_old(each, now))

    def remove_unused(self, now: float) -> tuple[str, ...]:
        """Remove the :meth:`unused` versions, and what only they had of the files that versions share. Returns the
        versions. A server may run."""
        versions = self.unused(now)
        for each in versions:
            shutil.rmtree(each, ignore_errors=True)
        for each in self._pool.modules.iterdir():
            if each.stat().st_nlink == 1 and _is_old(each, now):
                each.unlink()
        return tuple(each.name for each in versions)


def _is_old(path: Path, now: float) -> bool:
    return path.stat().st_ctime < now - GRACE_SECONDS


def _is_whole(directory: Path) -> bool:
    """Whether the snapshot is in the pool, unmodified."""
    try:
        manifest.load(directory).check_memory()
    except (FileNotFoundError, PandastackError):
        return False
    return True


def _bring_in(baked: Path, directory: Path, pool: Pool) -> None:
    """Clone a baked snapshot into the pool, and record its memory file's size and time before any machine shares it.

    All snapshots with the same kernel share one file of it and one disk of its modules.
    """
    temporary, former = (directory.with_name(f".{directory.name}.{each}") for each in ("new", "former"))
    for left in (temporary, former):
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir()
    source = manifest.load(baked)
    made = Snapshot(temporary, source.manifest)
    shared = {
        source.modules: pool.modules / f"{source.manifest.modules}.img",
        source.kernel: pool.modules / f"{file_sha256(source.kernel)}.kernel",
        source.initramfs: pool.modules / f"{file_sha256(source.initramfs)}.initramfs",
    }
    for part in sorted(baked.iterdir()):
        if part in shared:
            _adopt(part, shared[part])
            link(shared[part], temporary / part.name)
        else:
            files.clone(part, temporary / part.name)
    stamps = tuple(manifest.stamp(disk.path) for disk in made.disks)
    described = replace(made.manifest, memory_stamp=manifest.stamp(made.memory), disk_stamps=stamps)
    files.write_atomically(temporary / "manifest.json", described.to_json())
    if directory.exists():
        directory.rename(former)
    temporary.rename(directory)
    shutil.rmtree(former, ignore_errors=True)


def _adopt(source: Path, target: Path) -> None:
    if target.exists():
        return
    temporary = target.with_name(f".{target.name}.new")
    files.clone(source, temporary)
    temporary.rename(target)
