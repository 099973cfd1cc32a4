"""Read a Dockerfile into a :class:`Recipe`: one stage, the instructions that a template build carries out.

Syntax and meaning are the Dockerfile reference's; what is not supported is an error that names the line,
never silence. The PyPI parser ``dockerfile-parse`` was tried and does not fit: it loses a continued last
line, ends a continued line at an empty one, takes any word for an instruction and knows no here-documents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pandastack.errors import BadRequestError
from pandastack.images.lines import Line, escape_character, heredoc_name, logical_lines
from pandastack.images.words import split_words

ExecForm = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One instruction: the ``line`` it starts at (from 1) and its ``text``, joined to one line."""

    line: int
    text: str


@dataclass(frozen=True)
class Run(Step):
    """``command`` is text for the shell, or the argv of the exec form. ``script`` is a here-document that is
    the program."""

    command: str | ExecForm
    script: str = ""


@dataclass(frozen=True)
class Copy(Step):
    """COPY, or ADD of local files (``add``). Everything is raw: variables are not yet replaced."""

    sources: tuple[str, ...]
    destination: str
    owner: str = ""
    permissions: str = ""
    add: bool = False


@dataclass(frozen=True)
class Env(Step):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Label(Step):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Arg(Step):
    """Build arguments with their raw defaults; ``None`` is an argument without one."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Workdir(Step):
    path: str


@dataclass(frozen=True)
class User(Step):
    user: str


@dataclass(frozen=True)
class Expose(Step):
    ports: tuple[str, ...]


@dataclass(frozen=True)
class Cmd(Step):
    command: str | ExecForm


@dataclass(frozen=True)
class Shell(Step):
    argv: ExecForm


@dataclass(frozen=True)
class Recipe:
    """A parsed Dockerfile. ``from_`` is a raw word, ``arguments`` the ARGs before it, which it may use."""

    from_: str
    steps: tuple[Step, ...]
    arguments: tuple[Arg, ...] = ()
    escape: str = "\\"


def parse(text: str) -> Recipe:
    """The recipe in ``text``. Raises :class:`BadRequestError` with the line's number and, where there is a
    way, a hint."""
    escape = escape_character(text)
    arguments: list[Arg] = []
    steps: list[Step] = []
    base = ""
    for line in logical_lines(text, escape):
        if line.keyword == "FROM":
            if base:
                raise line.error("only one FROM is supported", "build in one stage, removing what is not needed")
            base = _from(line, escape)
        elif base:
            steps.append(_step(line, escape))
        elif line.keyword == "ARG":
            arguments.append(_arg(line, escape))
        else:
            raise line.error(f"{line.keyword} before FROM")
    if not base:
        raise BadRequestError("the Dockerfile has no FROM", hint="start with FROM debian:bookworm", field="dockerfile")
    return Recipe(base, tuple(steps), tuple(arguments), escape)


_UNSUPPORTED = {
    "ENTRYPOINT": "use CMD, or start the program with a command",
    "HEALTHCHECK": "the platform watches the guest itself",
    "MAINTAINER": "use LABEL",
    "ONBUILD": "write the instruction where it is needed",
    "STOPSIGNAL": "commands are ended with the signals that the caller sends",
    "VOLUME": "volumes are attached when a sandbox is created",
}


def _step(line: Line, escape: str) -> Step:
    reader = _READERS.get(line.keyword)
    if reader is None:
        known = line.keyword in _UNSUPPORTED
        what = f"{line.keyword} is not supported" if known else f"unknown instruction {line.keyword}"
        raise line.error(what, _UNSUPPORTED.get(line.keyword))
    if not line.rest:
        raise line.error(f"{line.keyword} needs an argument")
    return reader(line, escape)


def _words(line: Line, escape: str, text: str | None = None) -> list[str]:
    try:
        return split_words(line.rest if text is None else text, escape)
    except BadRequestError as error:
        raise line.error(error.message) from error


def _from(line: Line, escape: str) -> str:
    words = _words(line, escape)
    if words and words[0].startswith("--"):
        raise line.error(f"FROM {words[0]} is not supported", "images are made for this host's architecture")
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise line.error("FROM takes one image", "FROM debian:bookworm, or the name of a template")
    return words[0]


def _flags(line: Line, allowed: tuple[str, ...], hint: str) -> tuple[Mapping[str, str], str]:
    """Leading ``--name=value`` words, and the rest of the line."""
    flags, rest = {}, line.rest
    while match := re.match(r"--([a-z]+)(?:=(\S*))?\s*", rest):
        if match[1] not in allowed:
            raise line.error(f"{line.keyword} --{match[1]} is not supported", hint)
        flags[match[1]] = match[2] or ""
        rest = rest[match.end() :]
    return flags, rest


def _exec_form(text: str) -> ExecForm | None:
    """A JSON array of strings, or ``None``: then it is the shell form, as Docker decides it too."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return None
    return tuple(value)


