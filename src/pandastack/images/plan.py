"""From a stage of a recipe and its context to a build plan: what a build machine has to do, in order, and what the
image will be like.

Pure but for reading the context. Every action has a ``key``: a hash over its parent's key and everything that
determines its result, so that a disk can be cached by its key.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pandastack.errors import BadRequestError
from pandastack.images import instructions
from pandastack.images.actions import (
    Action,
    CopyAction,
    DirectoryAction,
    ImageConfig,
    RunAction,
    StageCopyAction,
    UnpackAction,
)
from pandastack.images.archives import archive_program
from pandastack.images.cache import content_key
from pandastack.images.context import Context
from pandastack.images.copying import Ownership, place, refuse_single
from pandastack.images.dockerfile import Recipe, Stage
from pandastack.images.given import Given
from pandastack.images.instructions import Copy, Step
from pandastack.images.mounts import Mount, SecretMount, mount_of, refuse_together
from pandastack.images.stages import at, base_name, before_from, declare
from pandastack.images.values import (
    healthcheck_of,
    name_in_stage,
    permissions_of,
    port_of,
    signal_of,
    user_of,
)
from pandastack.images.words import expand

_FORMAT = 1

EXPANDED_MAX = 1024 * 1024
"""Characters that all words of a stage may have together, once their variables are replaced. Each ``ENV A=$A$A``
doubles one."""

MOST_SOURCES = 12
"""How many stages one stage may copy from: each is a disk of its build machine."""

_PROXY_ARGUMENTS = frozenset(
    name for word in ("http", "https", "ftp", "no", "all") for name in (f"{word}_proxy", f"{word}_proxy".upper())
)
"""Build arguments that need no ARG. Without one they are not part of any key, because they say where the build happens
and not what it makes (Dockerfile reference, "Predefined ARGs")."""


@dataclass(frozen=True)
class BuildPlan:
    """``key`` names the finished root: that of the last action together with the configuration. ``layer`` is the key
    of the last action alone. ``arguments`` are what a stage built on this one knows; ``sources`` are the indices of
    the stages that it copies from."""

    base: str
    actions: tuple[Action, ...]
    config: ImageConfig
    key: str
    layer: str
    arguments: Mapping[str, str]
    sources: tuple[int, ...]


def plan(
    recipe: Recipe,
    context: Context,
    given: Given | None = None,
    *,
    parent_key: str,
    parent: ImageConfig | None = None,
    stage: Stage | None = None,
    inherited: Mapping[str, str] | None = None,
    sources: Mapping[int, str] | None = None,
    machine: str = "",
    renewed: Callable[[str], str] = str,
) -> BuildPlan:
    """The plan that builds ``stage`` of ``recipe``, else its last one, on an image known by ``parent_key`` with the
    configuration ``parent``. ``inherited`` are the arguments of the stage below; ``sources`` maps the indices of
    earlier stages to the keys of their files. ``machine`` is the key of what a RUN finds in each machine that builds.
    ``renewed`` may replace the key of the first action.

    Raises :class:`BadRequestError`, with the Dockerfile's line, for everything that can be known before a
    machine boots.
    """
    given, stage = given or Given(), stage or recipe.stages[-1]
    refuse_unknown(recipe, given.arguments)
    planner = _Planner(context, given, recipe, parent_key, parent or ImageConfig(), inherited or {}, sources or {})
    planner.machine, planner.renewed = machine, renewed
    for step in stage.steps:
        planner.take(step)
    base = base_name(recipe, given.arguments, stage)
    key = content_key("root", _FORMAT, planner.key, planner.config.described())
    used = {action.stage for action in planner.actions if isinstance(action, StageCopyAction)}
    if len(used) > MOST_SOURCES:
        raise BadRequestError(
            f"Dockerfile line {stage.line}: the stage copies from more than {MOST_SOURCES} others", field="dockerfile"
        )
    return BuildPlan(
        base, tuple(planner.actions), planner.config, key, planner.key, planner.arguments, tuple(sorted(used))
    )


def refuse_unknown(recipe: Recipe, given: Mapping[str, str]) -> None:
    """Raise :class:`BadRequestError` for a build argument that no ARG of the recipe declares."""
    inside = (step for stage in recipe.stages for step in stage.steps if isinstance(step, instructions.Arg))
    declared = {name for step in (*recipe.arguments, *inside) for name, _ in step.pairs}
    if unknown := sorted(set(given) - declared - _PROXY_ARGUMENTS):
        raise BadRequestError(
            f"the Dockerfile declares no ARG {unknown[0]}", hint=f"add ARG {unknown[0]}", field="build_args"
        )


class _Planner:
    """The state that one instruction hands to the next."""

    def __init__(
        self,
        context: Context,
        given: Given,
        recipe: Recipe,
        key: str,
        config: ImageConfig,
        inherited: Mapping[str, str],
        sources: Mapping[int, str],
    ) -> None:
        self.context, self.given, self.escape = context, given.arguments, recipe.escape
        self.secrets, self.machine = given.secrets, ""
        self.key, self.config, self.sources = key, config, sources
        self.actions: list[Action] = []
        self.predefined = {name: value for name, value in self.given.items() if name in _PROXY_ARGUMENTS}
        self.arguments = dict(inherited)
        self.before_from = before_from(recipe, self.given)
        self.renewed: Callable[[str], str] = str
        self.has_cmd = False
        self.expanded = 0
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
        with at(step.line):
            match step:
                case instructions.Run():
                    self._run(step)
                case Copy():
                    self._copy(step) if step.stage is None else self._copy_from(step, step.stage)
                case instructions.Workdir():
                    self._workdir(step)
                case instructions.Volume():
                    self._volume(step)
                case instructions.Arg():
                    variables = self.variables
                    declare(step, self.arguments, self.given, self.escape, variables, self.before_from)
                case _:
                    self._configure(step)

    def _expand(self, word: str) -> str:
        value = expand(word, self.variables, self.escape)
        self.expanded += len(value)
        if self.expanded > EXPANDED_MAX:
            raise BadRequestError(f"the values of a stage have more than {EXPANDED_MAX >> 20} MiB together")
        return value

    def _next_key(self, *parts: object) -> str:
        key = content_key("action", _FORMAT, self.key, *parts)
        self.key = key if self.actions else self.renewed(key)
        return self.key

    def _run(self, step: instructions.Run) -> None:
        argv, stdin = self._program(step)
        cwd, user = self.config.workdir, self.config.user
        mounts, described = self._mounts(step)
        key = self._next_key("run", self.machine, argv, stdin.decode(), self._recipes_variables, cwd, user, described)
        self.actions.append(RunAction(key, step.line, step.text, argv, self.variables, cwd, user, stdin, mounts))

    def _mounts(self, step: instructions.Run) -> tuple[tuple[Mount, ...], list[object]]:
        """The mounts that the RUN gets, and what the key of its layer says of them.

        Of a secret the id counts, and whether there is one, but not the value. A layer that was made with one may
        hold what it gives access to, so that it is its owner's alone.
        """
        mounts = tuple(mount_of(raw, self._expand, self.config.workdir) for raw in step.mounts)
        refuse_together(mounts)
        there, described = list[Mount](), list[object]()
        for each in mounts:
            missing = isinstance(each, SecretMount) and each.id not in self.secrets
            if isinstance(each, SecretMount) and missing and each.required:
                hint = f"--secret id={each.id},src=FILE"
                raise BadRequestError(f"the build has no secret {each.id}", hint=hint, field="secrets")
            described.append([*each.described(), "missing" if missing else ""])
            if not missing:
                there.append(each)
        return tuple(there), described

    def _program(self, step: instructions.Run) -> tuple[tuple[str, ...], bytes]:
        if not step.script.startswith("#!"):
            return self._argv(step.script or step.command), b""
        interpreter = step.script.partition("\n")[0].removeprefix("#!").split(maxsplit=1)
        if not interpreter:
            raise BadRequestError("the here-document's #! line names no program")
        return (*interpreter, "/dev/stdin"), step.script.encode()

    def _argv(self, command: str | tuple[str, ...]) -> tuple[str, ...]:
        """The shell form runs in the recipe's shell, the exec form as it is."""
        return (*self.config.shell, command) if isinstance(command, str) else command

    def _copy(self, step: Copy) -> None:
        names = [name for word in step.sources for name in self.context.find(self._expand(word))]
        destination = self._absolute(self._expand(step.destination))
        chown, permissions = self._expand(step.owner), permissions_of(self._expand(step.permissions))
        owner = Ownership.parse(chown)
        unpacked = self._archives(names) if step.add else {}
        if permissions is not None and unpacked:
            raise BadRequestError("--chmod does not apply to an archive", hint="COPY it and RUN tar -xf")
        refuse_single(names, destination, self.directories)
        if copied := [name for name in names if name not in unpacked]:
            self._place(step, copied, destination, owner, permissions)
        for path, program, digest in unpacked.values():
            folder, unpacked_owner = posixpath.normpath(destination), owner if chown else None
            described = unpacked_owner and asdict(unpacked_owner)
            key = self._next_key("unpack", program, digest, folder, described)
            self.directories |= {folder, posixpath.dirname(folder)}
            self.actions.append(UnpackAction(key, step.line, step.text, path, program, folder, unpacked_owner))

    def _archives(self, names: Sequence[str]) -> dict[str, tuple[Path, str, str]]:
        """The archives among ``names``: where they are, what decompresses them, and their digests."""
        found = {}
        for name in names:
            source = self.context.source(name)
            if source.kind == "file" and (program := archive_program(source.path)) is not None:
                found[name] = source.path, program, source.digest
        return found

    def _place(
        self, step: Copy, names: Sequence[str], destination: str, owner: Ownership, permissions: int | None
    ) -> None:
        files = place(self.context, names, destination, directories=self.directories)
        described = [(file.target, file.kind, file.permissions, file.digest) for file in files]
        key = self._next_key("copy", described, asdict(owner), permissions, destination)
        self.directories |= {file.target for file in files if file.kind == "directory"}
        self.directories |= {posixpath.dirname(file.target) for file in files}
        self.actions.append(CopyAction(key, step.line, step.text, files, owner, permissions))

    def _copy_from(self, step: Copy, stage: int) -> None:
        sources = tuple(name_in_stage(self._expand(word)) for word in step.sources)
        destination = self._absolute(self._expand(step.destination))
        if len(sources) > 1 and not destination.endswith(("/", "/.")):
            hint = "end the destination with /"
            raise BadRequestError(f"several sources need a folder as destination: {destination}", hint=hint)
        chown = self._expand(step.owner)
        owner = Ownership.parse(chown) if chown else None
        permissions = permissions_of(self._expand(step.permissions))
        described = owner and asdict(owner)
        key = self._next_key("copy from", self.sources[stage], sources, destination, described, permissions)
        if destination.endswith("/"):
            self.directories.add(posixpath.normpath(destination))
        self.directories.add(posixpath.dirname(posixpath.normpath(destination)))
        self.actions.append(StageCopyAction(key, step.line, step.text, stage, sources, destination, owner, permissions))

    def _absolute(self, path: str) -> str:
        """``path`` from the working directory, keeping a trailing slash, which says that it is a folder."""
        if not path:
            raise BadRequestError("the path is empty")
        joined = posixpath.join(self.config.workdir, path)
        if ".." in joined.split("/"):
            joined = posixpath.normpath(joined) + ("/" if joined.endswith("/") else "")
        return joined

    def _workdir(self, step: instructions.Workdir) -> None:
        path = posixpath.normpath(self._absolute(self._expand(step.path)))
        self.config = replace(self.config, workdir=path)
        self._make_directory(step, path)

    def _make_directory(self, step: Step, path: str) -> None:
        if path not in self.directories:
            self.directories.add(path)
            self.actions.append(DirectoryAction(self._next_key("directory", path), step.line, step.text, path))

    def _volume(self, step: instructions.Volume) -> None:
        """Programs find the folder that Docker would have mounted."""
        for word in step.paths:
            path = posixpath.normpath(self._absolute(self._expand(word)))
            if path == "/":
                raise BadRequestError("VOLUME / would be the root itself")
            volumes = dict.fromkeys((*self.config.volumes, path))
            self.config = replace(self.config, volumes=tuple(volumes))
            self._make_directory(step, path)

    def _configure(self, step: Step) -> None:
        config = self.config
        match step:
            case instructions.Env():
                self.config = replace(config, env={**config.env, **self._pairs(step.pairs)})
            case instructions.Label():
                self.config = replace(config, labels={**config.labels, **self._pairs(step.pairs)})
            case instructions.User():
                self.config = replace(config, user=user_of(self._expand(step.user)))
            case instructions.Expose():
                ports = (port_of(self._expand(word)) for word in step.ports)
                self.config = replace(config, exposed=tuple(dict.fromkeys((*config.exposed, *ports))))
            case instructions.Cmd():
                self.has_cmd = True
                self.config = replace(config, cmd=self._argv(step.command) if step.command else ())
            case instructions.Entrypoint():
                entrypoint = self._argv(step.command) if step.command else ()
                self.config = replace(config, entrypoint=entrypoint, cmd=config.cmd if self.has_cmd else ())
            case instructions.Healthcheck():
                self.config = replace(config, healthcheck=healthcheck_of(step))
            case instructions.StopSignal():
                self.config = replace(config, stop_signal=signal_of(self._expand(step.signal)))
            case instructions.Maintainer():
                self.config = replace(config, labels={**config.labels, "maintainer": step.name})
            case instructions.Shell():
                self.config = replace(config, shell=step.argv)
            case _:
                raise TypeError(f"no plan for {type(step).__name__}")

    def _pairs(self, pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
        """All values of one instruction see the variables as they were before it."""
        return {self._expand(name): self._expand(value) for name, value in pairs}
