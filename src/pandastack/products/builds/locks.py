"""The locks that builds are held to, and the fetched bodies that are kept for them."""

from __future__ import annotations

from collections.abc import Collection

import anyio.to_thread
import structlog

from pandastack.errors import BadRequestError
from pandastack.products.builds.shelf import Shelf
from pandastack.recorder.lock import Lock, parse_lock

log = structlog.get_logger(__name__)


class Locks:
    """At most ``most_bytes`` of fetched bodies are kept for a workspace, apart from those that builds need now."""

    def __init__(self, shelf: Shelf, most_bytes: int) -> None:
        self._shelf = shelf
        self._most_bytes = most_bytes

    async def checked(self, workspace: str, text: str, *, refetch: bool) -> Lock:
        """The lock that a build is held to, when everything that it names is stored or may be fetched.

        Raises :class:`BadRequestError`.
        """
        lock = await anyio.to_thread.run_sync(parse_lock, text)
        blobs = self._shelf.blobs(workspace)
        lacking = await anyio.to_thread.run_sync(blobs.missing, lock)
        if lacking and not refetch:
            what = "1 body that it names is" if len(lacking) == 1 else f"{len(lacking)} bodies that it names are"
            raise BadRequestError(
                f"lock: {what} not stored here: {lacking[0].url[:300]}",
                field="lock",
                hint="with refetch they are fetched once more and compared with their hashes",
            )
        return lock

    async def prune(self, workspace: str, needed: Collection[str]) -> None:
        """Delete the bodies that were used longest ago, beyond the limit."""
        try:
            await anyio.to_thread.run_sync(self._shelf.blobs(workspace).prune, self._most_bytes, needed)
        except OSError as error:
            log.warning("builds.not_pruned", workspace=workspace, reason=str(error))
