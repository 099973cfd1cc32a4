"""A template's folder: a ``Dockerfile`` and a small ``template.toml``, read strictly: an unknown or ill-typed
field is an error."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pandastack.errors import BadRequestError
from pandastack.images.context import Context
from pandastack.images.dockerfile import Recipe, parse

DOCKERFILE = "Dockerfile"
SETTINGS = "template.toml"

REHEARSE_MOST = 16
"""How many commands a rehearsal may have."""

REHEARSE_LENGTH = 4096
"""Characters that each of them may have."""

_NAME = r"[A-Za-z0-9._-]{1,64}"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"


@dataclass(frozen=True)
class TemplateSettings:
    """What ``template.toml`` says. Sizes in MiB; ``warm_up`` commands run in the booted guest just before it
    is captured, so that what they touch is in every sandbox's memory from the start; ``rehearse``
    commands run in each machine that is made ahead of a sandbox."""

    description: str = ""
    category: str = ""
    cpu: int = 1
    memory_mb: int = 512
    disk_mb: int = 10240
    tools: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    warm_up: tuple[str, ...] = ()
    rehearse: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TemplateRecipe:
    """A template as its author wrote it."""

    name: str
    folder: Path
    dockerfile: Recipe
    settings: TemplateSettings

    @property
    def context(self) -> Context:
        """The build's context: the folder itself."""
        return Context(self.folder)


def load_template(folder: Path) -> TemplateRecipe:
    """Read a template's folder. ``template.toml`` may be missing; its ``name`` defaults to the folder's.

    Raises :class:`BadRequestError` that names the file and field.
    """
    dockerfile = parse(_read(folder / DOCKERFILE))
    settings = folder / SETTINGS
    name, parsed = parse_settings(_read(settings) if settings.exists() else "", default_name=folder.resolve().name)
    return TemplateRecipe(name, folder, dockerfile, parsed)


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
    return name, TemplateSettings(**{key: _FIELDS[key](key, value) for key, value in table.items()})


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


_FIELDS: Mapping[str, _Check] = {
    "aliases": _list(_text(_NAME)),
    "category": _text(),
    "cpu": _number(1, 64),
    "description": _text(),
    "disk_mb": _number(256, 1024 * 1024),
    "env": _table,
    "memory_mb": _number(128, 65536),
    "rehearse": _list(_text(rf"(?s)(?=.*\S).{{1,{REHEARSE_LENGTH}}}"), REHEARSE_MOST),
    "tools": _list(_text()),
    "warm_up": _list(_text(r"(?s).*\S.*")),
}
