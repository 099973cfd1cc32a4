"""SSH keys of the workspace."""

from __future__ import annotations

import builtins
from typing import cast

from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._types import SshDoor, SshKey
from pandastack.sdk.wire.call import Call, segment


class AsyncSshKeysAPI:
    """The public keys that open the workspace's sandboxes to SSH clients."""

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def add(self, public_key: str, name: str | None = None) -> SshKey:
        """Add a public key: one line, as in ``~/.ssh/id_ed25519.pub``. Its name is by default its own comment.

        Raises BadRequestError, and ConflictError when it was added before.
        """
        body = {"public_key": public_key} | ({} if name is None else {"name": name})
        return cast(SshKey, await self._client.transport.object(Call("POST", "/ssh-keys", json=body)))

    async def list(self) -> builtins.list[SshKey]:
        """All keys, oldest first."""
        return [cast(SshKey, each) for each in await self._client.transport.list(Call("GET", "/ssh-keys"))]

    async def delete(self, key_id: str) -> None:
        """Remove a key: it opens no connection any more, and those that it opened end. Raises NotFoundError."""
        await self._client.transport.run(Call("DELETE", f"/ssh-keys/{segment(key_id)}"))

    async def door(self) -> SshDoor:
        """Where SSH clients connect: ``{"port", "host_key"}``. Raises UnavailableError when nothing serves SSH."""
        return cast(SshDoor, await self._client.transport.object(Call("GET", "/ssh")))
