"""Volumes of the workspace."""

from __future__ import annotations

import builtins
from typing import cast

from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._types import Volume
from pandastack.sdk._volumes import create_volume, grow_volume, one_volume
from pandastack.sdk.wire.call import Call


class AsyncVolumesAPI:
    """The volumes of the workspace: disks that outlive sandboxes.

    A sandbox gets those that its create names: ``volumes=[{"name": "data"}]``, with ``"path"`` if not at ``/mnt/data``
    and ``"read_only": True`` for a copy that is only read.
    """

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def create(self, name: str, size_mb: int | None = None, *, idempotency_key: str | None = None) -> Volume:
        """Make an empty volume with an ext4 file system of ``size_mb`` MiB (default 256).

        Raises ConflictError for a name that exists, QuotaError, and StorageFullError.
        """
        return await self._made(create_volume(name, size_mb, key=idempotency_key))

    async def clone(
        self, source: str, name: str, *, size_mb: int | None = None, idempotency_key: str | None = None
    ) -> Volume:
        """Copy the volume ``source`` as it is now, also while a sandbox writes to it; ``size_mb`` makes it larger.

        The copy takes no space until one of both changes.
        """
        return await self._made(create_volume(name, size_mb, {"volume": source}, key=idempotency_key))

    async def snapshot(self, source: str, name: str, *, idempotency_key: str | None = None) -> Volume:
        """The same as a snapshot: a volume that sandboxes and clones read, and that nothing changes."""
        return await self._made(create_volume(name, None, {"volume": source}, "snapshot", idempotency_key))

    async def keep(
        self, sandbox_id: str, path: str, name: str, *, size_mb: int | None = None, idempotency_key: str | None = None
    ) -> Volume:
        """Make a volume of what a sandbox has mounted at ``path``. That of a fork ends with the fork otherwise."""
        source = {"sandbox": sandbox_id, "mount": path}
        return await self._made(create_volume(name, size_mb, source, key=idempotency_key))

    async def list(self) -> builtins.list[Volume]:
        """All volumes, by name."""
        return [cast(Volume, each) for each in await self._client.transport.list(Call("GET", "/volumes"))]

    async def get(self, name: str) -> Volume:
        """One volume. Raises NotFoundError."""
        return cast(Volume, await self._client.transport.object(one_volume("GET", name)))

    async def grow(self, name: str, size_mb: int) -> Volume:
        """Make a volume larger, while a sandbox writes to it, too. Raises BadRequestError for a smaller size."""
        return cast(Volume, await self._client.transport.object(grow_volume(name, size_mb)))

    async def delete(self, name: str) -> None:
        """Delete a volume with everything in it. Raises NotFoundError, and ConflictError while a sandbox has it."""
        await self._client.transport.run(one_volume("DELETE", name))

    async def _made(self, call: Call) -> Volume:
        return cast(Volume, await self._client.transport.object(call))
