"""The workspace of the token, and its settings."""

from __future__ import annotations

from typing import Literal, cast

from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._types import Workspace
from pandastack.sdk.wire.call import Call


class AsyncWorkspaceAPI:
    """The settings that hold for all sandboxes of the workspace."""

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def get(self) -> Workspace:
        """The workspace: ``{"id", "created_at", "previews"}``."""
        return cast(Workspace, await self._client.transport.object(Call("GET", "/workspace")))

    async def update(self, *, previews: Literal["open", "private"] | None = None) -> Workspace:
        """Change settings; None leaves one as it is. With ``previews="private"`` the previews of all sandboxes want a
        token, whatever a sandbox says. Raises BadRequestError.
        """
        body = {} if previews is None else {"previews": previews}
        return cast(Workspace, await self._client.transport.object(Call("PATCH", "/workspace", json=body)))
