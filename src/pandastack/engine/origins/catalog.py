"""The templates installed on this host: a small record each, pointing at a snapshot and an image in the pool."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from pandastack.disks.pool import Pool
from pandastack.engine.origins.origin import Origin
from pandastack.errors import NotFoundError, PandastackError
from pandastack.host import files
from pandastack.model.accelerator import Accelerator
from pandastack.model.template import Template
from pandastack.snapshots import manifest

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Templates:
    """The templates in a data directory. Another process may install one at any time, so each call reads the disk."""

    def __init__(self, records: Path, pool: Pool) -> None:
        self._records = records
        self._pool = pool
        self._seen: tuple[int, dict[str, Origin]] = (0, {})

    def list(self) -> list[Origin]:
        """All templates, by name."""
        return [each for _, each in sorted(self._load().items())]

    def get(self, name: str) -> Origin:
        """The template with the name or alias ``name``. Raises :class:`NotFoundError`."""
        found = self._load()
        if name in found:
            return found[name]
        for each in found.values():
            if name in each.template.aliases:
                return each
        known = ", ".join(sorted(found)) or "none yet: run `pandastack template build`"
        raise NotFoundError(f"unknown template {name!r}", field="template", hint=f"templates here: {known}")

    def weakest_accelerator(self) -> Accelerator:
        """The least isolating of the templates' accelerators."""
        used = {Accelerator(each.snapshot.manifest.accelerator) for each in self.list()}
        return Accelerator.KVM if used == {Accelerator.KVM} else Accelerator.TCG

    def _load(self) -> dict[str, Origin]:
        self._records.mkdir(parents=True, exist_ok=True)
        changed = self._records.stat().st_mtime_ns
        if changed != self._seen[0]:
            loaded = (self._open(path) for path in sorted(self._records.glob("*.json")))
            self._seen = (changed, {each.name: each for each in loaded if each})
        return self._seen[1]

    def _open(self, record: Path) -> Origin | None:
        template = Template.from_json(record.read_bytes())
        directory = self._pool.snapshots / template.version
        image = self._pool.images / f"{template.image}.erofs"
        if not (directory / "manifest.json").exists() or not image.exists():
            return None
        return Origin(template, manifest.load(directory), image)

    def install(self, template: Template, baked: Path, image: Path) -> Origin:
        """Clone a baked snapshot and its image into the pool and register the template under its name."""
        _adopt(image, self._pool.images / f"{template.image}.erofs")
        directory = self._pool.snapshots / template.version
        if not _is_whole(directory):
            _bring_in(baked, directory)
        self._records.mkdir(parents=True, exist_ok=True)
        record = json.dumps(template.to_json(), indent=2).encode() + b"\n"
        files.write_atomically(self._records / f"{template.name}.json", record, mode=0o644)
        return self.get(template.name)


def _is_whole(directory: Path) -> bool:
    """Whether the snapshot is in the pool, unmodified."""
    try:
        manifest.load(directory).check_memory()
    except (FileNotFoundError, PandastackError):
        return False
    return True


def _bring_in(baked: Path, directory: Path) -> None:
    """Clone a baked snapshot into the pool, and record its memory file's size and time before any machine shares it."""
    temporary, former = (directory.with_name(f".{directory.name}.{each}") for each in ("new", "former"))
    for left in (temporary, former):
        shutil.rmtree(left, ignore_errors=True)
    temporary.mkdir()
    for part in sorted(baked.iterdir()):
        files.clone(part, temporary / part.name)
    made = manifest.load(temporary)
    described = replace(made.manifest, memory_stamp=manifest.stamp(made.memory))
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
