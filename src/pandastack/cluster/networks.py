"""The networks of an engine's sandboxes: policies, counters and egress logs, as :class:`EngineClient` offers them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from pandastack.cluster.connection import ANSWER_SECONDS, EngineConnection
from pandastack.contract.codec import decode_answer
from pandastack.contract.network import (
    CheckDestination,
    DestinationChecked,
    EgressRecord,
    EgressRecords,
    NetworkState,
    SetNetwork,
    Traffic,
)
from pandastack.model.network import NetworkPolicy

_SILENCE_SECONDS = 45.0  # the engine sends an empty line every 15 s


class EngineNetworks:
    """The networks of one engine's sandboxes. Errors as for the engine's client."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection

    async def get(self, sandbox_id: str) -> NetworkState:
        """The sandbox's policy, and its bytes so far."""
        return await self._connection.ask(NetworkState, "GET", f"/sandboxes/{sandbox_id}/network")

    async def set(self, sandbox_id: str, policy: NetworkPolicy) -> NetworkState:
        """Give the sandbox another policy; it is in force when this returns."""
        path = f"/sandboxes/{sandbox_id}/network"
        return await self._connection.ask(NetworkState, "PUT", path, SetNetwork(policy))

    async def check(self, sandbox_id: str, wanted: CheckDestination) -> DestinationChecked:
        """What would be decided about a connection; nothing is sent."""
        path = f"/sandboxes/{sandbox_id}/network/check"
        return await self._connection.ask(DestinationChecked, "POST", path, wanted)

    async def traffic(self) -> tuple[Traffic, ...]:
        """The bytes of every sandbox of the engine."""
        return await self._connection.ask(tuple[Traffic, ...], "GET", "/traffic")

    async def log(self, sandbox_id: str, since: int = 0) -> EgressRecords:
        """The oldest records of the sandbox's egress log after the one numbered ``since``."""
        path, params = f"/sandboxes/{sandbox_id}/egress/log", {"since": str(since)}
        return await self._connection.ask(EgressRecords, "GET", path, params=params)

    @asynccontextmanager
    async def follow_log(self, sandbox_id: str, since: int = 0) -> AsyncIterator[AsyncIterator[EgressRecord]]:
        """The same, and then every new record, until the sandbox is deleted."""
        url, params = f"/sandboxes/{sandbox_id}/egress/log", {"since": str(since), "follow": "1"}
        silence = httpx.Timeout(ANSWER_SECONDS, read=_SILENCE_SECONDS)
        async with self._connection.stream("GET", url, params=params, timeout=silence) as response:
            yield (decode_answer(EgressRecord, line) async for line in response.aiter_lines() if line)
