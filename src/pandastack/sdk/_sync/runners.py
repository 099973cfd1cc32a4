# Generated from ../_async/runners.py by scripts/generate_sync.py: change that file, not this one.
"""Runner pools: prepared snapshots that the machines of CI jobs are made of."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from os import PathLike
from typing import Any, cast

from pandastack.sdk._builds import pack_source
from pandastack.sdk._jobs import RunnerPool, check_prepared, one_pool, pool_sandbox, printed, refresh_pool
from pandastack.sdk._runtime import in_thread
from pandastack.sdk._sync.following import follow_build
from pandastack.sdk._sync.interfaces import Connection
from pandastack.sdk._sync.sandbox import Sandbox
from pandastack.sdk.wire.call import Call, segment


class RunnersAPI:
    """The runner pools of the workspace. Their jobs are at ``client.jobs``."""

    def __init__(self, client: Connection) -> None:
        self._client = client

    def put(
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
        return self._pool(one_pool("PUT", name, wanted=wanted))

    def refresh(
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
        source = None if folder is None else in_thread(pack_source, folder)
        pool = self._pool(refresh_pool(name, source))
        if not wait:
            return pool
        with closing(self.logs(name)) as pieces:
            for stream, text in pieces:
                if on_output is not None:
                    on_output(stream, text)
        return check_prepared(self.get(name))

    def list(self) -> builtins.list[RunnerPool]:
        """All pools, oldest first."""
        return cast(
            "builtins.list[RunnerPool]", self._client.transport.list(Call("GET", "/runner-pools"), "pools")
        )

    def get(self, name: str) -> RunnerPool:
        """One pool. Raises NotFoundError."""
        return self._pool(one_pool("GET", name))

    def delete(self, name: str) -> None:
        """Delete a pool. Its jobs that have not ended are cancelled. Raises NotFoundError."""
        self._client.transport.run(one_pool("DELETE", name))

    def logs(self, name: str, *, follow: bool = True) -> Generator[tuple[str, str], None]:
        """What the last refresh printed, in pieces: the stream's name and text. With ``follow``, until it has ended."""
        path = f"/runner-pools/{segment(name)}/logs"
        with closing(follow_build(self._client, path, follow=follow, what="refresh")) as events:
            for event in events:
                if (piece := printed(event)) is not None:
                    yield piece

    def sandbox(
        self,
        name: str,
        *,
        trusted: bool = False,
        ttl_seconds: int | None = None,
        max_lifetime_seconds: int | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Sandbox:
        """Create a sandbox of the prepared version: to look into it, or for a runner of another system.

        Only a ``trusted`` one has the secrets of the pool. Raises ConflictError for a pool without a version.
        """
        wanted = {
            "trusted": trusted,
            "ttl_seconds": ttl_seconds,
            "max_lifetime_seconds": max_lifetime_seconds,
            "metadata": metadata,
        }
        made = self._client.transport.object(pool_sandbox(name, wanted, idempotency_key))
        return Sandbox.from_dict(made, self._client)

    def _pool(self, call: Call) -> RunnerPool:
        return cast(RunnerPool, self._client.transport.object(call))
