"""A build's context: the files that COPY may take, found, matched and hashed without ever leaving the folder.

Members are hostile: ``..``, absolute names, symbolic links that lead outside and special files are refused.
Links *inside* a copied folder are copied as links; where they point is decided in the guest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from pandastack.errors import BadRequestError
from pandastack.images.cache import file_sha256
from pandastack.images.patterns import Pattern, compile_pattern, has_wildcard

IGNORE_FILE = ".dockerignore"
_MOST_IGNORE_BYTES = 64 * 1024
_MOST_RULES = 1000


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
        """The member's content: a hash of the bytes, or the link's target."""
        return file_sha256(self.path) if self.kind == "file" else self.link


@dataclass(frozen=True)
class Ignore:
    """The rules of a ``.dockerignore``: the last one that matches a name or one of its folders decides."""

    rules: tuple[tuple[Pattern, bool], ...] = ()
    _folders: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Ignore:
        """Raises :class:`BadRequestError` that names the line of a malformed rule.

        Source: github.com/moby/patternmatcher, ``ignorefile``.
        """
        rules: list[tuple[Pattern, bool]] = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            if line.startswith("#") or not (rule := line.strip()):
                continue
            keep = rule.startswith("!")
            name = os.path.normpath(rule.removeprefix("!").strip() or "!").lstrip("/")
            with _at(number):
                if name == "!" or len(rules) == _MOST_RULES:
                    raise BadRequestError("a rule without a pattern" if name == "!" else "too many rules")
                rules.append((compile_pattern(name), keep))
        return cls(tuple(rules))

    def __call__(self, name: str) -> bool:
        """Whether ``name`` is left out of the context."""
        matched = self._matched(name)
        last = max((index for index in range(len(self.rules)) if matched >> index & 1), default=None)
        return last is not None and not self.rules[last][1]

    def _matched(self, name: str) -> int:
        """A bit set: bit i says that rule i matches the name or one of its folders."""
        folder = name.rpartition("/")[0]
        if not folder:
            matched = 0
        elif (known := self._folders.get(folder)) is not None:
            matched = known
        else:
            matched = self._folders[folder] = self._matched(folder)
        for index, (rule, _) in enumerate(self.rules):
            if not matched >> index & 1 and rule.matches(name):
                matched |= 1 << index
        return matched


@contextmanager
def _at(line: int) -> Iterator[None]:
    """Errors inside the block name the line of the ``.dockerignore``."""
    try:
        yield
    except BadRequestError as error:
        raise BadRequestError(f"{IGNORE_FILE} line {line}: {error.message}", field="dockerfile") from error


@dataclass(frozen=True)
class Context:
    """The folder that a build may copy from."""

    root: Path

    @cached_property
    def members(self) -> Mapping[str, ContextFile]:
        """Everything in the folder that is not ignored, by name relative to it, sorted."""
        ignore_file = self.root / IGNORE_FILE
        ignore = Ignore.parse(_text_of(ignore_file)) if _is_plain(ignore_file) else Ignore()
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
            matcher = compile_pattern(name)
            names = tuple(member for member in self.members if matcher.matches(member))
        else:
            names = (name,) if name == "." or name in self.members or self._holds(name) else ()
        if not names:
            raise BadRequestError(
                f"{source}: no such file in the build context",
                hint=f"is it ignored by {IGNORE_FILE}, or not uploaded?",
            )
        return names

    def _holds(self, name: str) -> bool:
        """Whether the folder has any member: it may itself be ignored while an exception includes something in it."""
        return any(member.startswith(f"{name}/") for member in self.members)

    def source(self, name: str) -> ContextFile:
        """The file or folder ``name``; a link within the context is followed."""
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


def _text_of(ignore_file: Path) -> str:
    if ignore_file.stat().st_size > _MOST_IGNORE_BYTES:
        raise BadRequestError(f"{IGNORE_FILE} is longer than {_MOST_IGNORE_BYTES // 1024} KiB", field="dockerfile")
    return ignore_file.read_text("utf-8", "replace")


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
