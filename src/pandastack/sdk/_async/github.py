"""The workspace's connection to GitHub."""

from __future__ import annotations

from typing import Any

from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk.wire.call import Call

_PATH = "/github/connection"


class AsyncGitHubAPI:
    """What the workspace speaks to GitHub with. Tokens are written, and never read."""

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def connect(self, token: str) -> dict[str, Any]:
        """Store a token of GitHub's, in place of the one that there was. Raises BadRequestError for one that GitHub
        does not accept.

        Returns ``login``, ``webhook_url`` and ``webhook_secret``: what a webhook at GitHub is set up with.
        """
        return await self._client.transport.object(Call("PUT", _PATH, json={"token": token}))

    async def connection(self) -> dict[str, Any]:
        """``login`` and ``webhook_url``, without the secret. Raises NotFoundError."""
        return await self._client.transport.object(Call("GET", _PATH))

    async def disconnect(self) -> None:
        """Forget token and webhook. Raises NotFoundError."""
        await self._client.transport.run(Call("DELETE", _PATH))
