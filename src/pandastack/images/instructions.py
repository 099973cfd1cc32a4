"""The instructions of a Dockerfile as data. Everything is raw: variables are not yet replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ExecForm = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One instruction: the ``line`` it starts at (from 1) and its ``text``, joined to one line."""

    line: int
    text: str


@dataclass(frozen=True)
class Run(Step):
    """``command`` is text for the shell, or the argv of the exec form. ``script`` is a here-document that is
    the program. ``mounts`` are the options of its ``--mount`` flags."""

    command: str | ExecForm
    script: str = ""
    mounts: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Copy(Step):
    """COPY, or ADD of local files (``add``). With ``from_`` the files are those of an earlier stage or of an image,
    and ``stage`` is the index of that stage; else they are the context's."""

    sources: tuple[str, ...]
    destination: str
    owner: str = ""
    permissions: str = ""
    add: bool = False
    from_: str = ""
    stage: int | None = None


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
class Entrypoint(Step):
    command: str | ExecForm


@dataclass(frozen=True)
class Healthcheck(Step):
    """``command`` is ``None`` for NONE; ``options`` are durations as written, and ``retries``."""

    command: str | ExecForm | None
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Volume(Step):
    paths: tuple[str, ...]


@dataclass(frozen=True)
class StopSignal(Step):
    signal: str


@dataclass(frozen=True)
class Maintainer(Step):
    name: str
