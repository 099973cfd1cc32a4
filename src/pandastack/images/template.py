"""A template's folder: a ``Dockerfile`` and a small ``template.toml``, read strictly: an unknown or ill-typed
field is an error."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pandastack.errors import BadRequestError
from pandastack.images.baked_services import parse_services
from pandastack.images.baked_volumes import parse_volumes
from pandastack.images.context import Context
from pandastack.images.dockerfile import Recipe, parse
from pandastack.images.given import Given
from pandastack.images.packages.declared import Packages, parse_packages
from pandastack.images.packages.lock import LOCK, Lock, find_lock
from pandastack.images.plan import refuse_unknown
from pandastack.model.baked_services import BakedService
from pandastack.model.baked_volumes import BakedVolume
from pandastack.model.network import NetworkPolicy
from pandastack.model.network_rules import parse_policy
from pandastack.model.previews import Visibility, WakePolicy
from pandastack.model.size import MEMORY_BLOCK_MB

DOCKERFILE = "Dockerfile"
SETTINGS = "template.toml"

DISKS_MOST = 14
"""How many volumes the sandboxes of a template may have: the machine has room for no more devices."""

REHEARSE_MOST = 16
"""How many commands a rehearsal may have."""

REHEARSE_LENGTH = 4096
"""Characters that each of them may have."""

_LEAST_MEMORY_MB = 512
LOW_MEMORY_MB = 3072
"""Where the memory of a machine is interrupted: what exceeds it lies above 4 GiB. The kernel reserves pages at the end
of each part, so the block before the gap can be taken out of use as little as the last one (docs/design/0033)."""
_NAME = r"[A-Za-z0-9._-]{1,64}"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"


@dataclass(frozen=True)
class TemplateSettings:
    """What ``template.toml`` says, with sizes in MiB.

    A sandbox that asks for nothing else gets ``cpu`` and ``memory_mb``; ``max_cpu``, ``min_memory_mb`` and
    ``max_memory_mb`` limit what it may ask for. ``warm_up`` commands run in the booted guest before it is captured,
    within the smallest memory, so that what they touch is in every sandbox's memory from the start; ``services`` are
    started before them, and again in each sandbox that boots because its memory is lost; ``rehearse`` commands run in
    each machine that is made ahead of a sandbox. ``disks`` is how many volumes they may have, ``volumes`` those that
    they bring along. ``nested``: guests may run virtual machines. ``network`` is the policy of sandboxes that ask for
    none; None: the server's default.
    ``previews`` and ``wake`` are the same for previews.
    """

    description: str = ""
    category: str = ""
    cpu: int = 1
    memory_mb: int = 512
    max_cpu: int = 1
    min_memory_mb: int = 512
    max_memory_mb: int = 512
    disk_mb: int = 10240
    disk_mb_per_second: int = 0
    disk_operations_per_second: int = 0
    disks: int = 4
    tools: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    services: tuple[BakedService, ...] = ()
    warm_up: tuple[str, ...] = ()
    rehearse: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    packages: Packages = field(default_factory=Packages)
    nested: bool = False
    network: NetworkPolicy | None = None
    previews: Visibility | None = None
    wake: WakePolicy | None = None
    volumes: tuple[BakedVolume, ...] = ()


@dataclass(frozen=True)
class TemplateRecipe:
    """A template as its author wrote it. ``trusted`` recipes are the operator's: their declared packages may be
    installed on the host. What comes through the API is not. ``target`` is the stage that becomes the template, by
    its name or index; empty: the last one. ``owner`` is whose template it becomes; empty: everybody's. What is made
    for an owner has keys of its own."""

    name: str
    folder: Path
    dockerfile: Recipe
    settings: TemplateSettings
    lock: Lock | None = None
    trusted: bool = False
    target: str = ""
    owner: str = ""
    given: Given = field(default_factory=Given)

    @property
    def context(self) -> Context:
        """The build's context: the folder itself."""
        return Context(self.folder)


def load_template(
    folder: Path, *, trusted: bool = False, with_lock: bool = True, target: str = "", given: Given | None = None
) -> TemplateRecipe:
    """Read a template's folder. ``template.toml`` may be missing; its ``name`` defaults to the folder's.

    Raises :class:`BadRequestError` that names the file and field.
    """
    dockerfile = parse(_read(folder / DOCKERFILE))
    dockerfile.stage(target)
    given = given or Given()
    given.check()
    refuse_unknown(dockerfile, given.arguments)
    settings = folder / SETTINGS
    name, parsed = parse_settings(_read(settings) if settings.exists() else "", default_name=folder.resolve().name)
    lock = find_lock(folder) if with_lock else None
    if lock and lock.declared != parsed.packages:
        hint = "`pandastack template lock FOLDER` writes a new one"
        raise BadRequestError(f"{LOCK} is for other packages than {SETTINGS} declares", hint=hint, field=LOCK)
    return TemplateRecipe(name, folder, dockerfile, parsed, lock, trusted, target, given=given)


