"""Moving baked templates between hosts: an archive of one, and a template from an archive.

An archive from elsewhere is checked before it is unpacked: whether its memory may be restored here, and whether there
is room. What it says of itself is not believed. It gets a key of its own, made from its content, so that it can take
the place of nothing that this host has baked, or will bake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pandastack.disks import overlay
from pandastack.disks.pool import RESERVE, Pool
from pandastack.engine.crash_points import crash_at
from pandastack.engine.origins.catalog import NAME, Templates
from pandastack.engine.origins.origin import Origin
from pandastack.errors import BadRequestError, ConflictError, PandastackError, StorageFullError
from pandastack.guest.keys import SUPPORTED
from pandastack.host import facts
from pandastack.images.cache import content_key, file_sha256
from pandastack.images.template import DISKS_MOST
from pandastack.model.accelerator import Accelerator
from pandastack.model.network_rules import from_json
from pandastack.model.previews import Visibility, WakePolicy
from pandastack.model.template import Template
from pandastack.snapshots.archive.index import Index, damaged
from pandastack.snapshots.archive.read import Archive, opened
from pandastack.snapshots.archive.write import write
from pandastack.snapshots.manifest import ROOT, Here, Manifest, Snapshot
from pandastack.vmm.driver import Driver

_MIB = 1024 * 1024
_SMALL = 1024 * _MIB
"""Bytes of the largest file besides memory and disk."""

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class ImportOptions:
    """``name`` is the template's name here, empty: that which it had. ``replace``: it may take the place of another."""

    name: str = ""
    replace: bool = False


def export_template(templates: Templates, name: str, target: Path, advance: Advance) -> Index:
    """Write the archive of a template. Blocking. Raises :class:`NotFoundError`, and :class:`ConflictError` when its
    memory image was changed."""
    origin = templates.get(name)
    origin.snapshot.check_memory()
    if origin.snapshot.manifest.mounts:
        hint = "build it on the other host: `pandastack template build FOLDER`"
        raise ConflictError(f"template {name} has volumes, which an archive has no place for", field="name", hint=hint)
    template = replace(origin.template, baked_as=origin.template.baked_as or origin.template.version)
    return write(target, template, origin.snapshot, advance)


def import_template(
    templates: Templates, pool: Pool, driver: Driver, source: Path, work: Path, options: ImportOptions, advance: Advance
) -> Origin:
    """Install the template in the archive ``source``, which is unpacked into the directory ``work`` of the pool first.
    Blocking.

    Raises :class:`BadRequestError` for a damaged archive, :class:`ConflictError` when the template does not fit this
    host, or its name is taken.
    """
    with opened(source) as archive:
        template = _checked(archive, options)
        if not options.replace and any(
            template.name in (each.name, *each.template.aliases) for each in templates.list()
        ):
            hint = "--replace puts it in the place of that one, --as NAME gives it another name"
            raise ConflictError(f"template {template.name} exists already", field="name", hint=hint)
        _check_fit(archive.index, driver, work)
        if archive.packed > pool.free_bytes() - RESERVE:
            raise StorageFullError(f"the template takes {archive.packed // _MIB} MiB, and the pool has less")
        unpacked = archive.unpack(work, advance)
    crash_at("unpacked")
    _check_files(unpacked)
    manifest = replace(unpacked.manifest, key=template.version)
    (work / "manifest.json").write_bytes(manifest.to_json())
    return templates.install(template, work)


