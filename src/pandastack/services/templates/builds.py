"""Template builds, as reported by the engine that carries them out."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pandastack.cluster import Engines
from pandastack.cluster.builds import EngineBuilds
from pandastack.contract.builds import Build, BuildEvent
from pandastack.errors import BadRequestError, ConflictError, NotFoundError
from pandastack.model.node import LOCAL_NODE

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


class Builds:
    """Starts and follows builds. For now they belong to the engines: every workspace sees the same."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines

    async def start_shipped(self, name: str) -> Build:
        """Build the recipe that the server ships under ``name``."""
        return await self._builder().start_shipped(str(uuid.uuid4()), name)

    async def start_archive(self, archive: bytes | AsyncIterator[bytes]) -> Build:
        """Build the recipe whose folder is in the tar ``archive``; it replaces a template of the same name."""
        return await self._builder().start(str(uuid.uuid4()), archive)

    async def start_dockerfile(self, recipe: DockerfileRecipe, *, replace: bool) -> Build:
        """Build a Dockerfile. Raises :class:`ConflictError` when the name is taken and ``replace`` is not set."""
        archive = recipe_archive(recipe)
        if recipe.name in await self.recipes():
            raise BadRequestError(f"{recipe.name} is a template of the server", field="name", status_code=403)
        if not replace and recipe.name in {each.name for each in await self._engines.at(LOCAL_NODE).templates()}:
            raise ConflictError(
                f"template {recipe.name} exists already", field="name", hint="replace=true builds it anew"
            )
        return await self.start_archive(archive)

    async def recipes(self) -> tuple[str, ...]:
        """The names of the recipes that the server ships, a template's base before it."""
        return await self._builder().recipes()

    async def list(self) -> tuple[Build, ...]:
        """The builds that the engine remembers, newest first."""
        return await self._builder().list()

    async def get(self, build_id: str) -> Build:
        """One build; raises :class:`NotFoundError`."""
        return await self._builder().get(_checked_id(build_id))

    async def cancel(self, build_id: str) -> Build:
        """Cancel a build; one that has ended stays as it is."""
        return await self._builder().cancel(_checked_id(build_id))

    def events(self, build_id: str, *, follow: bool) -> AbstractAsyncContextManager[AsyncGenerator[BuildEvent, None]]:
        """The build's progress so far; with ``follow``, until it ends."""
        return self._builder().events(_checked_id(build_id), follow=follow)

    def _builder(self) -> EngineBuilds:
        """The node that builds templates. Other nodes, once there are any, will fetch them from it."""
        return self._engines.at(LOCAL_NODE).builds


def _checked_id(build_id: str) -> str:
    try:
        return str(uuid.UUID(build_id))
    except ValueError as error:
        raise NotFoundError(f"build not found: {build_id[:64]}") from error
