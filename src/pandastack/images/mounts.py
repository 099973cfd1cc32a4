"""``RUN --mount``: files and folders that one RUN finds and that no layer has.

Options and defaults are those of the Dockerfile reference ("RUN --mount") and, where it is silent, of BuildKit. Only
secrets and file systems in memory are supported; the other types are errors that say what to do instead.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pandastack.errors import BadRequestError

SECRET_ID = r"(?!\.{1,2}$)[A-Za-z0-9_.][A-Za-z0-9._-]{0,127}"
"""How the id of a build secret is spelled."""

SECRET_FOLDER = "/run/secrets"

MOST_MOUNTS = 32
"""How many mounts a RUN may have."""

_UNSUPPORTED = {
    "bind": "COPY --from=STAGE the files in an instruction before it",
    "cache": "remove it; where it matters, clean up in the same RUN: what a RUN leaves is part of its layer",
    "ssh": "give the key as a secret: --mount=type=secret,id=KEY",
}

_NAMES = {"src": "source", "dst": "target", "destination": "target"}
_OPTIONS = {
    "secret": ("id", "source", "target", "env", "required", "mode", "uid", "gid"),
    "tmpfs": ("target", "size"),
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_UNITS = {"": 0, "b": 0, "k": 10, "kb": 10, "m": 20, "mb": 20, "g": 30, "gb": 30}


@dataclass(frozen=True)
class SecretMount:
    """A secret as a file at ``target``, as the variable ``env``, or as both; each may be empty."""

    id: str
    target: str
    env: str
    mode: int
    uid: int
    gid: int
    required: bool

    def described(self) -> tuple[object, ...]:
        """What a key is made of. The value is not known here, and never part of one."""
        return ("secret", self.id, self.target, self.env, self.mode, self.uid, self.gid)


@dataclass(frozen=True)
class MemoryMount:
    """An empty file system in the guest's memory at ``target``, of ``size`` bytes at most; 0: half of the memory."""

    target: str
    size: int

    def described(self) -> tuple[object, ...]:
        return ("tmpfs", self.target, self.size)


Mount = SecretMount | MemoryMount


def read_mount(text: str) -> Mapping[str, str]:
    """The options of a ``--mount`` flag, raw. Raises :class:`BadRequestError` for what no value could make right."""
    options: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = _NAMES.get(name.lower(), name.lower())
        if not equals and name != "required":
            raise BadRequestError(f"RUN --mount: {part[:100]!r} is not name=value")
        if name in options:
            raise BadRequestError(f"RUN --mount: {name[:100]} is given twice")
        options[name] = value if equals else "true"
    kind = options.setdefault("type", "bind").lower()
    if kind not in _OPTIONS:
        raise BadRequestError(f"RUN --mount=type={kind[:100]} is not supported", hint=_UNSUPPORTED.get(kind))
    if unknown := sorted(set(options) - {"type", *_OPTIONS[kind]}):
        hint = f"supported: {', '.join(_OPTIONS[kind])}"
        raise BadRequestError(f"RUN --mount=type={kind}: unknown option {unknown[0][:100]!r}", hint=hint)
    return {**options, "type": kind}


def mount_of(raw: Mapping[str, str], expand: Callable[[str], str], workdir: str) -> Mount:
    """The mount that the options of :func:`read_mount` describe once their variables are replaced."""
    given = {name: expand(value) for name, value in raw.items()}
    if given["type"] == "tmpfs":
        if not given.get("target"):
            raise BadRequestError("RUN --mount=type=tmpfs needs a target", hint="--mount=type=tmpfs,target=/tmp")
        return MemoryMount(_target(given["target"], workdir), _size(given.get("size", "0")))
    if "id" in given and "source" in given:
        raise BadRequestError("RUN --mount=type=secret: id and source are the same; remove one")
    target, env = given.get("target", ""), given.get("env", "")
    name = given.get("id") or given.get("source") or posixpath.basename(target)
    if not re.fullmatch(SECRET_ID, name):
        what = f"{name[:100]!r} is not the id of a secret" if name else "no id"
        raise BadRequestError(f"RUN --mount=type=secret: {what}", hint="--mount=type=secret,id=TOKEN")
    if "env" in given and not _VARIABLE.fullmatch(env):
        raise BadRequestError(f"RUN --mount=type=secret: env={env[:100]!r} is not the name of a variable")
    if not target and not env:
        target = f"{SECRET_FOLDER}/{name}"
    return SecretMount(
        name,
        _target(target, workdir) if target else "",
        env,
        _number("mode", given.get("mode", "0400"), 8, 0o7777),
        _number("uid", given.get("uid", "0"), 10, (1 << 32) - 2),
        _number("gid", given.get("gid", "0"), 10, (1 << 32) - 2),
        _flag(given.get("required", "false")),
    )


def refuse_together(mounts: tuple[Mount, ...]) -> None:
    """Raise :class:`BadRequestError` for mounts that one RUN cannot have together."""
    targets = [each.target for each in mounts if each.target]
    variables = [each.env for each in mounts if isinstance(each, SecretMount) and each.env]
    for names in (targets, variables):
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise BadRequestError(f"RUN --mount: two mounts for {twice[:100]}")


def _target(text: str, workdir: str) -> str:
    path = posixpath.normpath(posixpath.join(workdir, text)).replace("//", "/")
    if path == "/" or any(ord(each) < 0x20 or ord(each) == 0x7F for each in path):
        raise BadRequestError(f"RUN --mount: {text[:100]!r} cannot be a target")
    return path


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12})([a-z]{0,2})", text.lower())
    if found is None or found[2] not in _UNITS:
        raise BadRequestError(f"RUN --mount: size={text[:100]} is not a size", hint="size=64m")
    return int(found[1]) << _UNITS[found[2]]


def _number(name: str, text: str, base: int, most: int) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if not 0 < len(text) <= 11 or set(text) - set(digits) or int(text, base) > most:
        raise BadRequestError(f"RUN --mount: {name}={text[:100]} is not {'a mode' if base == 8 else 'a number'}")
    return int(text, base)


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise BadRequestError(f"RUN --mount: required={text[:100]} is not true or false")
    return text.lower() in ("true", "1")