def _checked(archive: Archive, options: ImportOptions) -> Template:
    """The template of the archive as it is called here. Everything that reaches the VMM or a file name is in range."""
    index = archive.index
    made, name = index.template, options.name or index.template.name
    if not NAME.fullmatch(name) or not name.strip("."):
        raise BadRequestError("the template's name must be letters, digits, '.', '_' and '-'", field="name")
    if problem := _find_nonsense(made, index.manifest):
        raise damaged(problem)
    sizes = {each.name: each.size for each in index.files}
    memory, disk = index.manifest.max_memory_mb * _MIB, index.manifest.disk_mb * _MIB
    small = all(sizes[each] <= _SMALL for each in ("devices", "modules.img", "kernel", "initramfs"))
    if sizes["memory"] != memory or sizes["base.img"] > disk or not small:
        raise damaged("its files do not have the sizes that its manifest says")
    key = content_key("imported", archive.digest)
    return replace(made, name=name, version=key, recipe="", aliases=made.aliases if not options.name else ())


def _find_nonsense(template: Template, made: Manifest) -> str:
    """What of the descriptions no bake of ours could have written; empty if nothing."""
    ranges = {
        "cpus": (made.cpus, 1, made.max_cpus),
        "max_cpus": (made.max_cpus, 1, 64),
        "memory_mb": (made.memory_mb, made.min_memory_mb, made.max_memory_mb),
        "max_memory_mb": (made.max_memory_mb, 128, 65536),
        "min_memory_mb": (made.min_memory_mb, 128, 65536),
        "disk_mb": (made.disk_mb, 1, 1024 * 1024),
        "volumes": (made.volumes, 0, DISKS_MOST),
        "mtu": (made.mtu, 68, 65535),
        "boot_id_at": (made.boot_id_at, 0, made.max_memory_mb * _MIB - 16),
        "disk_mb_per_second": (template.disk_mb_per_second, 0, 1_000_000),
        "disk_operations_per_second": (template.disk_operations_per_second, 0, 1_000_000),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            return f"its {name} is {value}"
    volumes = made.mounts or made.read_only
    if made.disks != (ROOT,) or volumes or made.parent or made.memory_lost or made.base_disk:
        return "it is not the snapshot of a template"
    if made.accelerator not in list(Accelerator):
        return f"its accelerator is {made.accelerator[:40]!r}"
    try:
        from_json(template.network) if template.network is not None else None
        Visibility(template.previews) if template.previews is not None else None
        WakePolicy(template.wake) if template.wake is not None else None
    except (PandastackError, ValueError) as error:
        return str(error)
    return ""


def _check_fit(index: Index, driver: Driver, work: Path) -> None:
    """Raise :class:`ConflictError` naming the difference when the memory may not be restored on this host."""
    accelerator = Accelerator(index.manifest.accelerator)
    usable = accelerator is not Accelerator.KVM or facts.has_kvm()
    here = Here(driver.identity, driver.cpus[accelerator] if usable else None, SUPPORTED)
    problem = Snapshot(work, index.manifest).find_obstacle(here)
    if problem:
        raise ConflictError(f"template {index.template.name}: {problem}", field="file", hint=_difference(index))


def _difference(index: Index) -> str:
    """What the CPU that the template was made on has and this host's has not, and the reverse."""
    model, features = facts.cpu_features()
    theirs = frozenset(index.cpu_features)
    parts = [f"it was made on {index.cpu_model[:80]}, this host has {model}"] if model != index.cpu_model else []
    for what, names in (("lacks", theirs - features), ("has more", features - theirs)):
        if names:
            parts.append(f"this host's CPU {what}: {', '.join(each[:40] for each in sorted(names)[:20])}")
    return "; ".join([*parts, "build the template on this host: `pandastack template build`"])


def _check_files(unpacked: Snapshot) -> None:
    """Check those files that are shared by their names, or that the engine reads itself."""
    if file_sha256(unpacked.modules) != unpacked.manifest.modules:
        raise damaged("modules.img is another than its manifest says")
    try:
        overlay.check(unpacked.root)
        size = overlay.disk_size(unpacked.root)
    except PandastackError as error:
        raise damaged("root.qcow2 is not an overlay of ours") from error
    if size != unpacked.manifest.disk_mb * _MIB:
        raise damaged("root.qcow2 has another size than its manifest says")
