"""The client: one server, one token, and the server's collections."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, cast

from pandastack.config import resolve_client
from pandastack.sdk._async.builds import AsyncBuildsAPI
from pandastack.sdk._async.databases import AsyncDatabasesAPI
from pandastack.sdk._async.defaults import choose, default_connection, make_with
from pandastack.sdk._async.functions import AsyncFunctionsAPI
from pandastack.sdk._async.github import AsyncGitHubAPI
from pandastack.sdk._async.jobs import AsyncJobsAPI
from pandastack.sdk._async.registries import AsyncRegistriesAPI
from pandastack.sdk._async.runners import AsyncRunnersAPI
from pandastack.sdk._async.sandbox import AsyncSandbox
from pandastack.sdk._async.schedules import AsyncSchedulesAPI
from pandastack.sdk._async.secrets import AsyncSecretsAPI
from pandastack.sdk._async.snapshots import AsyncSnapshotsAPI
from pandastack.sdk._async.ssh import AsyncSshKeysAPI
from pandastack.sdk._async.templates import AsyncTemplatesAPI
from pandastack.sdk._async.transport import AsyncTransport
from pandastack.sdk._async.volumes import AsyncVolumesAPI
from pandastack.sdk._async.webhooks import AsyncWebhooksAPI
from pandastack.sdk._async.workspace import AsyncWorkspaceAPI
from pandastack.sdk._branches import children_of, fork_sandbox, fork_sandbox_tree, forked, promote_sandbox
from pandastack.sdk._retry import create_retry_budget
from pandastack.sdk._runtime import AsyncCancelEvent
from pandastack.sdk._types import CreateRetryEvent
from pandastack.sdk.wire.call import NEXT_CURSOR, Call, create_sandbox, lifecycle_options, list_sandboxes, segment
from pandastack.sdk.wire.coding import json_list, json_value


class AsyncClient:
    """Access to one server.

    ``api_url`` and ``api_key`` default to the environment (``PANDASTACK_API``, ``PANDASTACK_API_KEY``), then
    to ``~/.config/pandastack/config.json``; ``api_base`` is another name of ``api_url``. ``timeout`` is the
    longest silence of the server in seconds. Creates refused for capacity are retried for
    ``max_create_retry_seconds`` (default 60, 0: never); ``on_create_retry`` is called before each retry.

    Raises ValueError for a bad ``max_create_retry_seconds``. A missing key is reported by the first call.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        api_base: str | None = None,
        max_create_retry_seconds: float | None = None,
        on_create_retry: Callable[[CreateRetryEvent], None] | None = None,
    ) -> None:
        settings = resolve_client(api_url or api_base, api_key)
        self.api_url = self.api_base = settings.api_url
        self.api_key = settings.api_key
        self.timeout = timeout
        self.preview_host: str | None = None
        """The name below which previews are, with a port if it needs one; None: ``Sandbox.preview_url`` chooses."""
        self.max_create_retry_seconds = create_retry_budget(max_create_retry_seconds)
        self.on_create_retry = on_create_retry
        self.transport = AsyncTransport(settings, timeout, self.max_create_retry_seconds, on_create_retry)
        self.sandboxes = AsyncSandboxAPI(self)
        self.snapshots = AsyncSnapshotsAPI(self)
        self.ssh_keys = AsyncSshKeysAPI(self)
        self.templates = AsyncTemplatesAPI(self)
        self.builds = AsyncBuildsAPI(self)
        self.secrets = AsyncSecretsAPI(self)
        self.registries = AsyncRegistriesAPI(self)
        self.volumes = AsyncVolumesAPI(self)
        self.databases = AsyncDatabasesAPI(self)
        self.schedules = AsyncSchedulesAPI(self)
        self.functions = AsyncFunctionsAPI(self)
        self.runners = AsyncRunnersAPI(self)
        self.jobs = AsyncJobsAPI(self)
        self.webhooks = AsyncWebhooksAPI(self)
        self.github = AsyncGitHubAPI(self)
        self.workspace = AsyncWorkspaceAPI(self)

    async def me(self) -> dict[str, Any]:
        """The caller that the token identifies: at least ``id`` and ``workspace``. Raises AuthError for a bad token."""
        return await self.transport.object(Call("GET", "/me"))

    async def close(self) -> None:
        """Close the connections to the server. Sandboxes keep running."""
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()


