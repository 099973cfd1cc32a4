"""The volumes of an engine: made, grown and deleted, as :class:`EngineClient` offers them."""

from __future__ import annotations

import httpx

from pandastack.cluster.connection import ANSWER_SECONDS, EngineConnection
from pandastack.contract.volumes import CreateVolume, GrowOwnVolume, GrowVolume, OwnVolume, VolumeFrom, VolumeInfo

_LONG = httpx.Timeout(ANSWER_SECONDS, read=300.0)
"""A clone waits for the sandbox that writes to its source."""


class EngineVolumes:
    """The volumes of one engine, by their ids. Errors as for the engine's client."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection

    async def create(self, volume_id: str, size_mb: int, start_from: VolumeFrom | None = None) -> VolumeInfo:
        """Make a volume under a new id: empty, or a clone of ``start_from``. A failure leaves nothing behind."""
        message = CreateVolume(volume_id, size_mb, start_from)
        return await self._connection.ask(VolumeInfo, "POST", "/volumes", message, limit=_LONG)

    async def list(self) -> tuple[VolumeInfo, ...]:
        """All volumes of the engine."""
        return await self._connection.ask(tuple[VolumeInfo, ...], "GET", "/volumes")

    async def get(self, volume_id: str) -> VolumeInfo:
        """One volume."""
        return await self._connection.ask(VolumeInfo, "GET", f"/volumes/{volume_id}")

    async def grow(self, volume_id: str, size_mb: int) -> VolumeInfo:
        """Make a volume larger, while a sandbox writes to it, too."""
        path, message = f"/volumes/{volume_id}/grow", GrowVolume(size_mb)
        return await self._connection.ask(VolumeInfo, "POST", path, message, limit=_LONG)

    async def grow_own(self, sandbox_id: str, mount: str, size_mb: int) -> OwnVolume:
        """Make a volume larger that a running sandbox has of its own, mounted at ``mount``."""
        path, message = f"/sandboxes/{sandbox_id}/volumes/grow", GrowOwnVolume(mount, size_mb)
        return await self._connection.ask(OwnVolume, "POST", path, message, limit=_LONG)

    async def delete(self, volume_id: str) -> None:
        """Delete a volume. Raises :class:`ConflictError` while a sandbox has it."""
        await self._connection.call("DELETE", f"/volumes/{volume_id}")
