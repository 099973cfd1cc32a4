"""Template builds of one engine, over its HTTP interface."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from pandastack.cluster.connection import EngineConnection, whole
from pandastack.contract.builds import Build, BuildEvent, BuildOptions
from pandastack.contract.codec import decode_answer, encode

_DEFAULT = BuildOptions()


class EngineBuilds:
    """The ``builds`` of :class:`~pandastack.cluster.EngineClient`; the methods raise the same errors."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection

    async def recipes(self) -> tuple[str, ...]:
        """The names of the recipes that come with the engine, a template's base before it."""
        return await self._connection.ask(tuple[str, ...], "GET", "/recipes")

    async def start_shipped(self, build_id: str, name: str, options: BuildOptions = _DEFAULT) -> Build:
        """Build a recipe that comes with the engine."""
        return await self._start(build_id, _body(options), {"shipped": name})

    async def start(
        self, build_id: str, archive: bytes | AsyncIterator[bytes], options: BuildOptions = _DEFAULT
    ) -> Build:
        """Build the recipe in a tar archive. Returns once the recipe has been accepted; the build keeps running."""
        return await self._start(build_id, _body(options, archive), {})

    async def _start(self, build_id: str, body: AsyncIterator[bytes], params: Mapping[str, str]) -> Build:
        async with self._connection.stream("POST", f"/builds/{build_id}", content=body, params=params) as response:
            return decode_answer(Build, await whole(response))

    async def list(self) -> tuple[Build, ...]:
        """The builds of all owners that the engine remembers, newest first."""
        return await self._connection.ask(tuple[Build, ...], "GET", "/builds")

    async def get(self, build_id: str) -> Build:
        """One build."""
        return await self._connection.ask(Build, "GET", f"/builds/{build_id}")

    async def cancel(self, build_id: str) -> Build:
        """Cancel a build; one that has ended stays as it is."""
        return await self._connection.ask(Build, "DELETE", f"/builds/{build_id}")

    @asynccontextmanager
    async def events(self, build_id: str, *, follow: bool) -> AsyncIterator[AsyncGenerator[BuildEvent, None]]:
        """The build's progress so far; with ``follow``, until it ends."""
        params = {"follow": "1"} if follow else {}
        async with self._connection.stream("GET", f"/builds/{build_id}/events", params=params) as response:
            yield _events(response)


async def _body(options: BuildOptions, archive: bytes | AsyncIterator[bytes] = b"") -> AsyncIterator[bytes]:
    """The options in a line, where no log of requests has them, and the archive."""
    yield encode(options) + b"\n"
    if isinstance(archive, bytes):
        yield archive
        return
    async for piece in archive:
        yield piece


async def _events(response: httpx.Response) -> AsyncGenerator[BuildEvent, None]:
    async for line in response.aiter_lines():
        if line:
            yield decode_answer(BuildEvent, line)
