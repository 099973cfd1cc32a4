"""Patterns for names, as Dockerfile and .dockerignore use them, matched without backtracking.

Recipes are hostile, and with a regular expression a pattern such as ``**a**a**b`` takes exponential time. Here all
ways through a pattern are followed at once: bit i of a number says that token i is next (the Shift-And algorithm,
Baeza-Yates and Gonnet 1992). A character of a name costs a few operations on numbers as long as the pattern.

Source: Go's ``filepath.Match``, with ``**`` as github.com/moby/patternmatcher has it: at the end of a pattern it is
anything, elsewhere it is any number of folders or none, and before nothing but plain text it is any beginning.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from pandastack.errors import BadRequestError

MOST_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class _Class:
    """Characters between brackets, or with ``negated`` all others."""

    bit: int
    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def takes(self, char: str) -> bool:
        return any(low <= char <= high for low, high in self.ranges) is not self.negated


@dataclass
class Pattern:
    """A compiled pattern. Each number is a set of tokens, one bit for each."""

    size: int = 0
    literals: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    classes: list[_Class] = field(default_factory=list)
    not_slash: int = 0
    """Take one character other than a slash."""
    names: int = 0
    """Take any number of characters other than slashes."""
    anything: int = 0
    """Take any number of characters."""
    folders: int = 0
    """Begin three tokens that may all be left out."""

    def matches(self, name: str) -> bool:
        """Whether all of ``name``, a relative path with slashes, fits the pattern."""
        ways = self._skipped(1)
        for char in name:
            if not ways:
                return False
            ways = self._moved(ways, char)
        return bool(ways >> self.size)

    def _moved(self, ways: int, char: str) -> int:
        once, often = self.literals.get(char, 0), self.anything
        if char != "/":
            once, often = once | self.not_slash, often | self.names
        for each in self.classes:
            if ways & each.bit and each.takes(char):
                once |= each.bit
        return self._skipped((ways & once) << 1 | ways & often)

    def _skipped(self, ways: int) -> int:
        """Add the states reachable without a further character. At most four adjacent tokens can be skipped."""
        optional = self.names | self.anything | self.folders
        while (more := ways | (ways & optional) << 1 | (ways & self.folders) << 3) != ways:
            ways = more
        return ways

    def next_bit(self) -> int:
        """Append a token; returns its bit."""
        self.size += 1
        return 1 << self.size - 1


def compile_pattern(text: str) -> Pattern:
    """Raises :class:`BadRequestError` for a malformed pattern."""
    if len(text) > MOST_CHARACTERS:
        raise BadRequestError(f"the pattern is longer than {MOST_CHARACTERS} characters")
    made, at = Pattern(), 0
    if text.startswith("**") and text[2:3] not in ("", "/") and not has_wildcard(text[2:].replace("\\", "?")):
        made.anything, at = made.next_bit(), 2
    while at < len(text):
        at = _take(made, text, at)
    return made


def has_wildcard(text: str) -> bool:
    return any(char in text for char in "*?[")


def _take(made: Pattern, text: str, at: int) -> int:
    """Add the token at ``at`` and return where it ends."""
    if text.startswith("**", at):
        while text.startswith("**", at):
            at += 3 if text.startswith("/", at + 2) else 2
        if at < len(text):
            _add_folders(made)
        else:
            made.anything |= made.next_bit()
        return at
    match text[at]:
        case "*":
            made.names |= made.next_bit()
        case "?":
            made.not_slash |= made.next_bit()
        case "[":
            return _add_class(made, text, at + 1)
        case _:
            char, at = _character(text, at)
            made.literals[char] |= made.next_bit()
            return at
    return at + 1


def _add_folders(made: Pattern) -> None:
    """Nothing, or anything and a slash."""
    made.folders |= made.next_bit()
    made.anything |= made.next_bit()
    made.literals["/"] |= made.next_bit()


def _add_class(made: Pattern, text: str, at: int) -> int:
    """A class such as ``[^a-z_]``, after its opening bracket."""
    negated = text.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not ranges or not text.startswith("]", at):
        low, at = _member(text, at)
        high = low
        if text.startswith("-", at):
            high, at = _member(text, at + 1)
        if high < low:
            raise _malformed(text)
        ranges.append((low, high))
    made.classes.append(_Class(made.next_bit(), tuple(ranges), negated))
    return at + 1


def _member(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] in ("", "-", "]"):
        raise _malformed(text)
    return _character(text, at)


def _character(text: str, at: int) -> tuple[str, int]:
    """One character, possibly after a backslash."""
    at += text.startswith("\\", at)
    if at == len(text):
        raise _malformed(text)
    return text[at], at + 1


def _malformed(text: str) -> BadRequestError:
    return BadRequestError(f"malformed pattern {text[:100]!r}")
