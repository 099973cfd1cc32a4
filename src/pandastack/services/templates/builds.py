"""Template builds, as reported by the engine that carries them out."""

from __future__ import annotations

import io
import tarfile
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import structlog
from anyio.abc import TaskGroup

from pandastack.cluster import Engines
from pandastack.cluster.builds import EngineBuilds
from pandastack.contract.builds import Build, BuildEnded, BuildEvent, BuildOptions
from pandastack.errors import BadRequestError, ForbiddenError, NotFoundError, PandastackError
from pandastack.model.caller import Caller
from pandastack.model.node import LOCAL_NODE
from pandastack.model.webhooks import Occurrence
from pandastack.services.records.outbox import Outbox
from pandastack.services.templates.owners import EVERYBODY, owner_of, workspace_of

CONTEXT_MAX = 50 * 1024 * 1024
"""Largest build context, in bytes: the files that a Dockerfile may copy."""


@dataclass(frozen=True)
class DockerfileRecipe:
    """A template described by a request. Sizes are in MiB; ``files`` are the build's context, by relative path."""

    name: str
    dockerfile: str
    cpu: int = 1
    memory_mb: int = 1024
    disk_mb: int = 1024
    files: Mapping[str, bytes] = field(default_factory=dict)


def recipe_archive(recipe: DockerfileRecipe) -> bytes:
    """The recipe as a tar of its folder. A context's own ``Dockerfile`` and ``template.toml`` are replaced.

    Raises :class:`BadRequestError` for a file that would lie outside the folder.
    """
    settings = (
        f'name = "{recipe.name}"\ncpu = {recipe.cpu}\nmemory_mb = {recipe.memory_mb}\ndisk_mb = {recipe.disk_mb}\n'
    )
    own = {"Dockerfile": recipe.dockerfile.encode(), "template.toml": settings.encode()}
    if sum(map(len, recipe.files.values())) > CONTEXT_MAX:
        raise BadRequestError(f"the build context is larger than {CONTEXT_MAX >> 20} MiB", field="files")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in {**{_checked(name): data for name, data in recipe.files.items()}, **own}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def _checked(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or len(name) > 1024:
        raise BadRequestError(f"files: {name[:64]!r} is not a path below the build context", field="files")
    return str(path)


_DEFAULT = BuildOptions()
_TOLD_AGAIN = 3600.0
"""Seconds: builds that ended so long before a start are told of again, in case the former server had no time to."""
_LONGEST_ERROR = 2000

log = structlog.get_logger(__name__)


class Builds:
    """Starts and follows builds. Every call names the caller; another workspace's build is not found."""

    def __init__(self, engines: Engines, outbox: Outbox, tasks: TaskGroup) -> None:
        self._engines = engines
        self._outbox = outbox
        self._tasks = tasks

    async def start_shipped(self, caller: Caller, name: str, options: BuildOptions = _DEFAULT) -> Build:
        """Build the recipe that the server ships under ``name``, for every workspace. Raises :class:`ForbiddenError`
        unless the caller is the operator."""
        if owner_of(caller.workspace) != EVERYBODY:
            raise ForbiddenError("shipped: the operator builds the templates of the server", field="shipped")
        return self._watched(await self._builder().start_shipped(str(uuid.uuid4()), name, options))

    async def start_archive(
        self, caller: Caller, archive: bytes | AsyncIterator[bytes], options: BuildOptions = _DEFAULT
    ) -> Build:
        """Build the recipe whose folder is in the tar ``archive``.

        It replaces the caller's template of the same name; with an option, :class:`ConflictError` refuses that. Raises
        :class:`ForbiddenError` for a name that means one of everybody's templates, :class:`QuotaError`.
        """
        options = replace(options, owner=owner_of(caller.workspace))
        return self._watched(await self._builder().start(str(uuid.uuid4()), archive, options))

    async def start_dockerfile(
        self, caller: Caller, recipe: DockerfileRecipe, options: BuildOptions = _DEFAULT
    ) -> Build:
        """Build a Dockerfile; the same errors. Not even the operator builds a shipped template in this way."""
        archive = recipe_archive(recipe)
        if recipe.name in await self.recipes():
            raise ForbiddenError(f"name: {recipe.name} is a template of the server", field="name")
        return await self.start_archive(caller, archive, options)

    async def recipes(self) -> tuple[str, ...]:
        """The names of the recipes that the server ships, a template's base before it."""
        return await self._builder().recipes()

    async def list(self, caller: Caller) -> tuple[Build, ...]:
        """The caller's builds that the engine remembers, newest first."""
        mine = owner_of(caller.workspace)
        return tuple(each for each in await self._builder().list() if each.owner == mine)

    async def get(self, caller: Caller, build_id: str) -> Build:
        """One build; raises :class:`NotFoundError`."""
        build = await self._builder().get(_checked_id(build_id))
        if build.owner != owner_of(caller.workspace):
            raise _unknown(build_id)
        return build

    async def cancel(self, caller: Caller, build_id: str) -> Build:
        """Cancel a build; one that has ended stays as it is."""
        return await self._builder().cancel((await self.get(caller, build_id)).id)

    @asynccontextmanager
    async def events(
        self, caller: Caller, build_id: str, *, follow: bool
    ) -> AsyncIterator[AsyncGenerator[BuildEvent, None]]:
        """The build's progress so far; with ``follow``, until it ends."""
        build = await self.get(caller, build_id)
        async with self._builder().events(build.id, follow=follow) as events:
            yield events

    async def watch_all(self) -> None:
        """Watch the builds of an earlier server until they end, and tell of those that ended while there was none."""
        try:
            for build in await self._builder().list():
                if not build.status.ended:
                    self._watched(build)
                elif (build.ended_at or 0.0) > time.time() - _TOLD_AGAIN:
                    await self._outbox.publish(ended(build))
        except PandastackError as error:
            log.warning("builds.not_watched", reason=error.message)

    def _watched(self, build: Build) -> Build:
        self._tasks.start_soon(self._watch, build.id)
        return build

    async def _watch(self, build_id: str) -> None:
        """Tell webhooks when a build has ended. When its events break off, the next start does."""
        try:
            async with self._builder().events(build_id, follow=True) as events:
                async for event in events:
                    if isinstance(event, BuildEnded):
                        await self._outbox.publish(ended(event.build))
        except PandastackError as error:
            log.warning("build.not_watched", build=build_id, reason=error.message)

    def _builder(self) -> EngineBuilds:
        """The node that builds templates. Other nodes, once there are any, will fetch them from it."""
        return self._engines.at(LOCAL_NODE).builds


def ended(build: Build) -> Occurrence:
    """What webhooks are told of a build that has ended. It is the same however often it is told."""
    data: dict[str, Any] = {"id": build.id, "kind": "template", "template": build.template, "status": build.status}
    data |= {"error": (build.error or "")[:_LONGEST_ERROR] or None, "version": build.version}
    at = time.time() if build.ended_at is None else build.ended_at
    return Occurrence(workspace_of(build.owner), "build.ended", build.id, data, key="ended", at=at)


def _checked_id(build_id: str) -> str:
    try:
        return str(uuid.UUID(build_id))
    except ValueError as error:
        raise _unknown(build_id) from error


def _unknown(build_id: str) -> NotFoundError:
    return NotFoundError(f"build not found: {build_id[:64]}")
