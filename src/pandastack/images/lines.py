"""The lines of a Dockerfile: directives, comments, continuation and here-documents, before any instruction is
understood."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pandastack.errors import BadRequestError
from pandastack.images.words import split_words

_HEREDOC_KEYWORDS = ("RUN", "COPY", "ADD")
_HEREDOC = re.compile(r"""\d*<<(-?)(["']?)([A-Za-z_][\w.]*)\2""")
_Numbered = Iterator[tuple[int, str]]


@dataclass(frozen=True)
class Line:
    """A logical line. ``number`` counts from 1; ``heredocs`` are here-documents: their opening words and
    bodies."""

    number: int
    keyword: str
    rest: str
    heredocs: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        return f"{self.keyword} {self.rest}".rstrip()

    def error(self, message: str, hint: str | None = None) -> BadRequestError:
        return BadRequestError(f"Dockerfile line {self.number}: {message}", hint=hint, field="dockerfile")


def escape_character(text: str) -> str:
    """Parser directives are comments at the very top; ``# escape=`` is the one that changes the syntax."""
    for line in text.splitlines():
        match = re.fullmatch(r"\s*#\s*([A-Za-z]+)\s*=\s*(\S+)\s*", line)
        if not match:
            break
        if match[1].lower() == "escape":
            if match[2] not in ("\\", "`"):
                raise BadRequestError("Dockerfile: the escape character is \\ or `", field="dockerfile")
            return match[2]
    return "\\"


def logical_lines(text: str, escape: str) -> Iterator[Line]:
    """All lines that hold an instruction. Comments and empty lines inside a continued line are left out, as
    Docker does."""
    physical = iter(enumerate(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"), start=1))
    for number, first in physical:
        if _is_blank(first):
            continue
        joined = _join(first, physical, escape).strip()
        keyword, rest = [*joined.split(maxsplit=1), ""][:2]
        heredocs: tuple[tuple[str, str], ...] = ()
        if keyword.upper() in _HEREDOC_KEYWORDS:
            openings = _heredoc_openings(rest, escape)
            heredocs = tuple((opening, _heredoc_body(number, opening, physical)) for opening in openings)
        yield Line(number, keyword.upper(), rest, heredocs)


def _is_blank(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _join(first: str, physical: _Numbered, escape: str) -> str:
    parts, line = list[str](), first
    while (continued := line.rstrip(" \t")).endswith(escape):
        parts.append(continued[:-1])
        line = next((line for _, line in physical if not _is_blank(line)), "")
    return "".join((*parts, line))


def _heredoc_openings(rest: str, escape: str) -> list[str]:
    """Words like ``<<EOF``: whole and unquoted, so that ``1<<2`` in a shell's arithmetic does not count."""
    try:
        return [word for word in split_words(rest, escape) if _HEREDOC.fullmatch(word)]
    except BadRequestError:
        return []  # unclosed quotes are left to the shell


def heredoc_name(opening: str) -> str:
    """The line that ends the here-document opened by ``<<EOF``, ``<<-EOF`` or ``<<'EOF'``."""
    match = _HEREDOC.fullmatch(opening)
    assert match is not None
    return match[3]


def _heredoc_body(number: int, opening: str, physical: _Numbered) -> str:
    tabs, name = "<<-" in opening, heredoc_name(opening)
    body: list[str] = []
    for _, line in physical:
        if (line.lstrip("\t") if tabs else line) == name:
            return "".join(f"{text}\n" for text in body)
        body.append(line.lstrip("\t") if tabs else line)
    raise Line(number, "", "").error(f"the here-document {opening} has no end", f"close it with a line {name}")
