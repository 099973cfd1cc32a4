"""Template builds of one engine: queued, carried out a few at once, followed and cancelled by their ids.

A build belongs to a task of the engine, not to the request that started it. Its record is on disk, so that clients can
see after a restart that it was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.contract import codec
from pandastack.contract.builds import BUILD_MOVES, Build, BuildEnded, BuildEvent, BuildOptions, BuildStatus
from pandastack.disks.pool import Pool
from pandastack.engine.build.context_archive import unpack
from pandastack.engine.build.host import BuildHost, OnFailedRun, open_build_host
from pandastack.engine.build.install import install_template
from pandastack.engine.build.log import BuildLog
from pandastack.engine.build.queue import BuildQueue
from pandastack.engine.build.resources import UNLIMITED, MachineResources
from pandastack.engine.build.shares import DEFAULT_SHARES, Shares, forgettable, refuse_shadow
from pandastack.engine.build.space import RESERVE, full, fullest
from pandastack.engine.layout import Layout, open_runtime_directory
from pandastack.engine.machines.host_network import HostNetwork, open_build_network
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.engine.settings import Settings
from pandastack.engine.work import work_directory
from pandastack.errors import ConflictError, NotFoundError, PandastackError, ServerError, StorageFullError
from pandastack.host.files import map_error, write_atomically
from pandastack.host.tasks import beside
from pandastack.images.given import Given
from pandastack.images.template import TemplateRecipe, load_template

log = structlog.get_logger(__name__)

DEFAULT = BuildOptions()

_WAITING = "wait for a turn"

_CUT_OFF = "the engine was stopped before the build had ended"


Work = Callable[[BuildHost], Awaitable[Origin]]
"""What a build does: it installs a template, and returns it."""


@dataclass
class _Entry:
    build: Build
    log: BuildLog = field(default_factory=BuildLog)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Builds:
    """The builds of one engine. Made by :func:`open_builds`; it lives as long as that block."""

    def __init__(
        self,
        layout: Layout,
        pool: Pool,
        recipes: Mapping[str, Path],
        tasks: TaskGroup,
        network: HostNetwork,
        on_failed_run: OnFailedRun | None = None,
        *,
        shares: Shares = DEFAULT_SHARES,
        most: int = 1,
        resources: MachineResources = UNLIMITED,
    ) -> None:
        self._layout = layout
        self._pool = pool
        self._recipes = recipes
        self._tasks = tasks
        self._network = network
        self._on_failed_run = on_failed_run
        self._shares = shares
        self._templates = Templates(layout.templates, pool)
        self._records = layout.engine / "builds"
        self._queue = BuildQueue(most)
        self._resources = resources
        self._opening = anyio.Lock()
        self._host: BuildHost | None = None
        self._entries: dict[str, _Entry] = {}
        self._load()

    def recipes(self) -> tuple[str, ...]:
        """The names of the recipes that come with the package, a template's base before it."""
        return tuple(self._recipes)

    async def start_shipped(self, build_id: str, name: str, options: BuildOptions = DEFAULT) -> Build:
        """Build the recipe that comes with the package under ``name``. Raises :class:`NotFoundError`."""
        if name not in self._recipes:
            hint = f"recipes here: {', '.join(self._recipes)}"
            raise NotFoundError(f"no template recipe {name!r}", hint=hint, field="shipped")
        return await self.start_folder(build_id, self._recipes[name], options)

    async def start_folder(self, build_id: str, folder: Path, options: BuildOptions = DEFAULT) -> Build:
        """Build the recipe in a folder of the operator's, whose declared packages may be installed on the host."""
        recipe = load_template(folder, trusted=True, target=options.target, given=_given(options))
        return self._start(build_id, recipe, AsyncExitStack(), options)

    async def start(self, build_id: str, archive: IO[bytes], options: BuildOptions = DEFAULT) -> Build:
        """Build the recipe in a tar archive that a client has sent: all that it installs runs in a machine.

        An unusable archive is refused before anything starts.
        """
        self._shares.check_builds(self.list(), options.owner)
        async with AsyncExitStack() as stack:
            folder = await stack.enter_async_context(work_directory(_made(self._layout.cache / "work"), "recipe"))
            place = await anyio.to_thread.run_sync(unpack, archive, folder)
            recipe = load_template(place, target=options.target, given=_given(options))
            recipe = replace(recipe, owner=options.owner)
            return self._start(build_id, recipe, stack.pop_all(), options)

    def _start(self, build_id: str, recipe: TemplateRecipe, files: AsyncExitStack, options: BuildOptions) -> Build:
        """Register the build and begin it. Nothing is awaited between the checks and the entry that they count."""
        self._admit(build_id, recipe, options)
        entry = _Entry(Build(build_id, recipe.name, BuildStatus.QUEUED, time.time(), owner=recipe.owner))
        self._entries[build_id] = entry
        self._write(entry.build)
        install = partial(
            install_template,
            pool=self._pool,
            recipe=recipe,
            anew=options.no_cache,
            credentials=options.credentials,
        )
        self._tasks.start_soon(self._run, entry, install, files)
        return entry.build

    def start_work(self, build_id: str, name: str, work: Work, owner: str = "") -> Build:
        """Have ``work`` install the template ``name`` of ``owner``, in its turn among the builds."""
        entry = self._entries[build_id] = _Entry(Build(build_id, name, BuildStatus.QUEUED, time.time(), owner=owner))
        self._write(entry.build)
        self._tasks.start_soon(self._run, entry, work, AsyncExitStack())
        return entry.build

    def _admit(self, build_id: str, recipe: TemplateRecipe, options: BuildOptions) -> None:
        if build_id in self._entries:
            raise ConflictError(f"build {build_id} exists already", field="id")
        builds, templates = self.list(), self._templates.list()
        self._shares.check_builds(builds, recipe.owner)
        self._shares.check_templates(templates, builds, recipe)
        if recipe.owner:
            refuse_shadow(recipe, self._recipes, self._templates)
        if not options.replace and self._templates.find(recipe.name, recipe.owner):
            hint = "replace=true builds it anew"
            raise ConflictError(f"template {recipe.name} exists already", field="name", hint=hint)

    def list(self) -> list[Build]:
        """All builds whose records are retained, the newest first."""
        return sorted((each.build for each in self._entries.values()), key=lambda each: -each.started_at)

    def get(self, build_id: str) -> Build:
        """One build; raises :class:`NotFoundError`."""
        return self._entry(build_id).build

    def read(self, build_id: str, *, follow: bool) -> AsyncIterator[BuildEvent]:
        """The events of the build so far; with ``follow``, those to come too, until it ends."""
        return self._entry(build_id).log.read(follow=follow)

    def cancel(self, build_id: str) -> Build:
        """Cancel the build; a finished one stays as it is. Its machines are gone when its events end."""
        entry = self._entry(build_id)
        if not entry.build.status.ended:
            entry.scope.cancel()
        return entry.build

    async def _run(self, entry: _Entry, work: Work, files: AsyncExitStack) -> None:
        try:
            async with files:
                with entry.scope:
                    async with self._queue.turn(entry.build.owner, partial(self._wait, entry)):
                        if entry.build.ahead is not None:
                            entry.log.end(_WAITING, time.time() - entry.build.started_at, "")
                        self._move(entry, BuildStatus.RUNNING)
                        await self._carry_out(entry, work)
            if entry.scope.cancelled_caught:
                self._move(entry, BuildStatus.CANCELLED)
        finally:
            if not entry.build.status.ended:
                self._move(entry, BuildStatus.FAILED, error=_CUT_OFF)
            entry.log.add(BuildEnded(entry.build))
            entry.log.close()
            self._forget_old()

    def _wait(self, entry: _Entry, ahead: int) -> None:
        """The build does not run yet: say what it waits for."""
        if entry.build.ahead is None:
            entry.log.begin(_WAITING)
        if entry.build.ahead != ahead:
            entry.build = replace(entry.build, ahead=ahead)
            entry.log.line(f"{self._queue.running} builds run, and {ahead} more come before this one")

    async def _carry_out(self, entry: _Entry, work: Work) -> None:
        try:
            template = (await work(await self.open_host(entry.log))).template
            self._move(entry, BuildStatus.DONE, version=template.version, size_bytes=template.size_bytes)
        except StorageFullError as error:
            log.error("build.out_of_space", build_id=entry.build.id, error=str(error))
            self._move(entry, BuildStatus.FAILED, error=self._out_of_space(error).message)
        except PandastackError as error:
            if error.public is not None:
                log.error("build.failed", build_id=entry.build.id, error=str(error))
            self._move(entry, BuildStatus.FAILED, error=error.public or _told(error))
        except OSError as error:
            mapped = map_error(error, self._layout.cache)
            shown = self._out_of_space(mapped) if isinstance(mapped, StorageFullError) else mapped
            log.error("build.failed", build_id=entry.build.id, error=str(error))
            self._move(entry, BuildStatus.FAILED, error=shown.public or shown.message)
        except Exception as error:  # one build's fault must not end the engine
            log.error("build.crashed", build_id=entry.build.id, exc_info=error)
            self._move(entry, BuildStatus.FAILED, error=f"internal error: {type(error).__name__}")

    def _out_of_space(self, error: StorageFullError) -> StorageFullError:
        """The error with figures. Where a write failed, the file system that has the least space left is meant."""
        if error.public is None:
            return error
        return full(fullest(self._layout.cache, self._pool.directory), RESERVE, "the build")

    async def open_host(self, progress: BuildLog) -> BuildHost:
        """The build host. The first build opens it, which fetches the kernel and tries the accelerator."""
        async with self._opening:
            if self._host is None:
                self._host = await open_build_host(
                    self._layout, self._recipes, progress, self._network, self._on_failed_run, self._resources
                )
        return replace(self._host, progress=progress)

    def _move(self, entry: _Entry, to: BuildStatus, **values: Any) -> None:
        """Change a build's status. Nothing else does."""
        if to not in BUILD_MOVES[entry.build.status]:
            raise ServerError(f"a build cannot go from {entry.build.status} to {to}")
        ended_at = time.time() if to.ended else None
        entry.build = replace(entry.build, status=to, ended_at=ended_at, ahead=None, **values)
        self._write(entry.build)

    def _entry(self, build_id: str) -> _Entry:
        try:
            return self._entries[build_id]
        except KeyError:
            raise NotFoundError(f"build not found: {build_id[:64]}") from None

    def _load(self) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        for path in self._records.glob("*.json"):
            try:
                build = codec.decode_answer(Build, path.read_bytes())
            except (OSError, PandastackError):
                path.unlink(missing_ok=True)
                continue
            entry = self._entries[build.id] = _Entry(build)
            if not build.status.ended:
                self._move(entry, BuildStatus.FAILED, error=_CUT_OFF)
            entry.log.add(BuildEnded(entry.build))
            entry.log.close()
        self._forget_old()

    def _write(self, build: Build) -> None:
        write_atomically(self._records / f"{build.id}.json", codec.encode(build))

    def _forget_old(self) -> None:
        for build in forgettable(self.list()):
            del self._entries[build.id]
            (self._records / f"{build.id}.json").unlink(missing_ok=True)


def _told(error: PandastackError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


@asynccontextmanager
async def open_builds(
    layout: Layout, pool: Pool, recipes: Mapping[str, Path], on_failed_run: OnFailedRun | None = None
) -> AsyncIterator[Builds]:
    """Builds of the engine whose data is in ``layout``; leaving the block ends those that have not ended."""
    open_runtime_directory()
    settings = Settings.from_env()
    async with open_build_network(layout, settings) as network, beside() as tasks:
        yield Builds(layout, pool, recipes, tasks, network, on_failed_run, most=settings.builds)


def _given(options: BuildOptions) -> Given:
    return Given(options.arguments, options.secrets)


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
