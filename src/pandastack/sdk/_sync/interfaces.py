# Generated from ../_async/interfaces.py by scripts/generate_sync.py: change that file, not this one.
"""Protocols for the parts of a sandbox, so that they do not need its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

from pandastack.sdk._sync.transport import Transport
from pandastack.sdk._types import ExecResult


class Connection(Protocol):
    """Access to one server: a client."""

    @property
    def transport(self) -> Transport:
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


class SandboxHandle(Protocol):
    """A sandbox, and access to its server."""

    @property
    def id(self) -> str:
        """Its id at the server."""
        ...

    @property
    def client(self) -> Connection:
        """The client of its server."""
        ...


class Forkable(Protocol):
    """A sandbox that candidates can be tried in, by forking it."""

    id: str
    metadata: dict[str, str]

    def fork_tree(self, count: int, metadata: Mapping[str, str] | None = None) -> list[Self]:
        """Copies of the same moment."""
        ...

    def promote(self, *, cleanup_siblings: bool = False, tree_id: str | None = None) -> dict[str, Any]:
        """Make it independent of its tree."""
        ...

    def exec(self, cmd: str, timeout_seconds: float | None = None, check: bool = False) -> ExecResult:
        """Run a command in it."""
        ...

    def kill(self) -> None:
        """Delete it."""
        ...
