"""Template builds of one engine: queued, carried out one after the other, followed and cancelled by their ids.

A build belongs to a task of the engine, not to the request that started it. Its record is on disk, so that clients can
see after a restart that it was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import anyio
import structlog
from anyio.abc import TaskGroup

from pandastack.contract import codec
from pandastack.contract.builds import BUILD_MOVES, Build, BuildEnded, BuildEvent, BuildStatus
from pandastack.disks.pool import Pool
from pandastack.engine.build.context_archive import unpack
from pandastack.engine.build.host import BuildHost, OnFailedRun, open_build_host
from pandastack.engine.build.install import install_template
from pandastack.engine.build.log import BuildLog
from pandastack.engine.layout import Layout
from pandastack.engine.work import work_directory
from pandastack.errors import ConflictError, NotFoundError, PandastackError, QuotaError, ServerError
from pandastack.host.files import write_atomically
from pandastack.host.tasks import beside
from pandastack.images.template import TemplateRecipe, load_template

log = structlog.get_logger(__name__)

WAITING_MAX = 32
"""How many builds may wait or run at once."""

REMEMBERED_MAX = 200
"""How many build records are retained; the oldest go first."""

_CUT_OFF = "the engine was stopped before the build had ended"


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
        on_failed_run: OnFailedRun | None = None,
    ) -> None:
        self._layout = layout
        self._pool = pool
        self._recipes = recipes
        self._tasks = tasks
        self._on_failed_run = on_failed_run
        self._records = layout.engine / "builds"
        self._turn = anyio.Lock()
        self._host: BuildHost | None = None
        self._entries: dict[str, _Entry] = {}
        self._load()

    def recipes(self) -> tuple[str, ...]:
        """The names of the recipes that come with the package, a template's base before it."""
        return tuple(self._recipes)

    async def start_shipped(self, build_id: str, name: str) -> Build:
        """Build the recipe that comes with the package under ``name``. Raises :class:`NotFoundError`."""
        if name not in self._recipes:
            hint = f"recipes here: {', '.join(self._recipes)}"
            raise NotFoundError(f"no template recipe {name!r}", hint=hint, field="shipped")
        self._admit(build_id)
        return self._start(build_id, load_template(self._recipes[name]), AsyncExitStack())

    async def start(self, build_id: str, archive: IO[bytes]) -> Build:
        """Build the recipe in a tar archive. An unusable archive is refused before anything starts."""
        self._admit(build_id)
        async with AsyncExitStack() as stack:
            folder = await stack.enter_async_context(work_directory(_made(self._layout.cache / "work"), "recipe"))
            recipe = load_template(await anyio.to_thread.run_sync(unpack, archive, folder))
            return self._start(build_id, recipe, stack.pop_all())

    def _admit(self, build_id: str) -> None:
        if build_id in self._entries:
            raise ConflictError(f"build {build_id} exists already", field="id")
        if sum(not each.build.status.ended for each in self._entries.values()) >= WAITING_MAX:
            raise QuotaError(f"{WAITING_MAX} builds are waiting already", hint="wait for one, or cancel one")

    def _start(self, build_id: str, recipe: TemplateRecipe, files: AsyncExitStack) -> Build:
        entry = _Entry(Build(build_id, recipe.name, BuildStatus.QUEUED, time.time()))
        self._entries[build_id] = entry
        self._write(entry.build)
        self._tasks.start_soon(self._run, entry, recipe, files)
        return entry.build

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

    async def _run(self, entry: _Entry, recipe: TemplateRecipe, files: AsyncExitStack) -> None:
        try:
            async with files:
                with entry.scope:
                    async with self._turn:
                        self._move(entry, BuildStatus.RUNNING)
                        await self._carry_out(entry, recipe)
            if entry.scope.cancelled_caught:
                self._move(entry, BuildStatus.CANCELLED)
        finally:
            if not entry.build.status.ended:
                self._move(entry, BuildStatus.FAILED, error=_CUT_OFF)
            entry.log.add(BuildEnded(entry.build))
            entry.log.close()
            self._forget_old()

    async def _carry_out(self, entry: _Entry, recipe: TemplateRecipe) -> None:
        try:
            host = await self._build_host(entry.log)
            template = (await install_template(host, self._pool, recipe)).template
            self._move(entry, BuildStatus.DONE, version=template.version, size_bytes=template.size_bytes)
        except PandastackError as error:
            if error.public is not None:
                log.error("build.failed", build_id=entry.build.id, error=str(error))
            self._move(entry, BuildStatus.FAILED, error=error.public or str(error))
        except Exception as error:  # one build's fault must not end the engine
            log.error("build.crashed", build_id=entry.build.id, exc_info=error)
            self._move(entry, BuildStatus.FAILED, error=f"internal error: {type(error).__name__}")

    async def _build_host(self, progress: BuildLog) -> BuildHost:
        """The build host. The first build opens it, which fetches the kernel and tries the accelerator."""
        if self._host is None:
            self._host = await open_build_host(self._layout, self._recipes, progress, self._on_failed_run)
        return replace(self._host, progress=progress)

    def _move(self, entry: _Entry, to: BuildStatus, **values: Any) -> None:
        """Change a build's status. Nothing else does."""
        if to not in BUILD_MOVES[entry.build.status]:
            raise ServerError(f"a build cannot go from {entry.build.status} to {to}")
        ended_at = time.time() if to.ended else None
        entry.build = replace(entry.build, status=to, ended_at=ended_at, **values)
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
        for build in self.list()[REMEMBERED_MAX:]:
            if build.status.ended:
                del self._entries[build.id]
                (self._records / f"{build.id}.json").unlink(missing_ok=True)


@asynccontextmanager
async def open_builds(
    layout: Layout, pool: Pool, recipes: Mapping[str, Path], on_failed_run: OnFailedRun | None = None
) -> AsyncIterator[Builds]:
    """Builds of the engine whose data is in ``layout``; leaving the block ends those that have not ended."""
    async with beside() as tasks:
        yield Builds(layout, pool, recipes, tasks, on_failed_run)


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
