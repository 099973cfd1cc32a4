"""What the SSH door needs of the rest of the gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from anyio import TASK_STATUS_IGNORED
from anyio.abc import ByteStream, TaskStatus

from pandastack.cluster.tunnel import Tunnel


class Streams(Protocol):
    """The way into sandboxes: :class:`pandastack.gateway.reach.Reach`, which documents the methods."""

    def use(self, sandbox: str) -> None: ...

    def connection(self, sandbox: str) -> AbstractContextManager[None]: ...

    def busy(self, sandbox: str) -> AbstractContextManager[None]: ...

    async def wake(self, sandbox: str) -> None: ...

    def stream(
        self,
        sandbox: str,
        *,
        port: int | None = None,
        path: str | None = None,
        service: str | None = None,
        user: str | None = None,
    ) -> AbstractAsyncContextManager[ByteStream]: ...

    def accepted(self, sandbox: str, tunnel: Tunnel) -> AbstractAsyncContextManager[ByteStream]: ...

    async def listen(
        self,
        sandbox: str,
        take: Callable[[Tunnel], None],
        *,
        port: int | None = None,
        path: str | None = None,
        task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None: ...


class Authority(Protocol):
    """Who may log in: the control plane's ``/internal/ssh`` (:mod:`pandastack.gateway.ssh.authority`)."""

    async def allows(self, sandbox: str, fingerprint: str) -> bool:
        """Whether the owner of the key may use the sandbox. Raises :class:`UnavailableError`."""
        ...

    async def revoked(self, logins: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of ``logins``, each a sandbox and a fingerprint, that :meth:`allows` would now refuse. Raises
        :class:`UnavailableError`."""
        ...

    async def announce(self, port: int, host_key: str) -> None:
        """Tell where the door listens, and by which public key its clients know it."""
        ...
