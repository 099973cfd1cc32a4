"""The snapshots that were made of sandboxes."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, cast

from pandastack.sdk._types import Snapshot
from pandastack.sdk.wire.call import Call, segment

if TYPE_CHECKING:
    from pandastack.sdk._async.client import AsyncClient


class AsyncSnapshotsAPI:
    """The snapshots of the workspace. They outlive the sandboxes that they were made of."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(self, *, sandbox_id: str | None = None) -> builtins.list[Snapshot]:
        """All snapshots, or those of one sandbox, newest first."""
        params = {"sandbox_id": sandbox_id} if sandbox_id else {}
        found = await self._client.transport.list(Call("GET", "/snapshots", params=params), "snapshots")
        return [cast(Snapshot, each) for each in found]

    async def get(self, snapshot_id: str) -> Snapshot:
        """One snapshot. Raises NotFoundError."""
        call = Call("GET", f"/snapshots/{segment(snapshot_id)}")
        return cast(Snapshot, await self._client.transport.object(call))

    async def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot; sandboxes made of it live on. Raises NotFoundError."""
        await self._client.transport.run(Call("DELETE", f"/snapshots/{segment(snapshot_id)}"))
