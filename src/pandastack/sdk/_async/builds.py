"""Hermetic builds: a command in a machine of its own, and what it made."""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from os import PathLike
from typing import IO, Any

from pandastack.errors import BuildFailedError, PandastackError
from pandastack.sdk._async.following import async_follow_build
from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._builds import (
    Build,
    check_output,
    keep_artifacts,
    keep_lock,
    pack_source,
    raise_event_error,
    read_lock,
    start_build,
)
from pandastack.sdk._runtime import async_append, async_in_thread, async_unpack_tree, spool
from pandastack.sdk.wire.call import Call, segment
from pandastack.sdk.wire.coding import json_object, mapped_transport_errors


class AsyncBuildsAPI:
    """The hermetic builds of the workspace. Builds of templates are at ``client.templates``."""

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def start(
        self,
        folder: str | PathLike[str],
        command: str,
        *,
        template: str = "base",
        artifacts: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        source_date_epoch: int | None = None,
        cpu: int | None = None,
        timeout_seconds: float | None = None,
        verify: bool = False,
        lock: str | None = None,
        record: bool = False,
        refetch: bool = False,
        explain: str | None = None,
    ) -> Build:
        """Start to build a local folder: ``command``, a line for the shell, runs in a copy of it, without a network.

        What it puts into the directory ``$OUT`` becomes the artifacts, and so do ``artifacts``, paths below the folder.
        The guest's clock starts at ``source_date_epoch`` (by default the time of the newest file). With ``verify`` it
        is built twice, in machines that differ, and compared. ``env`` is in the provenance: no place for secrets.

        With ``record`` the build may fetch, and what it fetched is in its :meth:`lock`. With ``lock``, the text of one,
        it gets what that names, without a network. ``refetch`` fetches what the server has not stored any more.

        With ``verify``, ``explain`` names a template that has diffoscope: its :meth:`report` says what differs.

        Raises BadRequestError, TooLargeError, and for too many builds at once BadRequestError with status 429.
        """
        spec = {
            "command": command,
            "template": template,
            "artifacts": list(artifacts),
            "env": dict(env or {}),
            "source_date_epoch": source_date_epoch,
            "cpu": cpu,
            "timeout_seconds": timeout_seconds,
            "verify": verify,
            "record": record,
            "refetch": refetch and lock is not None,
            "explain": explain,
        }
        call = start_build(spec, await async_in_thread(pack_source, folder), lock)
        return Build.from_dict(await self._client.transport.object(call))

    async def run(
        self,
        folder: str | PathLike[str],
        command: str,
        output: str | PathLike[str],
        *,
        on_output: Callable[[str], object] | None = None,
        lock_file: str | PathLike[str] | None = None,
        record: bool = False,
        **options: Any,
    ) -> Build:
        """Build, and put the artifacts into the local folder ``output``, which is empty or does not exist, with
        ``SHA256SUMS`` and ``provenance.json``. ``options`` are those of :meth:`start`.

        A build with a ``lock_file`` that exists is held to that lock. Otherwise, and with ``record``, it may fetch, and
        the lock is written when it has ended well.

        A verified build that differs has the ``status`` ``differs`` and the artifacts of the first build. When the
        program is interrupted, the build is deleted. Raises BuildFailedError, which has the build.
        """
        check_output(output)
        lock, records = await async_in_thread(read_lock, lock_file, record)
        started = await self.start(folder, command, lock=lock, record=records, **options)
        try:
            async with aclosing(self.logs(started.id)) as texts:
                async for text in texts:
                    if on_output is not None:
                        on_output(text)
            ended = await self.get(started.id)
        except BaseException:
            with suppress(PandastackError):
                await self.delete(started.id)
            raise
        if ended.status == "failed":
            raise BuildFailedError(ended.error or "the build failed", build=ended)
        await self.download(ended, output)
        if records and lock_file is not None:
            await async_in_thread(keep_lock, lock_file, await self.lock(ended.id))
        return ended

    async def list(self) -> builtins.list[Build]:
        """The builds that the server keeps, newest first."""
        found = await self._client.transport.list(Call("GET", "/builds"), "builds")
        return [Build.from_dict(each) for each in found]

    async def get(self, build_id: str) -> Build:
        """One build. Raises NotFoundError."""
        return Build.from_dict(await self._client.transport.object(Call("GET", f"/builds/{segment(build_id)}")))

    async def delete(self, build_id: str) -> None:
        """Delete a build with its artifacts; one that runs is cancelled. Raises NotFoundError."""
        await self._client.transport.run(Call("DELETE", f"/builds/{segment(build_id)}"))

    async def logs(self, build_id: str, *, follow: bool = True) -> AsyncGenerator[str, None]:
        """What the build has printed so far, in pieces; with ``follow``, until it ends."""
        path = f"/builds/{segment(build_id)}/logs"
        async with aclosing(async_follow_build(self._client, path, follow=follow)) as events:
            async for event in events:
                if event.name == "output":
                    yield str(json.loads(event.data)["text"])
                elif event.name == "error":
                    raise_event_error(event.data)

    async def lock(self, build_id: str) -> str:
        """The lock that a build has recorded, or was held to. Raises NotFoundError, and ConflictError while it runs."""
        call = Call("GET", f"/builds/{segment(build_id)}/lock")
        return (await self._client.transport.run(call)).text

    async def report(self, build_id: str) -> str:
        """What diffoscope says of a verified build that differs. Raises NotFoundError without ``explain``."""
        return (await self._client.transport.run(Call("GET", f"/builds/{segment(build_id)}/report"))).text

    async def provenance(self, build_id: str) -> dict[str, Any]:
        """Where the artifacts come from: an in-toto Statement v1 with SLSA provenance v1. Raises NotFoundError."""
        return json_object(await self._client.transport.run(Call("GET", f"/builds/{segment(build_id)}/provenance")))

    async def download(self, build: Build, output: str | PathLike[str]) -> None:
        """Put the artifacts of a build that has ended into the local folder ``output``, which is empty or does not
        exist, and add ``SHA256SUMS`` and ``provenance.json``. Every file is compared with the provenance.

        Raises OSError, BadRequestError, ConflictError for a build that runs, NotFoundError for one that failed.
        """
        check_output(output)
        statement = await self.provenance(build.id)
        with spool() as archive:
            await self._fetch(archive, build.id, {})
            await async_in_thread(keep_artifacts, build, archive, statement, output)

    async def download_second(self, build: Build, output: str | PathLike[str]) -> None:
        """Put what the second build of one that differs made into the local folder ``output``, which is empty or does
        not exist."""
        check_output(output)
        with spool() as archive:
            await self._fetch(archive, build.id, {"second": "1"})
            await async_unpack_tree(archive, output)

    async def _fetch(self, into: IO[bytes], build_id: str, params: Mapping[str, str]) -> None:
        call = Call("GET", f"/builds/{segment(build_id)}/artifacts", params=dict(params), streamed=True)
        async with aclosing(await self._client.transport.run(call)) as response:
            pieces = response.aiter_bytes()
            while True:
                with mapped_transport_errors(self._client.api_url):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                await async_append(into, piece)
