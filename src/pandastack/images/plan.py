"""From a recipe and its context to a build plan: what a build machine has to do, in order, and what the image
will be like.

Pure but for reading the context. Every action has a ``key``: a hash over its parent's key and everything that
determines its result, so that a disk can be cached by its key.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import IO

from pandastack.errors import BadRequestError
from pandastack.images import dockerfile
from pandastack.images.cache import content_key
from pandastack.images.context import Context
from pandastack.images.copying import Ownership, Placed, place, write_tar
from pandastack.images.dockerfile import Recipe, Step
from pandastack.images.words import expand

_FORMAT = 1
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXY_ARGUMENTS = frozenset(
    name for word in ("http", "https", "ftp", "no", "all") for name in (f"{word}_proxy", f"{word}_proxy".upper())
)
"""Build arguments that need no ARG. Without one they are not part of any key, because they say where the build happens
and not what it makes (Dockerfile reference, "Predefined ARGs")."""


@dataclass(frozen=True)
class ImageConfig:
    """An image's settings for the programs in it. A template built on it starts from these."""

    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": PATH})
    workdir: str = "/"
    user: str = "root"
    exposed: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    shell: tuple[str, ...] = ("/bin/sh", "-c")


@dataclass(frozen=True)
class Action:
    """One thing to do; ``text`` and ``line`` say where it comes from, for progress and errors."""

    key: str
    line: int
    text: str


