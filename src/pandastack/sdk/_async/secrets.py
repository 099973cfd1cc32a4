"""Secrets of the workspace."""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._types import Secret
from pandastack.sdk.wire.call import Call, segment


class AsyncSecretsAPI:
    """The secrets of the workspace. Their values are written, and never read.

    A sandbox gets those that its network policy names: ``network={"secrets": ["NAME"]}``.
    """

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def create(self, name: str, value: str, *, hosts: Sequence[str] = ()) -> Secret:
        """Store a secret. With ``hosts`` (names, or ``*.example.org``) sandboxes get a placeholder, and only these
        hosts the value; without, the value is set as the variable ``name``. Raises ConflictError for a name that
        exists.
        """
        body = {"name": name, "value": value, "hosts": list(hosts)}
        return Secret.from_dict(await self._client.transport.object(Call("POST", "/secrets", json=body)))

    async def update(self, name: str, *, value: str | None = None, hosts: Sequence[str] | None = None) -> Secret:
        """Give a secret another value, or other hosts. Sandboxes that have it use the new ones when this returns."""
        body = {"value": value, "hosts": None if hosts is None else list(hosts)}
        given = {key: each for key, each in body.items() if each is not None}
        return Secret.from_dict(
            await self._client.transport.object(Call("PUT", f"/secrets/{segment(name)}", json=given))
        )

    async def list(self) -> builtins.list[Secret]:
        """All secrets, by name."""
        return [
            Secret.from_dict(each) for each in await self._client.transport.list(Call("GET", "/secrets"), "secrets")
        ]

    async def get(self, name: str) -> Secret:
        """One secret. Raises NotFoundError."""
        return Secret.from_dict(await self._client.transport.object(Call("GET", f"/secrets/{segment(name)}")))

    async def delete(self, name: str) -> None:
        """Delete a secret, also from the sandboxes that have it. Raises NotFoundError."""
        await self._client.transport.run(Call("DELETE", f"/secrets/{segment(name)}"))

    async def rotate_key(self) -> int:
        """Have the server encrypt all its secrets with a new key. Returns how many there are."""
        answer = await self._client.transport.object(Call("POST", "/secrets/rotate-key"))
        return int(answer.get("secrets") or 0)
