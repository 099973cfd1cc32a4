# Generated from ../_async/snapshots.py by scripts/generate_sync.py: change that file, not this one.
"""Snapshots of sandboxes."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import cast

from pandastack.sdk._sync.interfaces import Connection
from pandastack.sdk._types import Snapshot
from pandastack.sdk.wire.call import NEXT_CURSOR, Call, list_snapshots, segment
from pandastack.sdk.wire.coding import json_list


class SnapshotsAPI:
    """The snapshots of the workspace. They outlive the sandboxes that they were taken of."""

    def __init__(self, client: Connection) -> None:
        self._client = client

    def list(self, *, sandbox_id: str | None = None) -> builtins.list[Snapshot]:
        """All snapshots, or those of one sandbox, newest first."""
        found = self._client.transport.list(list_snapshots(sandbox_id), "snapshots")
        return [cast(Snapshot, each) for each in found]

    def iterate(self, *, sandbox_id: str | None = None, page_size: int = 100) -> Iterator[Snapshot]:
        """The same one by one, fetched in pages of ``page_size`` (1 to 1000)."""
        cursor: str | None = ""
        while cursor is not None:
            answer = self._client.transport.run(list_snapshots(sandbox_id, page_size, cursor))
            for each in json_list(answer, "snapshots"):
                yield cast(Snapshot, each)
            cursor = answer.headers.get(NEXT_CURSOR)

    def get(self, snapshot_id: str) -> Snapshot:
        """One snapshot. Raises NotFoundError."""
        call = Call("GET", f"/snapshots/{segment(snapshot_id)}")
        return cast(Snapshot, self._client.transport.object(call))

    def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot; sandboxes created from it stay. Raises NotFoundError."""
        self._client.transport.run(Call("DELETE", f"/snapshots/{segment(snapshot_id)}"))