def parse_settings(text: str, *, default_name: str) -> tuple[str, TemplateSettings]:
    """The template's name and settings from the text of ``template.toml``."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRequestError(f"{SETTINGS}: {error}", field=SETTINGS) from error
    if unknown := sorted(set(table) - set(_FIELDS) - {"name"}):
        known = ", ".join(sorted([*_FIELDS, "name"]))
        raise BadRequestError(f"{SETTINGS}: unknown field {unknown[0]}", hint=f"known: {known}", field=unknown[0])
    name = _text(_NAME)("name", table.pop("name", default_name))
    return name, TemplateSettings(**_with_limits({key: _FIELDS[key](key, value) for key, value in table.items()}))


def _with_limits(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with the sizes that limit others.

    A part of the memory can be out of use only in whole blocks, and the kernel's own must be a quarter of it at least.
    A machine with more than :data:`LOW_MEMORY_MB` has the rest of it above 4 GiB. The tables of its firmware are where
    the first part ends, and can never be out of use.
    """
    cpu, memory_mb = (values.get(each, getattr(TemplateSettings, each)) for each in ("cpu", "memory_mb"))
    most_cpu = values.setdefault("max_cpu", cpu)
    most = values.setdefault("max_memory_mb", memory_mb)
    commands = values.get("services") or values.get("warm_up")
    least = values.setdefault("min_memory_mb", memory_mb if commands else _least_memory(memory_mb, most))
    if len(values.get("volumes", ())) > values.get("disks", TemplateSettings.disks):
        raise _wrong("disks", "at least the number of volumes")
    if most_cpu < cpu:
        raise _wrong("max_cpu", f"at least cpu, which is {cpu}")
    if most < memory_mb:
        raise _wrong("max_memory_mb", f"at least memory_mb, which is {memory_mb}")
    if not most <= 4 * least <= 4 * memory_mb:
        raise _wrong("min_memory_mb", "at most memory_mb, and at least a quarter of max_memory_mb")
    if least <= LOW_MEMORY_MB < most:
        expected = f"more than {LOW_MEMORY_MB} where max_memory_mb is"
        raise _wrong("min_memory_mb", f"{expected}: a machine with so much cannot have less in use")
    for name, value in {"min_memory_mb": least, "memory_mb": memory_mb, "max_memory_mb": most}.items():
        if least != most and value % MEMORY_BLOCK_MB:
            raise _wrong(name, f"a multiple of {MEMORY_BLOCK_MB} where sandboxes may have different memory")
    return values


def _least_memory(memory_mb: int, most: int) -> int:
    """The smallest memory of a template without commands, which would have to fit into it."""
    least = max(_LEAST_MEMORY_MB, -(-most // (4 * MEMORY_BLOCK_MB)) * MEMORY_BLOCK_MB)
    if most > LOW_MEMORY_MB:
        least = max(least, LOW_MEMORY_MB + MEMORY_BLOCK_MB)
    return memory_mb if memory_mb % MEMORY_BLOCK_MB else min(least, memory_mb)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise BadRequestError(f"the template has no {path.name}", field=path.name) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"{path.name} cannot be read: {error}", field=path.name) from error


_Check = Callable[[str, Any], Any]


def _wrong(name: str, expected: str) -> BadRequestError:
    return BadRequestError(f"{SETTINGS}: {name} must be {expected}", field=name)


def _number(low: int, high: int) -> _Check:
    def check(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _wrong(name, f"a whole number from {low} to {high}")
        return value

    return check


def _flag(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise _wrong(name, "true or false")
    return value


def _choice(kind: type[StrEnum]) -> _Check:
    def check(name: str, value: Any) -> StrEnum:
        if not isinstance(value, str) or value not in list(kind):
            raise _wrong(name, " or ".join(kind))
        return kind(value)

    return check


def _text(form: str = r"(?s).*", expected: str = "text") -> _Check:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise _wrong(name, expected)
        if not re.fullmatch(form, value):
            raise _wrong(name, f"text that matches {form}")
        return value

    return check


def _list(item: _Check, most: int | None = None) -> _Check:
    def check(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong(name, "a list")
        if most is not None and len(value) > most:
            raise _wrong(name, f"a list of at most {most}")
        return tuple(item(f"{name}[{index}]", member) for index, member in enumerate(value))

    return check


def _table(name: str, value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise _wrong(name, "a table")
    for key in value:
        if not re.fullmatch(_VARIABLE, key):
            raise _wrong(f"{name}.{key}", f"named like {_VARIABLE}")
    return {key: _text()(f"{name}.{key}", text) for key, text in value.items()}


def _network(name: str, value: Any) -> NetworkPolicy:
    with _in_settings():
        policy = parse_policy(value, name)
    if policy.services:  # a template may be any workspace's; secrets are found by their names in each
        raise _wrong(name, "without services, which belong to a workspace")
    return policy


def _services(name: str, value: Any) -> tuple[BakedService, ...]:
    with _in_settings():
        return parse_services(name, value)


def _volumes(name: str, value: Any) -> tuple[BakedVolume, ...]:
    with _in_settings():
        return parse_volumes(name, value)


@contextmanager
def _in_settings() -> Iterator[None]:
    """Errors of the block say which file they are about."""
    try:
        yield
    except BadRequestError as error:
        raise BadRequestError(f"{SETTINGS}: {error.message}", field=error.field, hint=error.hint) from error


_FIELDS: Mapping[str, _Check] = {
    "aliases": _list(_text(_NAME)),
    "category": _text(),
    "cpu": _number(1, 64),
    "description": _text(),
    "disk_mb": _number(256, 1024 * 1024),
    "disk_mb_per_second": _number(0, 1_000_000),
    "disk_operations_per_second": _number(0, 1_000_000),
    "disks": _number(0, DISKS_MOST),
    "env": _table,
    "max_cpu": _number(1, 64),
    "max_memory_mb": _number(128, 65536),
    "memory_mb": _number(128, 65536),
    "min_memory_mb": _number(128, 65536),
    "nested": _flag,
    "network": _network,
    "packages": parse_packages,
    "previews": _choice(Visibility),
    "rehearse": _list(_text(rf"(?s)(?=.*\S).{{1,{REHEARSE_LENGTH}}}"), REHEARSE_MOST),
    "services": _services,
    "tools": _list(_text()),
    "volumes": _volumes,
    "wake": _choice(WakePolicy),
    "warm_up": _list(_text(r"(?s).*\S.*")),
}
