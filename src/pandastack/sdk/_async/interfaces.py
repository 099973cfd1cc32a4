"""Protocols for the parts of a sandbox, so that they do not need its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

from pandastack.sdk._async.transport import AsyncTransport
from pandastack.sdk._types import ExecResult


class AsyncConnection(Protocol):
    """Access to one server: a client."""

    @property
    def transport(self) -> AsyncTransport:
        """The transport that sends requests."""
        ...

    @property
    def timeout(self) -> float:
        """The longest silence of the server in seconds."""
        ...

    @property
    def api_url(self) -> str:
        """The address of the server."""
        ...

    @property
    def preview_host(self) -> str | None:
        """The name below which previews are, if it is set."""
        ...


class AsyncSandboxHandle(Protocol):
    """A sandbox, and access to its server."""

    @property
    def id(self) -> str:
        """Its id at the server."""
        ...

    @property
    def client(self) -> AsyncConnection:
        """The client of its server."""
        ...


class AsyncForkable(Protocol):
    """A sandbox that candidates can be tried in, by forking it."""

    id: str
    metadata: dict[str, str]

    async def fork_tree(self, count: int, metadata: Mapping[str, str] | None = None) -> list[Self]:
        """Copies of the same moment."""
        ...

    async def promote(self, *, cleanup_siblings: bool = False, tree_id: str | None = None) -> dict[str, Any]:
        """Make it independent of its tree."""
        ...

    async def exec(self, cmd: str, timeout_seconds: float | None = None, check: bool = False) -> ExecResult:
        """Run a command in it."""
        ...

    async def kill(self) -> None:
        """Delete it."""
        ...
