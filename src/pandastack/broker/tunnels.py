"""Relays a WebSocket after its upgrade: what the guest sends is looked into, what the host sends is masked."""

from __future__ import annotations

from contextlib import suppress

import anyio

from pandastack.broker.frames import ClientFrames
from pandastack.broker.mask import Mask
from pandastack.broker.peer import GONE, RECEIVE, Peer
from pandastack.broker.swap import Swapper

_HOLD_SECONDS = 0.1


async def relay_websocket(client: Peer, upstream: Peer, swapper: Swapper, mask: Mask) -> None:
    """Relay until one side ends. Raises ``Refused`` when the guest sends a placeholder in a message."""
    frames, failure = ClientFrames(), []

    async def outward() -> None:
        data = client.http.trailing_data[0]
        with suppress(*GONE, ValueError):  # a malformed frame ends the connection
            while True:
                if data:
                    if found := frames.feed(data):
                        swapper.refuse(found, "WebSocket message")
                    await upstream.stream.send(data)
                data = await client.stream.receive(RECEIVE)

    async def watched() -> None:
        try:
            await outward()
        except Exception as error:  # raised as it is, not inside an exception group
            failure.append(error)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watched)
        await _inward(client, upstream, mask)
        tasks.cancel_scope.cancel()
    if failure:
        raise failure[0]


async def _inward(client: Peer, upstream: Peer, mask: Mask) -> None:
    data: bytes | None = upstream.http.trailing_data[0]
    with suppress(*GONE):
        while True:
            masked = mask.release() if data is None else mask.feed(data)
            if masked:
                await client.stream.send(masked)
            data = None
            with anyio.move_on_after(_HOLD_SECONDS if mask.holds else None):
                data = await upstream.stream.receive(RECEIVE)