class AsyncSandboxAPI:
    """The sandboxes of the workspace."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(
        self,
        template: str = "code-interpreter",
        cpu: int | None = None,
        memory_mb: int | None = None,
        ttl_seconds: int | None = None,
        persistent: bool = False,
        metadata: Mapping[str, str] | None = None,
        from_snapshot: str | None = None,
        volumes: Sequence[Mapping[str, Any]] | None = None,
        *,
        cancel: AsyncCancelEvent | None = None,
        on_expire: Literal["delete", "hibernate"] | None = None,
        checkpoint_every: float | None = None,
        checkpoint_after_exec: bool | None = None,
        max_lifetime_seconds: int | None = None,
        disk_gb: int | None = None,
        on_memory_loss: Literal["boot", "fail"] | None = None,
        network: str | Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncSandbox:
        """Create a sandbox and return when commands can run in it.

        ``cpu``, ``memory_mb`` and ``disk_gb`` are its size, within the template's limits; by default the template's.

        ``ttl_seconds`` is an idle limit: the sandbox is deleted after that long without activity, unless it
        is ``persistent``; with ``on_expire="hibernate"`` it is hibernated instead. ``checkpoint_every`` (seconds,
        at least 1) and ``checkpoint_after_exec`` make the server take checkpoints automatically.
        ``max_lifetime_seconds`` after its creation the sandbox is deleted, in use or not. Where only its disks are
        left, or its memory cannot be restored, it boots from them; with ``on_memory_loss="fail"`` that is an error.

        ``network`` is what it may reach: ``"allow"``, ``"deny"``, ``"none"``, or lists of rules (docs/network.md); by
        default, as its template says. The sandbox's ``network`` changes it later.

        ``volumes`` are disks that outlive it, in the order of their devices, by default mounted at ``/mnt/NAME``:
        ``[{"name": "data", "path": "/srv", "read_only": True}]`` (docs/volumes.md).

        After a refusal for capacity or a broken connection, the call is retried within the client's budget; setting
        ``cancel`` ends that with CreateCancelled. With your own ``idempotency_key``, the same call within 24 hours
        returns the same sandbox, from another process too; by default each call uses a new key.

        Raises BadRequestError (unknown template, bad TTL, a size that cannot be) and ServerError.
        """
        own = lifecycle_options(
            on_expire, checkpoint_every, checkpoint_after_exec, max_lifetime_seconds, on_memory_loss
        )
        own |= {"disk_gb": disk_gb, "network": network}
        call = create_sandbox(
            template, cpu, memory_mb, ttl_seconds, persistent, metadata, from_snapshot, volumes, own, idempotency_key
        )
        return AsyncSandbox.from_dict(await self._client.transport.object(call, cancel), self._client, persistent)

    async def list(
        self, *, status: str | Sequence[str] | None = None, metadata: Mapping[str, str] | None = None
    ) -> builtins.list[AsyncSandbox]:
        """The sandboxes of the workspace, newest first: all, or those with one of these statuses and all of this
        metadata. Raises BadRequestError for an unknown status.
        """
        found = await self._client.transport.list(list_sandboxes(status, metadata))
        return [AsyncSandbox.from_dict(each, self._client) for each in found]

    async def iterate(
        self,
        *,
        status: str | Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[AsyncSandbox]:
        """The same one by one, fetched in pages of ``page_size`` (1 to 1000), without those created meanwhile."""
        cursor: str | None = ""
        while cursor is not None:
            answer = await self._client.transport.run(list_sandboxes(status, metadata, page_size, cursor))
            for each in json_list(answer):
                yield AsyncSandbox.from_dict(each, self._client)
            cursor = answer.headers.get(NEXT_CURSOR)

    async def get(self, sandbox_id: str) -> AsyncSandbox:
        """One sandbox. Raises NotFoundError."""
        call = Call("GET", f"/sandboxes/{segment(sandbox_id)}")
        return AsyncSandbox.from_dict(await self._client.transport.object(call), self._client)

    async def fork(
        self,
        sandbox_id: str,
        metadata: Mapping[str, str] | None = None,
        *,
        cancel: AsyncCancelEvent | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncSandbox:
        """Copy a sandbox as it is now; it keeps running. Retried and cancelled like :meth:`create`."""
        answer = await self._client.transport.run(fork_sandbox(sandbox_id, metadata, idempotency_key), cancel)
        return AsyncSandbox.from_dict(forked(json_value(answer), sandbox_id), self._client)

    async def fork_tree(
        self,
        sandbox_id: str,
        count: int,
        metadata: Mapping[str, str] | None = None,
        *,
        cancel: AsyncCancelEvent | None = None,
        idempotency_key: str | None = None,
    ) -> builtins.list[AsyncSandbox]:
        """Make up to ``count`` (at most 16) copies of the same moment; fewer when capacity runs out."""
        call = fork_sandbox_tree(sandbox_id, count, metadata, idempotency_key)
        answer = await self._client.transport.run(call, cancel)
        children = children_of(json_value(answer), sandbox_id)
        return [AsyncSandbox.from_dict(each, self._client) for each in children]

    async def promote(
        self, sandbox_id: str, *, cleanup_siblings: bool = False, tree_id: str | None = None
    ) -> dict[str, Any]:
        """Make a fork independent of its tree; with ``cleanup_siblings`` the tree's other forks are deleted.

        Returns ``{"winner", "tree_id", "deleted", "failures"}``.
        """
        return await self._client.transport.object(promote_sandbox(sandbox_id, cleanup_siblings, tree_id))

    async def delete(self, sandbox_id: str) -> None:
        """Delete a sandbox and its disk. Raises NotFoundError."""
        await self._client.transport.run(Call("DELETE", f"/sandboxes/{segment(sandbox_id)}"))


def get_default_async_client() -> AsyncClient:
    """The client set by the program, otherwise one from the environment and the configuration file.

    Connections cannot move to another event loop, so a loop that did not create the default client gets a new
    one.
    """
    return cast(AsyncClient, default_connection())


def set_default_async_client(client: AsyncClient | None) -> None:
    """Use ``client`` from now on; None drops the current one, so that the configuration is read again."""
    choose(client)


make_with(AsyncClient)
