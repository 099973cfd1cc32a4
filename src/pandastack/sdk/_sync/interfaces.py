# Generated from ../_async/interfaces.py by scripts/generate_sync.py: change that file, not this one.
"""What the parts of a sandbox need of it, so that they do not need its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

from pandastack.sdk._sync.transport import Transport
from pandastack.sdk._types import ExecResult


class Connection(Protocol):
    """A way to one server: a client."""

    @property
    def transport(self) -> Transport:
        """What sends requests."""
        ...

    @property
    def timeout(self) -> float:
        """The longest silence of the server in seconds."""
        ...

    @property
    def api_url(self) -> str:
        """Where the server is."""
        ...


class SandboxHandle(Protocol):
    """Which sandbox, and how to reach it."""

    @property
    def id(self) -> str:
        """Its name at the server."""
        ...

    @property
    def client(self) -> Connection:
        """The way to its server."""
        ...


class Forkable(Protocol):
    """A sandbox that can be tried out in copies."""

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
