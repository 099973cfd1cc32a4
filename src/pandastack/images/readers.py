"""From the lines of a Dockerfile to its instructions: one reader for each keyword."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from pandastack.errors import BadRequestError
from pandastack.images.instructions import (
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    Healthcheck,
    Label,
    Maintainer,
    Run,
    Shell,
    Step,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from pandastack.images.lines import Line, heredoc_name
from pandastack.images.mounts import MOST_MOUNTS, read_mount
from pandastack.images.words import split_words

_UNSUPPORTED = {"ONBUILD": "write the instruction in the Dockerfiles that are built on this one"}

_DURATION = re.compile(r"([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|µs|ms|s|m|h)){1,7}|0")
"""Go's ``time.ParseDuration``, without signs."""

_HEALTHCHECK_FLAGS = ("interval", "timeout", "start-period", "start-interval", "retries")


def read_step(line: Line, escape: str) -> Step:
    """The instruction of a line within a stage."""
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


def read_from(line: Line, escape: str) -> tuple[str, str]:
    """The raw image of a FROM, and the name that it gives its stage, if any."""
    words = _words(line, escape)
    if words and words[0].startswith("--"):
        raise line.error(f"FROM {words[0]} is not supported", "images are made for this host's architecture")
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise line.error(
            "FROM takes one image",
            "FROM debian:bookworm, the name of a template or an earlier stage, or an image of a registry",
        )
    return words[0], words[2] if len(words) == 3 else ""


def _flags(line: Line, allowed: tuple[str, ...], hint: str) -> tuple[Mapping[str, str], str]:
    """Leading ``--name=value`` words, and the rest of the line."""
    flags, rest = {}, line.rest
    while match := re.match(r"--([a-z][a-z-]*)(?:=(\S*))?\s*", rest):
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
    mounts, rest = _mounts(line)
    _, rest = _flags(replace(line, rest=rest), (), "every RUN has the network and all rights; remove the flag")
    if len(line.heredocs) == 1 and rest == line.heredocs[0][0]:
        return Run(line.number, line.text, "", line.heredocs[0][1], mounts)
    if line.heredocs:  # the shell reads them itself
        bodies = "".join(f"{body}{heredoc_name(opening)}\n" for opening, body in line.heredocs)
        return Run(line.number, line.text, f"{rest}\n{bodies}", mounts=mounts)
    command = _exec_form(rest)
    if command == () or not rest:
        raise line.error("RUN needs a command")
    return Run(line.number, line.text, rest if command is None else command, mounts=mounts)


def _mounts(line: Line) -> tuple[tuple[Mapping[str, str], ...], str]:
    """The leading ``--mount`` flags, and the rest of the line."""
    mounts, rest = list[Mapping[str, str]](), line.rest
    while match := re.match(r"--mount=(\S+)\s*", rest):
        if len(mounts) == MOST_MOUNTS:
            raise line.error(f"more than {MOST_MOUNTS} mounts")
        try:
            mounts.append(read_mount(match[1]))
        except BadRequestError as error:
            raise line.error(error.message, error.hint) from error
        rest = rest[match.end() :]
    return tuple(mounts), rest


_COPY_FLAGS = {"COPY": ("chown", "chmod", "from"), "ADD": ("chown", "chmod", "checksum")}


def _copy(line: Line, escape: str) -> Copy:
    allowed = _COPY_FLAGS[line.keyword]
    flags, rest = _flags(line, allowed, f"supported: {', '.join(f'--{name}' for name in allowed)}")
    if line.heredocs:
        raise line.error(
            f"{line.keyword} of a here-document is not supported", "put the text into a file of the context"
        )
    listed = _exec_form(rest)
    words = list(listed) if listed is not None else _words(line, escape, rest)
    if len(words) < 2:
        raise line.error(f"{line.keyword} needs a source and a destination")
    if "from" in flags and not flags["from"]:
        raise line.error("COPY --from needs the name or the index of a stage", "COPY --from=NAME")
    add = line.keyword == "ADD"
    if add and any(re.match(r"(https?|ftp|git|ssh)://|git@", word) for word in words[:-1]):
        hint = "RUN curl -fsSLo FILE URL && echo 'SHA256  FILE' | sha256sum -c"
        raise line.error("ADD of a URL is not supported", hint)
    if "checksum" in flags:
        raise line.error("ADD --checksum is for URLs, which are not supported", "remove the flag")
    owner, permissions = flags.get("chown", ""), flags.get("chmod", "")
    return Copy(line.number, line.text, tuple(words[:-1]), words[-1], owner, permissions, add, flags.get("from", ""))


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


def read_arg(line: Line, escape: str) -> Arg:
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


def _command(text: str) -> str | ExecForm:
    """The exec form, which may be empty, or else the shell form."""
    listed = _exec_form(text)
    return text if listed is None else listed


def _healthcheck(line: Line, escape: str) -> Healthcheck:
    flags, rest = _flags(line, _HEALTHCHECK_FLAGS, f"supported: {', '.join(_HEALTHCHECK_FLAGS)}")
    keyword, command = [*rest.split(maxsplit=1), "", ""][:2]
    if keyword.upper() == "NONE" and not command and not flags:
        return Healthcheck(line.number, line.text, None)
    if keyword.upper() != "CMD" or not command or _exec_form(command) == ():
        raise line.error("HEALTHCHECK takes CMD and a command, or NONE", "HEALTHCHECK --interval=30s CMD curl -f URL")
    for name, value in flags.items():
        if not (re.fullmatch(r"[0-9]{1,4}", value) if name == "retries" else _DURATION.fullmatch(value)):
            what = "a number" if name == "retries" else "a duration like 1m30s"
            raise line.error(f"HEALTHCHECK --{name}={value[:100]} is not {what}")
    return Healthcheck(line.number, line.text, _command(command), tuple(flags.items()))


def _volume(line: Line, escape: str) -> Volume:
    listed = _exec_form(line.rest)
    paths = tuple(_words(line, escape)) if listed is None else listed
    if not paths:
        raise line.error("VOLUME needs a path")
    return Volume(line.number, line.text, paths)


_READERS: Mapping[str, Callable[[Line, str], Step]] = {
    "ADD": _copy,
    "ARG": read_arg,
    "CMD": lambda line, _: Cmd(line.number, line.text, _command(line.rest)),
    "COPY": _copy,
    "ENTRYPOINT": lambda line, _: Entrypoint(line.number, line.text, _command(line.rest)),
    "ENV": lambda line, escape: Env(line.number, line.text, _pairs(line, escape)),
    "EXPOSE": lambda line, escape: Expose(line.number, line.text, tuple(_words(line, escape))),
    "HEALTHCHECK": _healthcheck,
    "LABEL": lambda line, escape: Label(line.number, line.text, _pairs(line, escape)),
    "MAINTAINER": lambda line, _: Maintainer(line.number, line.text, line.rest),
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": lambda line, _: StopSignal(line.number, line.text, line.rest),
    "USER": lambda line, _: User(line.number, line.text, line.rest),
    "VOLUME": _volume,
    "WORKDIR": lambda line, _: Workdir(line.number, line.text, line.rest),
}