def _run(line: Line, escape: str) -> Run:
    _, rest = _flags(line, (), "every RUN has the network and a plain disk; remove the flag")
    if len(line.heredocs) == 1 and rest == line.heredocs[0][0]:
        return Run(line.number, line.text, "", script=line.heredocs[0][1])
    if line.heredocs:  # the shell reads them itself
        bodies = "".join(f"{body}{heredoc_name(opening)}\n" for opening, body in line.heredocs)
        return Run(line.number, line.text, f"{rest}\n{bodies}")
    command = _exec_form(rest)
    if command == ():
        raise line.error("RUN needs a command")
    return Run(line.number, line.text, rest if command is None else command)


def _copy(line: Line, escape: str) -> Copy:
    flags, rest = _flags(line, ("chown", "chmod"), "only --chown and --chmod are; there is one stage and one context")
    if line.heredocs:
        raise line.error(
            f"{line.keyword} of a here-document is not supported", "put the text into a file of the context"
        )
    listed = _exec_form(rest)
    words = list(listed) if listed is not None else _words(line, escape, rest)
    if len(words) < 2:
        raise line.error(f"{line.keyword} needs a source and a destination")
    add = line.keyword == "ADD"
    if add and any(re.match(r"(https?|ftp|git|ssh)://|git@", word) for word in words[:-1]):
        raise line.error("ADD of a URL is not supported", "RUN curl -fsSLO URL, and check its digest")
    owner, permissions = flags.get("chown", ""), flags.get("chmod", "")
    return Copy(line.number, line.text, tuple(words[:-1]), words[-1], owner, permissions, add)


def _pairs(line: Line, escape: str) -> tuple[tuple[str, str], ...]:
    """``name=value …``, or the old form ``name the rest of the line``."""
    words = _words(line, escape)
    if "=" not in words[0]:
        name, value = [*line.rest.split(maxsplit=1), ""][:2]
        if not value:
            raise line.error(f"{line.keyword} {name} needs a value", f"{line.keyword} {name}=value")
        return ((name, value),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise line.error(f"{line.keyword}: {word} is not name=value")
        pairs.append((name, value))
    return tuple(pairs)


def _arg(line: Line, escape: str) -> Arg:
    pairs = [word.partition("=") for word in _words(line, escape)]
    if not pairs:
        raise line.error("ARG needs a name")
    for name, _, _ in pairs:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise line.error(f"ARG: {name!r} is not a name")
    return Arg(line.number, line.text, tuple((name, value if equals else None) for name, equals, value in pairs))


def _shell(line: Line, escape: str) -> Shell:
    argv = _exec_form(line.rest)
    if not argv:
        raise line.error("SHELL takes a JSON array", 'SHELL ["/bin/bash", "-c"]')
    return Shell(line.number, line.text, argv)


_READERS: Mapping[str, Callable[[Line, str], Step]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": lambda line, _: Cmd(line.number, line.text, _exec_form(line.rest) or line.rest),
    "COPY": _copy,
    "ENV": lambda line, escape: Env(line.number, line.text, _pairs(line, escape)),
    "EXPOSE": lambda line, escape: Expose(line.number, line.text, tuple(_words(line, escape))),
    "LABEL": lambda line, escape: Label(line.number, line.text, _pairs(line, escape)),
    "RUN": _run,
    "SHELL": _shell,
    "USER": lambda line, _: User(line.number, line.text, line.rest),
    "WORKDIR": lambda line, _: Workdir(line.number, line.text, line.rest),
}
