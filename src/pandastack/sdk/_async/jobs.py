"""CI jobs: each in a fresh machine, which is a copy of its pool's prepared one."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from os import PathLike
from typing import Any, cast

from pandastack.errors import PandastackError
from pandastack.sdk._async.following import async_follow_build
from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._jobs import Job, create_job, one_job, printed, retry_job
from pandastack.sdk._runtime import async_append, async_unpack_tree, spool
from pandastack.sdk.wire.call import Call, segment
from pandastack.sdk.wire.coding import mapped_transport_errors


class AsyncJobsAPI:
    """The jobs of the workspace."""

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def create(
        self,
        pool: str | None,
        steps: str | Sequence[str],
        *,
        labels: Sequence[str] | None = None,
        ref: str | None = None,
        trusted: bool = False,
        env: Mapping[str, str] | None = None,
        artifacts: Sequence[str] = (),
        deadline_seconds: float | None = None,
        stdin: bytes | None = None,
        keep_seconds: int = 0,
        checkpoint: bool = False,
        idempotency_key: str | None = None,
    ) -> Job:
        """Add a job to the queue of a pool: commands for the shell, which run in turn until one fails.

        Without a ``pool``, ``labels`` find one that has them all. ``ref`` is checked out first, of the pool's
        repository. ``artifacts`` are paths that are copied out, of a job that failed too. Only a ``trusted`` one has
        the secrets of the pool. ``stdin`` is the input of the first command, and never stored. When the job fails, its
        machine is kept as a sandbox that is deleted when it was not used for ``keep_seconds``. With ``checkpoint`` the
        machine is captured before each step but the first, and :meth:`retry` can begin with the step that failed.

        Raises BadRequestError with the field, NotFoundError, QuotaError, and ConflictError for an unprepared pool.
        """
        wanted: dict[str, Any] = {
            "pool": pool,
            "labels": None if labels is None else list(labels),
            "steps": [steps] if isinstance(steps, str) else list(steps),
            "ref": ref,
            "trusted": trusted,
            "env": dict(env or {}),
            "artifacts": list(artifacts),
            "deadline_seconds": deadline_seconds,
            "keep_seconds": keep_seconds,
            "checkpoint": checkpoint,
        }
        return await self._job(create_job(wanted, stdin, idempotency_key))

    async def run(
        self,
        pool: str | None,
        steps: str | Sequence[str],
        *,
        on_output: Callable[[str, str], object] | None = None,
        **options: Any,
    ) -> Job:
        """Run a job to its end, whatever that is; ``options`` are those of :meth:`create`. ``on_output`` is given the
        stream's name and the text. When the program is interrupted, the job is cancelled."""
        job = await self.create(pool, steps, **options)
        return await self._followed(job, on_output)

    async def retry(
        self,
        job_id: str,
        *,
        from_step: int = 0,
        wait: bool = False,
        on_output: Callable[[str, str], object] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Do what a job that has ended did once more; returns the job that does it, with ``wait`` once it has ended.

        It begins in the pool's prepared machine, or with ``from_step`` in the machine as it was before that: besides 0,
        this may be ``checkpoint_step`` of the job. ``on_output`` and interruptions as for :meth:`run`.

        Raises NotFoundError, BadRequestError for another step, ConflictError for a job that has not ended or that had
        an input, QuotaError.
        """
        job = await self._job(retry_job(job_id, from_step, idempotency_key))
        return await self._followed(job, on_output) if wait else job

    async def list(self, pool: str | None = None, *, limit: int = 100) -> builtins.list[Job]:
        """The newest jobs that the server keeps, at most ``limit``, of one pool if it is named."""
        params: dict[str, str | builtins.list[str]] = {"limit": str(limit)}
        if pool is not None:
            params["pool"] = pool
        found = await self._client.transport.list(Call("GET", "/jobs", params=params), "jobs")
        return cast("builtins.list[Job]", found)

    async def get(self, job_id: str) -> Job:
        """One job. Raises NotFoundError."""
        return await self._job(one_job("GET", job_id))

    async def cancel(self, job_id: str) -> Job:
        """End a job that has not ended; its machine is gone when this returns. Raises NotFoundError."""
        return await self._job(one_job("POST", job_id, "/cancel"))

    async def delete(self, job_id: str) -> None:
        """Delete a job with its log and artifacts; one that has not ended is cancelled. Raises NotFoundError."""
        await self._client.transport.run(one_job("DELETE", job_id))

    async def logs(self, job_id: str, *, follow: bool = True) -> AsyncGenerator[tuple[str, str], None]:
        """What the job printed, in pieces: the stream's name and text. With ``follow``, until the job has ended."""
        path = f"/jobs/{segment(job_id)}/logs"
        async with aclosing(async_follow_build(self._client, path, follow=follow, what="job")) as events:
            async for event in events:
                if (piece := printed(event)) is not None:
                    yield piece

    async def download(self, job_id: str, output: str | PathLike[str]) -> None:
        """Put the artifacts of a job that has ended into a local folder, which is made.

        Raises OSError, ConflictError for a job that has not ended, NotFoundError when there are none.
        """
        call = Call("GET", f"/jobs/{segment(job_id)}/artifacts", streamed=True)
        with spool() as archive:
            async with aclosing(await self._client.transport.run(call)) as response:
                pieces = response.aiter_bytes()
                while True:
                    with mapped_transport_errors(self._client.api_url):
                        piece = await anext(pieces, None)
                    if piece is None:
                        break
                    await async_append(archive, piece)
            await async_unpack_tree(archive, output)

    async def _followed(self, job: Job, on_output: Callable[[str, str], object] | None) -> Job:
        """The job once it has ended. It is cancelled when the program is interrupted."""
        try:
            async with aclosing(self.logs(job["id"])) as pieces:
                async for stream, text in pieces:
                    if on_output is not None:
                        on_output(stream, text)
            return await self.get(job["id"])
        except BaseException:
            with suppress(PandastackError):
                await self.cancel(job["id"])
            raise

    async def _job(self, call: Call) -> Job:
        return cast(Job, await self._client.transport.object(call))
