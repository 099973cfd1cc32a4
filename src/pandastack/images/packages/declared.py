"""The ``[packages]`` of a ``template.toml``: what a template needs, checked before anything else happens."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from pandastack.errors import BadRequestError

ENTRIES_MAX = 500
LENGTH_MAX = 200

_DEBIAN = re.compile(r"(?P<name>[a-z0-9][a-z0-9+.-]+)(?:=(?P<version>[0-9][A-Za-z0-9.+:~-]*))?")
"""Debian Policy, 5.6.1 and 5.6.12."""

_NPM = re.compile(
    r"(?P<name>(?:@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*)(?:@(?P<range>[A-Za-z0-9.^~<>=*| -]+))?"
)
"""A name of the npm registry and a range or tag: no URL, no folder, no Git repository."""


@dataclass(frozen=True)
class Packages:
    """Declared packages, each as its author wrote it."""

    debian: tuple[str, ...] = ()
    python: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.debian or self.python or self.npm)


def parse_packages(name: str, value: Any) -> Packages:
    """Check the table ``name``. Raises :class:`BadRequestError` that names the entry."""
    if not isinstance(value, Mapping):
        raise _wrong(name, "must be a table")
    if unknown := sorted(set(value) - set(_CHECKS)):
        raise _wrong(f"{name}.{unknown[0]}", "unknown field", f"known: {', '.join(_CHECKS)}")
    return Packages(**{key: _entries(f"{name}.{key}", entries, _CHECKS[key]) for key, entries in value.items()})


def debian_name(entry: str) -> tuple[str, str | None]:
    """Name and version of a Debian entry. Raises :class:`ValueError`."""
    if match := _DEBIAN.fullmatch(entry):
        return match["name"], match["version"]
    raise ValueError("must be a Debian package's name, or name=version")


def python_name(entry: str) -> tuple[str, str | None]:
    """The normalised name of a Python requirement and the version constraint. Raises :class:`ValueError`."""
    try:
        requirement = Requirement(entry)
    except InvalidRequirement as error:
        raise ValueError(f"must be a requirement as in PEP 508: {str(error).splitlines()[0]}") from error
    if requirement.url:
        raise ValueError("must not be a URL: name a package of the index")
    return canonicalize_name(requirement.name), str(requirement.specifier) or None


def npm_name(entry: str) -> tuple[str, str | None]:
    """Name and range of an npm entry. Raises :class:`ValueError`."""
    if match := _NPM.fullmatch(entry):
        return match["name"], match["range"]
    raise ValueError("must be an npm package's name, or name@range")


_CHECKS: Mapping[str, Callable[[str], tuple[str, str | None]]] = {
    "debian": debian_name,
    "python": python_name,
    "npm": npm_name,
}


def _entries(field: str, value: Any, check: Callable[[str], tuple[str, str | None]]) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > ENTRIES_MAX:
        raise _wrong(field, f"must be a list of at most {ENTRIES_MAX} packages")
    seen: set[str] = set()
    for index, entry in enumerate(value):
        at = f"{field}[{index}]"
        if not isinstance(entry, str) or not 0 < len(entry) <= LENGTH_MAX:
            raise _wrong(at, f"must be text of at most {LENGTH_MAX} characters")
        try:
            name = check(entry)[0]
        except ValueError as error:
            raise _wrong(at, f"{entry!r} {error}") from error
        if name in seen:
            raise _wrong(at, f"{name} is declared twice")
        seen.add(name)
    return tuple(value)


def _wrong(field: str, what: str, hint: str | None = None) -> BadRequestError:
    return BadRequestError(f"template.toml: {field}: {what}", hint=hint, field=field)
