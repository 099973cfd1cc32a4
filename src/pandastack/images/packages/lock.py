"""``packages.lock``: the exact files that a template's declared packages stand for, committed beside the recipe.

It is JSON with one package a line, so that a change of versions reads well in a diff.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pandastack.errors import BadRequestError
from pandastack.images.packages.declared import Packages

LOCK = "packages.lock"
_VERSION = 1
_BYTES_MAX = 8 * 1024 * 1024

_FORMS = {
    "name": r"[A-Za-z0-9@/][A-Za-z0-9@/._+~-]*",
    "version": r"[A-Za-z0-9][A-Za-z0-9.+:~!_-]*",
    "file": r"[A-Za-z0-9._+~%!-]+\.(deb|whl|tgz)",
    "url": r"(https?://[!-~]+)?",
    "path": r"pool/[A-Za-z0-9._+~%:/-]+\.deb",
    "sha256": r"[0-9a-f]{64}",
    "sha512": r"[0-9a-f]{128}",
    "place": r"node_modules/[A-Za-z0-9@._~/-]+",
}


@dataclass(frozen=True)
class Deb:
    """A Debian package file. ``path`` is relative to the mirror; ``size`` is in bytes."""

    name: str
    version: str
    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Wheel:
    """A wheel. ``url`` is where the index had it, empty when that was not a web address; ``size`` is in bytes."""

    name: str
    version: str
    file: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class NpmPackage:
    """A tarball of the npm registry and its ``place`` below ``/usr/local/lib``; ``bin`` maps commands to its files."""

    name: str
    version: str
    place: str
    url: str
    sha512: str
    bin: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Lock:
    """Every file of ``declared`` and of what it needs, save what the template's base has already."""

    declared: Packages
    architecture: str
    debian: tuple[Deb, ...] = ()
    python: tuple[Wheel, ...] = ()
    npm: tuple[NpmPackage, ...] = ()

    def render(self) -> str:
        """The text of the lock file."""
        lines = [
            "{",
            f' "version": {_VERSION},',
            f' "architecture": {json.dumps(self.architecture)},',
            f' "declared": {json.dumps(asdict(self.declared))},',
        ]
        for kind in _KINDS:
            entries = [f"  {json.dumps(asdict(each))}" for each in getattr(self, kind)]
            lines += [f' "{kind}": [', ",\n".join(entries), " ]," if kind != "npm" else " ]"]
        return "\n".join([*(line for line in lines if line), "}"]) + "\n"


_KINDS: Mapping[str, type[Deb] | type[Wheel] | type[NpmPackage]] = {"debian": Deb, "python": Wheel, "npm": NpmPackage}


def find_lock(folder: Path) -> Lock | None:
    """The folder's lock, if it has one. Raises :class:`BadRequestError` when it is malformed."""
    path = folder / LOCK
    if not path.is_file() or path.is_symlink():
        return None
    if path.stat().st_size > _BYTES_MAX:
        raise _wrong(f"longer than {_BYTES_MAX // 1024**2} MiB")
    return parse_lock(path.read_bytes())


def parse_lock(text: bytes) -> Lock:
    """Read a lock strictly. Raises :class:`BadRequestError`."""
    try:
        table = json.loads(text)
        if table.pop("version") != _VERSION:
            raise _wrong("written by another version of pandastack")
        declared = Packages(**{kind: tuple(entries) for kind, entries in table.pop("declared").items()})
        kinds = {kind: tuple(_entry(kind, each) for each in table.pop(kind)) for kind in _KINDS}
        return Lock(declared, str(table.pop("architecture")), **kinds)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _wrong(f"malformed: {error}") from error


def _entry(kind: str, table: dict[str, Any]) -> Any:
    for name, value in table.items():
        if name == "size":
            if type(value) is not int or not 0 < value < 1 << 40:
                raise ValueError(f"{kind}: size {value!r}")
        elif name == "bin":
            if not all(_bin(command, target) for command, target in value.items()):
                raise ValueError(f"{kind}: bin {value!r}")
        elif not re.fullmatch(_FORMS[name], value) or ".." in value.split("/"):
            raise ValueError(f"{kind}: {name} {value[:80]!r}")
    return _KINDS[kind](**table)


def _bin(command: str, target: str) -> bool:
    plain = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
    return bool(re.fullmatch(plain, command) and re.fullmatch(rf"{plain}(/{plain})*", target))


def _wrong(what: str) -> BadRequestError:
    return BadRequestError(f"{LOCK}: {what}", hint="`pandastack template lock FOLDER` writes a new one", field=LOCK)
