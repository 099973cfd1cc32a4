"""A build's context: the files that COPY may take, found, matched and hashed without ever leaving the folder.

Members are hostile: ``..``, absolute names, symbolic links that lead outside and special files are refused.
Links *inside* a copied folder are copied as links; where they point is decided in the guest.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pandastack.errors import BadRequestError
from pandastack.images.cache import file_sha256

IGNORE_FILE = ".dockerignore"


@dataclass(frozen=True)
class ContextFile:
    """One member: ``kind`` is ``file``, ``directory`` or ``link``; ``permissions`` are the lower twelve mode
    bits."""

    name: str
    path: Path
    kind: str
    permissions: int
    link: str = ""

    @cached_property
    def digest(self) -> str:
        """What the member holds: a hash of the bytes, or where the link points."""
        return file_sha256(self.path) if self.kind == "file" else self.link


def pattern(text: str) -> re.Pattern[str]:
    """Go's ``filepath.Match`` with ``**``, as Dockerfile and .dockerignore use it; ``*`` and ``?`` stop at a
    slash."""
    out, index = "", 0
    while index < len(text):
        if text.startswith("**", index):
            index += 2
            if text.startswith("/", index):  # "**/x" is also x itself
                index += 1
                out += "(?:.*/)?"
            else:
                out += ".*"
            continue
        token = _CLASS.match(text, index) or re.compile(r"\\?.", re.DOTALL).match(text, index)
        assert token is not None
        out += _translate(token[0])
        index = token.end()
    return re.compile(out, re.DOTALL)


_CLASS = re.compile(r"\[\^?(?:\\.|[^]\\])+\]")


def _translate(token: str) -> str:
    if token == "*":
        return "[^/]*"
    if token == "?":
        return "[^/]"
    if _CLASS.fullmatch(token):
        return f"(?!/){token.replace('[[', '[' + chr(92) + '[')}"
    return re.escape(token[-1])


def has_wildcard(text: str) -> bool:
    return any(char in text for char in "*?[")


@dataclass(frozen=True)
class Ignore:
    """The rules of a ``.dockerignore``: the last one that matches a name or one of its folders decides."""

    rules: tuple[tuple[re.Pattern[str], bool], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Ignore:
        rules = []
        for line in text.removeprefix("\ufeff").splitlines():
            rule = line.strip()
            if not rule or rule.startswith("#"):
                continue
            keep = rule.startswith("!")
            name = os.path.normpath(rule.removeprefix("!").strip()).strip("/")
            if name and name != ".":
                rules.append((pattern(name), keep))
        return cls(tuple(rules))

    def __call__(self, name: str) -> bool:
        """Whether ``name`` is left out of the context."""
        parents = [str(parent) for parent in PurePosixPath(name).parents if str(parent) != "."]
        ignored = False
        for rule, keep in self.rules:
            if any(rule.fullmatch(candidate) for candidate in (name, *parents)):
                ignored = not keep
        return ignored


@dataclass(frozen=True)
class Context:
    """The folder that a build may copy from."""

    root: Path

    @cached_property
    def members(self) -> Mapping[str, ContextFile]:
        """Everything in the folder that is not ignored, by name relative to it, sorted."""
        ignore_file = self.root / IGNORE_FILE
        ignore = Ignore.parse(ignore_file.read_text("utf-8", "replace")) if _is_plain(ignore_file) else Ignore()
        found = {name: path for name, path in _walk(self.root) if not ignore(name)}
        return {name: _member(name, found[name]) for name in sorted(found)}

    def find(self, source: str) -> tuple[str, ...]:
        """The names that the COPY source ``source`` stands for; ``"."`` is the whole folder.

        Raises :class:`BadRequestError` when it leaves the folder or matches nothing.
        """
        if source.startswith("/"):
            raise BadRequestError(f"{source} is absolute", hint="name it relative to the build context")
        if ".." in PurePosixPath(source).parts:
            raise BadRequestError(f"{source} leaves the build context", hint="move the file into the context")
        name = str(PurePosixPath(source))
        if has_wildcard(name):
            matcher = pattern(name)
            names = tuple(member for member in self.members if matcher.fullmatch(member))
        else:
            names = (name,) if name == "." or name in self.members or self._holds(name) else ()
        if not names:
            raise BadRequestError(
                f"{source}: no such file in the build context",
                hint=f"is it ignored by {IGNORE_FILE}, or not uploaded?",
            )
        return names

    def _holds(self, name: str) -> bool:
        """A folder may itself be ignored while an exception keeps something in it."""
        return any(member.startswith(f"{name}/") for member in self.members)

    def source(self, name: str) -> ContextFile:
        """The file or folder that ``name`` is, following it if it is a link within the context."""
        path = self.root / name
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise BadRequestError(f"{name}: the link is broken") from error
        if not real.is_relative_to(self.root.resolve()):
            raise BadRequestError(f"{name} points outside the build context", hint="copy the file into the context")
        return _member(name, real)

    def below(self, directory: ContextFile) -> Iterator[tuple[str, ContextFile]]:
        """All members below a folder, with their names relative to it."""
        real = os.path.relpath(directory.path, self.root.resolve())
        prefix = "" if real == "." else f"{real}/"
        for name, member in self.members.items():
            if name.startswith(prefix):
                yield name.removeprefix(prefix), member


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, directories, files in os.walk(root, followlinks=False):
        for name in [*directories, *files]:
            path = Path(folder) / name
            yield path.relative_to(root).as_posix(), path


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _member(name: str, path: Path) -> ContextFile:
    status = path.lstat()
    permissions = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return ContextFile(name, path, "link", 0o777, str(path.readlink()))
    if stat.S_ISDIR(status.st_mode):
        return ContextFile(name, path, "directory", permissions)
    if stat.S_ISREG(status.st_mode):
        return ContextFile(name, path, "file", permissions)
    raise BadRequestError(f"{name} is neither file, folder nor link", hint=f"list it in {IGNORE_FILE}")
