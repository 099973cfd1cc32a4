# Generated from ../_async/registries.py by scripts/generate_sync.py: change that file, not this one.
"""What the workspace signs in to registries of images with."""

from __future__ import annotations

import builtins

from pandastack.sdk._sync.interfaces import Connection
from pandastack.sdk._types import Registry
from pandastack.sdk.wire.call import Call, segment


class RegistriesAPI:
    """The workspace's credentials for registries. Passwords are written, and never read.

    Builds use them for the images that a Dockerfile is built on.
    """

    def __init__(self, client: Connection) -> None:
        self._client = client

    def put(self, host: str, username: str, password: str) -> Registry:
        """Store credentials for ``host`` (``registry.example:5000``), in place of those that there were."""
        call = Call("PUT", f"/registries/{segment(host)}", json={"username": username, "password": password})
        return Registry.from_dict(self._client.transport.object(call))

    def list(self) -> builtins.list[Registry]:
        """The registries that there are credentials for, by name."""
        found = self._client.transport.list(Call("GET", "/registries"), "registries")
        return [Registry.from_dict(each) for each in found]

    def delete(self, host: str) -> None:
        """Forget the credentials for ``host``. Raises NotFoundError."""
        self._client.transport.run(Call("DELETE", f"/registries/{segment(host)}"))
