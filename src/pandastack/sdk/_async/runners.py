"""Runner pools: prepared snapshots that the machines of CI jobs are made of."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from os import PathLike
from typing import Any, cast

from pandastack.sdk._async.following import async_follow_build
from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._async.sandbox import AsyncSandbox
from pandastack.sdk._builds import pack_source
from pandastack.sdk._jobs import RunnerPool, check_prepared, one_pool, pool_sandbox, printed, refresh_pool
from pandastack.sdk._runtime import async_in_thread
from pandastack.sdk.wire.call import Call, segment


class AsyncRunnersAPI:
    """The runner pools of the workspace. Their jobs are at ``client.jobs``."""

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def put(
        self,
        name: str,
        *,
        template: str = "base",
        prepare: Sequence[str] = (),
        git: str | None = None,
        ref: str | None = None,
        directory: str = "/workspace",
        env: Mapping[str, str] | None = None,
        labels: Sequence[str] = (),
        concurrency: int = 2,
        job_seconds: float = 3600.0,
        prepare_seconds: float = 3600.0,
        network: str | Mapping[str, Any] | None = None,
        cpu: int | None = None,
        memory_mb: int | None = None,
        disk_gb: int | None = None,
        github: str | Mapping[str, Any] | None = None,
        refresh: str | None = None,
        timezone: str = "UTC",
    ) -> RunnerPool:
        """Make a pool, or change one; :meth:`refresh` prepares it.

        Its checkout is that of the repository ``git`` at ``ref``, or the folder that a refresh uploads. Then the
        commands ``prepare`` run there once, and the machine is captured. ``concurrency`` jobs run at once; the secrets
        of its ``network`` policy are for trusted jobs only. ``env`` is that of all commands: no place for secrets.

        ``github`` is a repository (OWNER/NAME) or an organization whose jobs of Actions run here, those that have
        ``labels``; or a dictionary with ``scope`` and more. At the times of the cron expression ``refresh`` in
        ``timezone`` the pool is prepared anew.

        Raises BadRequestError with the field.
        """
        source = None if git is None else {"url": git, "ref": ref or "HEAD"}
        wanted = {
            "template": template,
            "prepare": list(prepare),
            "git": source,
            "directory": directory,
            "env": dict(env or {}),
            "labels": list(labels),
            "concurrency": concurrency,
            "job_seconds": job_seconds,
            "prepare_seconds": prepare_seconds,
            "network": network,
            "cpu": cpu,
            "memory_mb": memory_mb,
            "disk_gb": disk_gb,
            "github": {"scope": github} if isinstance(github, str) else github,
            "refresh": refresh,
            "timezone": timezone,
        }
        return await self._pool(one_pool("PUT", name, wanted=wanted))

    async def refresh(
        self,
        name: str,
        folder: str | PathLike[str] | None = None,
        *,
        wait: bool = True,
        on_output: Callable[[str, str], object] | None = None,
    ) -> RunnerPool:
        """Prepare a new version, of a local ``folder`` as its checkout; without one, of the one before, or of the
        repository. Jobs are made of the former version until then.

        ``on_output`` is given the stream's name and the text. Raises BuildFailedError, whose ``build`` is the pool;
        ConflictError while it is being prepared.
        """
        source = None if folder is None else await async_in_thread(pack_source, folder)
        pool = await self._pool(refresh_pool(name, source))
        if not wait:
            return pool
        async with aclosing(self.logs(name)) as pieces:
            async for stream, text in pieces:
                if on_output is not None:
                    on_output(stream, text)
        return check_prepared(await self.get(name))

    async def list(self) -> builtins.list[RunnerPool]:
        """All pools, oldest first."""
        return cast(
            "builtins.list[RunnerPool]", await self._client.transport.list(Call("GET", "/runner-pools"), "pools")
        )

    async def get(self, name: str) -> RunnerPool:
        """One pool. Raises NotFoundError."""
        return await self._pool(one_pool("GET", name))

    async def delete(self, name: str) -> None:
        """Delete a pool. Its jobs that have not ended are cancelled. Raises NotFoundError."""
        await self._client.transport.run(one_pool("DELETE", name))

    async def logs(self, name: str, *, follow: bool = True) -> AsyncGenerator[tuple[str, str], None]:
        """What the last refresh printed, in pieces: the stream's name and text. With ``follow``, until it has ended."""
        path = f"/runner-pools/{segment(name)}/logs"
        async with aclosing(async_follow_build(self._client, path, follow=follow, what="refresh")) as events:
            async for event in events:
                if (piece := printed(event)) is not None:
                    yield piece

    async def sandbox(
        self,
        name: str,
        *,
        trusted: bool = False,
        ttl_seconds: int | None = None,
        max_lifetime_seconds: int | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncSandbox:
        """Create a sandbox of the prepared version: to look into it, or for a runner of another system.

        Only a ``trusted`` one has the secrets of the pool. Raises ConflictError for a pool without a version.
        """
        wanted = {
            "trusted": trusted,
            "ttl_seconds": ttl_seconds,
            "max_lifetime_seconds": max_lifetime_seconds,
            "metadata": metadata,
        }
        made = await self._client.transport.object(pool_sandbox(name, wanted, idempotency_key))
        return AsyncSandbox.from_dict(made, self._client)

    async def _pool(self, call: Call) -> RunnerPool:
        return cast(RunnerPool, await self._client.transport.object(call))
