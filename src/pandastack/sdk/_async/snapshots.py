"""Snapshots of sandboxes."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from typing import cast

from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._types import Snapshot
from pandastack.sdk.wire.call import NEXT_CURSOR, Call, list_snapshots, segment
from pandastack.sdk.wire.coding import json_list


class AsyncSnapshotsAPI:
    """The snapshots of the workspace. They outlive the sandboxes that they were taken of."""

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def list(self, *, sandbox_id: str | None = None) -> builtins.list[Snapshot]:
        """All snapshots, or those of one sandbox, newest first."""
        found = await self._client.transport.list(list_snapshots(sandbox_id), "snapshots")
        return [cast(Snapshot, each) for each in found]

    async def iterate(self, *, sandbox_id: str | None = None, page_size: int = 100) -> AsyncIterator[Snapshot]:
        """The same one by one, fetched in pages of ``page_size`` (1 to 1000)."""
        cursor: str | None = ""
        while cursor is not None:
            answer = await self._client.transport.run(list_snapshots(sandbox_id, page_size, cursor))
            for each in json_list(answer, "snapshots"):
                yield cast(Snapshot, each)
            cursor = answer.headers.get(NEXT_CURSOR)

    async def get(self, snapshot_id: str) -> Snapshot:
        """One snapshot. Raises NotFoundError."""
        call = Call("GET", f"/snapshots/{segment(snapshot_id)}")
        return cast(Snapshot, await self._client.transport.object(call))

    async def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot; sandboxes created from it stay. Raises NotFoundError."""
        await self._client.transport.run(Call("DELETE", f"/snapshots/{segment(snapshot_id)}"))