@dataclass(frozen=True)
class RunAction(Action):
    """Run ``argv`` as ``user`` (``name[:group]`` or numbers) in ``cwd`` (made if missing) with exactly
    ``env``; ``stdin`` is its input."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    user: str
    stdin: bytes = b""


@dataclass(frozen=True)
class CopyAction(Action):
    """Unpack :meth:`write_tar` in the guest with :data:`pandastack.images.copying.EXTRACT`, as root."""

    files: tuple[Placed, ...]
    owner: Ownership
    permissions: int | None

    def write_tar(self, into: IO[bytes]) -> None:
        write_tar(self.files, self.owner, self.permissions, into)


@dataclass(frozen=True)
class DirectoryAction(Action):
    """Make the folder ``path`` and its parents, owned by root, if it is missing."""

    path: str


@dataclass(frozen=True)
class BuildPlan:
    """``key`` names the finished root: that of the last action together with the configuration."""

    base: str
    actions: tuple[Action, ...]
    config: ImageConfig
    key: str


def base_name(recipe: Recipe, arguments: Mapping[str, str] | None = None) -> str:
    """What the recipe's FROM names once its variables are replaced: ``debian:bookworm`` or another
    template."""
    values: dict[str, str] = {}
    for instruction in recipe.arguments:
        _declare(instruction, values, arguments or {}, recipe.escape, values)
    name = expand(recipe.from_, values, recipe.escape)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", name):
        raise BadRequestError(f"FROM {name!r} is not the name of an image", field="dockerfile")
    return name


def plan(
    recipe: Recipe,
    context: Context,
    arguments: Mapping[str, str] | None = None,
    *,
    parent_key: str,
    parent: ImageConfig | None = None,
) -> BuildPlan:
    """The plan that builds ``recipe`` on an image known by ``parent_key`` with the configuration ``parent``.

    Raises :class:`BadRequestError`, with the Dockerfile's line, for everything that can be known before a
    machine boots.
    """
    given = dict(arguments or {})
    _refuse_unknown(recipe, given)
    planner = _Planner(context, given, recipe, parent_key, parent or ImageConfig())
    for step in recipe.steps:
        planner.take(step)
    base = base_name(recipe, given)
    key = content_key("root", _FORMAT, planner.key, asdict(planner.config))
    return BuildPlan(base, tuple(planner.actions), planner.config, key)


def _refuse_unknown(recipe: Recipe, given: Mapping[str, str]) -> None:
    steps = [*recipe.arguments, *(step for step in recipe.steps if isinstance(step, dockerfile.Arg))]
    declared = {name for step in steps for name, _ in step.pairs}
    if unknown := sorted(set(given) - declared - _PROXY_ARGUMENTS):
        raise BadRequestError(
            f"the Dockerfile declares no ARG {unknown[0]}", hint=f"add ARG {unknown[0]}", field="build_args"
        )


def _declare(
    step: dockerfile.Arg,
    values: dict[str, str],
    given: Mapping[str, str],
    escape: str,
    variables: Mapping[str, str],
    inherited: Mapping[str, str] | None = None,
) -> None:
    """Give the arguments of ``step`` their values: the caller's, else the default, else that of an ARG before
    FROM."""
    for name, default in step.pairs:
        if name in given:
            values[name] = given[name]
        elif default is not None:
            values[name] = expand(default, variables, escape)
        elif inherited and name in inherited:
            values[name] = inherited[name]


class _Planner:
    """The state that one instruction hands to the next."""

    def __init__(
        self, context: Context, given: Mapping[str, str], recipe: Recipe, key: str, config: ImageConfig
    ) -> None:
        self.context, self.given, self.escape = context, given, recipe.escape
        self.key, self.config = key, config
        self.actions: list[Action] = []
        self.predefined = {name: value for name, value in given.items() if name in _PROXY_ARGUMENTS}
        self.arguments: dict[str, str] = {}
        self.before_from: dict[str, str] = {}
        for step in recipe.arguments:
            _declare(step, self.before_from, given, recipe.escape, self.before_from)
        self.directories = {"/", config.workdir}
        """Folders that certainly exist: COPY to one of them puts files inside."""

    @property
    def variables(self) -> dict[str, str]:
        """Environment wins over arguments."""
        return self.predefined | self._recipes_variables

    @property
    def _recipes_variables(self) -> dict[str, str]:
        """What the recipe itself declares. A proxy in ``ENV`` or ``ARG`` decides what is downloaded, so it counts for
        the key: else the layer of a recipe that names a proxy of its own would serve a recipe that names none."""
        return {**self.arguments, **self.config.env}

    def take(self, step: Step) -> None:
        with _at(step):
            match step:
                case dockerfile.Run():
                    self._run(step)
                case dockerfile.Copy():
                    self._copy(step)
                case dockerfile.Workdir():
                    self._workdir(step)
                case dockerfile.Arg():
                    variables = self.variables
                    _declare(step, self.arguments, self.given, self.escape, variables, self.before_from)
                case _:
                    self._configure(step)

    def _expand(self, word: str) -> str:
        return expand(word, self.variables, self.escape)

    def _next_key(self, *parts: object) -> str:
        self.key = content_key("action", _FORMAT, self.key, *parts)
        return self.key

    def _run(self, step: dockerfile.Run) -> None:
        argv, stdin = self._program(step)
        cwd, user = self.config.workdir, self.config.user
        key = self._next_key("run", argv, stdin.decode(), self._recipes_variables, cwd, user)
        self.actions.append(RunAction(key, step.line, step.text, argv, self.variables, cwd, user, stdin))

    def _program(self, step: dockerfile.Run) -> tuple[tuple[str, ...], bytes]:
        if not step.script.startswith("#!"):
            return self._argv(step.script or step.command), b""
        interpreter = step.script.partition("\n")[0].removeprefix("#!").split(maxsplit=1)
        if not interpreter:
            raise BadRequestError("the here-document's #! line names no program")
        return (*interpreter, "/dev/stdin"), step.script.encode()

    def _argv(self, command: str | tuple[str, ...]) -> tuple[str, ...]:
        """The shell form runs in the recipe's shell, the exec form as it is."""
        return (*self.config.shell, command) if isinstance(command, str) else command

    def _copy(self, step: dockerfile.Copy) -> None:
        sources = tuple(self._expand(word) for word in step.sources)
        destination = self._absolute(self._expand(step.destination))
        files = place(self.context, sources, destination, directories=self.directories, add=step.add)
        owner = Ownership.parse(self._expand(step.owner))
        permissions = _permissions(self._expand(step.permissions))
        described = [(file.target, file.kind, file.permissions, file.digest) for file in files]
        key = self._next_key("copy", described, asdict(owner), permissions, destination)
        self.directories |= {file.target for file in files if file.kind == "directory"}
        self.directories |= {posixpath.dirname(file.target) for file in files}
        self.actions.append(CopyAction(key, step.line, step.text, files, owner, permissions))

    def _absolute(self, path: str) -> str:
        """``path`` from the working directory, keeping a trailing slash, which says that it is a folder."""
        if not path:
            raise BadRequestError("the path is empty")
        joined = posixpath.join(self.config.workdir, path)
        if ".." in joined.split("/"):
            joined = posixpath.normpath(joined) + ("/" if joined.endswith("/") else "")
        return joined

    def _workdir(self, step: dockerfile.Workdir) -> None:
        path = posixpath.normpath(self._absolute(self._expand(step.path)))
        self.config = replace(self.config, workdir=path)
        if path not in self.directories:
            self.directories.add(path)
            self.actions.append(DirectoryAction(self._next_key("directory", path), step.line, step.text, path))

    def _configure(self, step: Step) -> None:
        config = self.config
        match step:
            case dockerfile.Env():
                self.config = replace(config, env={**config.env, **self._pairs(step.pairs)})
            case dockerfile.Label():
                self.config = replace(config, labels={**config.labels, **self._pairs(step.pairs)})
            case dockerfile.User():
                self.config = replace(config, user=_user(self._expand(step.user)))
            case dockerfile.Expose():
                ports = (_port(self._expand(word)) for word in step.ports)
                self.config = replace(config, exposed=tuple(dict.fromkeys((*config.exposed, *ports))))
            case dockerfile.Cmd():
                self.config = replace(config, cmd=self._argv(step.command))
            case dockerfile.Shell():
                self.config = replace(config, shell=step.argv)
            case _:
                raise TypeError(f"no plan for {type(step).__name__}")

    def _pairs(self, pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
        """All values of one instruction see the variables as they were before it."""
        return {self._expand(name): self._expand(value) for name, value in pairs}


@contextmanager
def _at(step: Step) -> Iterator[None]:
    """Errors inside the block name the Dockerfile's line."""
    try:
        yield
    except BadRequestError as error:
        raise BadRequestError(
            f"Dockerfile line {step.line}: {error.message}",
            hint=error.hint,
            field=error.field or "dockerfile",
        ) from error


def _permissions(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise BadRequestError(f"--chmod={text} is not an octal mode", hint="--chmod=755")
    return int(text, 8)


def _user(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?", text):
        raise BadRequestError(f"USER {text!r} is not user[:group]")
    return text


def _port(text: str) -> str:
    """``80``, ``80/udp`` or ``8000-8010``, always returned with its protocol."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp))?", text)
    ports = [int(number) for number in match.groups()[:2] if number] if match else []
    if not match or not all(0 < port < 65536 for port in ports) or ports != sorted(ports):
        raise BadRequestError(f"EXPOSE {text!r} is not a port")
    return f"{text.partition('/')[0]}/{match[3] or 'tcp'}"
