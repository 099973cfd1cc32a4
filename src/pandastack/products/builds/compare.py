"""Compares what two builds of one input made, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from pandastack.products.builds.trees import Entry, EntryKind, Tree, pieces, shown

MOST_DIFFERENCES = 200
"""How many differences are reported; the first ones by name."""


class DifferenceKind(StrEnum):
    """How a path of the second build differs from the first's."""

    MISSING = "missing"
    """Only the first build made it."""
    ADDED = "added"
    """Only the second build made it."""
    TYPE = "type"
    """A file, a directory or a link in one, and another of them in the other."""
    MODE = "mode"
    """Executable in only one of them."""
    TARGET = "target"
    """A symbolic link to elsewhere."""
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Difference:
    """One path. Sizes are in bytes; ``offset`` is that of the first byte that differs, for ``content`` only."""

    path: str
    kind: DifferenceKind
    first_size: int | None = None
    second_size: int | None = None
    offset: int | None = None


def compare(first: Tree, first_archive: Path, second: Tree, second_archive: Path) -> tuple[Difference, ...]:
    """What differs, by name; at most :data:`MOST_DIFFERENCES`. The archives are those of the trees."""
    if first.sha256 == second.sha256:
        return ()
    one, other = _by_name(first), _by_name(second)
    found: list[Difference] = []
    with first_archive.open("rb") as first_file, second_archive.open("rb") as second_file:
        for name in sorted(one.keys() | other.keys()):
            difference = _difference(name, one.get(name), other.get(name), first_file, second_file)
            if difference is not None:
                found.append(difference)
            if len(found) == MOST_DIFFERENCES:
                break
    return tuple(found)


def _by_name(tree: Tree) -> dict[str, Entry]:
    return {each.name: each for each in tree.entries}


def _difference(
    name: str, one: Entry | None, other: Entry | None, first: IO[bytes], second: IO[bytes]
) -> Difference | None:
    if one is None or other is None:
        kind = DifferenceKind.ADDED if one is None else DifferenceKind.MISSING
        return Difference(shown(name), kind, _size(one), _size(other))
    if one.kind is not other.kind:
        return Difference(shown(name), DifferenceKind.TYPE, one.size, other.size)
    if one.target != other.target:
        return Difference(shown(name), DifferenceKind.TARGET)
    if one.kind is EntryKind.FILE and one.sha256 != other.sha256:
        offset = _first_difference(one, other, first, second)
        return Difference(shown(name), DifferenceKind.CONTENT, one.size, other.size, offset)
    if one.executable != other.executable:
        return Difference(shown(name), DifferenceKind.MODE, one.size, other.size)
    return None


def _size(entry: Entry | None) -> int | None:
    return None if entry is None else entry.size


def _first_difference(one: Entry, other: Entry, first: IO[bytes], second: IO[bytes]) -> int:
    """The offset of the first byte that differs; the length of the shorter file when it is a prefix of the other."""
    common, at = min(one.size, other.size), 0
    pairs = zip(pieces(first, one.offset, common), pieces(second, other.offset, common), strict=True)
    for left, right in pairs:
        if left != right:
            return at + next(index for index, (a, b) in enumerate(zip(left, right, strict=True)) if a != b)
        at += len(left)
    return common
