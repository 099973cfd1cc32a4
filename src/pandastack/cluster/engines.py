"""The engines of all nodes. No other part of the control plane knows how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self

from pandastack.cluster.engine_client import EngineClient
from pandastack.errors import UnavailableError
from pandastack.model.node import LOCAL_NODE


class OnNode(Protocol):
    """The record of an object that an engine holds."""

    @property
    def node(self) -> str:
        """The name of the engine's node."""


class Engines:
    """A client for each node. Opens and closes them as an asynchronous context manager."""

    def __init__(self, clients: Mapping[str, EngineClient]) -> None:
        self._clients = dict(clients)
        self._opened = AsyncExitStack()

    @classmethod
    def local(cls, client: EngineClient) -> Engines:
        """The engines of an installation with one node: this host's."""
        return cls({LOCAL_NODE: client})

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for client in self._clients.values():
                await stack.enter_async_context(client)
            self._opened = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._opened.__aexit__(kind, error, traceback)

    def of(self, record: OnNode) -> EngineClient:
        """The engine that holds the object of ``record``."""
        return self.at(record.node)

    def at(self, node: str) -> EngineClient:
        """A node's engine. Raises :class:`UnavailableError` when the node is not part of this installation."""
        try:
            return self._clients[node]
        except KeyError:
            raise UnavailableError(f"node {node} is not part of this installation") from None

    def all(self) -> Mapping[str, EngineClient]:
        """Every engine, by the name of its node."""
        return self._clients
