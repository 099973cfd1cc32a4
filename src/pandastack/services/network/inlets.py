"""Ports on a guest's loopback that lead to the control plane: what a sandbox without a network can reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import structlog
from anyio.abc import ByteStream

from pandastack.cluster import EngineClient, Engines
from pandastack.cluster.tunnel import Tunnel
from pandastack.errors import PandastackError
from pandastack.model.caller import Caller
from pandastack.services.sandboxes.sandboxes import Sandboxes

MOST_CONNECTIONS = 64
"""Connections of one inlet at once; others wait in the guest."""

log = structlog.get_logger(__name__)


class Inlets:
    """Listens in guests."""

    def __init__(self, sandboxes: Sandboxes, engines: Engines) -> None:
        self._sandboxes = sandboxes
        self._engines = engines

    @asynccontextmanager
    async def open(
        self, caller: Caller, sandbox_id: str, port: int, serve: Callable[[ByteStream], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Give each connection to a port of the guest's loopback to ``serve`` until the block ends, which ends them.

        Raises :class:`NotFoundError`, and :class:`GuestError` when something in the guest listens there already.
        """
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            engine = self._engines.of(sandbox)
            failed: Exception | None = None
            async with engine.listen(sandbox.id, port=port) as accepted, anyio.create_task_group() as tasks:
                tasks.start_soon(_take_all, engine, sandbox.id, accepted, serve)
                try:
                    yield
                except Exception as error:  # raised as it is, not inside an exception group
                    failed = error
                tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed


async def _take_all(
    engine: EngineClient,
    sandbox_id: str,
    accepted: AsyncIterator[Tunnel],
    serve: Callable[[ByteStream], Awaitable[None]],
) -> None:
    free = anyio.Semaphore(MOST_CONNECTIONS)

    async def one(tunnel: Tunnel) -> None:
        try:
            async with engine.attach_tunnel(sandbox_id, tunnel):
                await serve(tunnel)
        except PandastackError as error:
            log.warning("inlet.connection_failed", sandbox=sandbox_id, reason=error.message)
        finally:
            free.release()

    try:
        async with anyio.create_task_group() as tasks:
            async for tunnel in accepted:
                await free.acquire()
                tasks.start_soon(one, tunnel)
    except* PandastackError as errors:  # the machine has ended, or the engine: the user of the machine learns it, too
        log.warning("inlet.ended", sandbox=sandbox_id, reason=str(errors.exceptions[0]))
