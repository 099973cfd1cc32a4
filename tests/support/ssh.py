"""What an SSH door needs: the way to one agent, a ring of keys; and OpenSSH's clients in front of it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import ByteStream, TaskStatus

from pandastack import guest
from pandastack.cluster.tunnel import Tunnel
from pandastack.errors import PandastackError
from pandastack.gateway.ssh import SshDoor
from pandastack.guest import Channel

SANDBOX = "0123abcd-0000-4000-8000-000000000000"


class AgentStreams:
    """The way into one sandbox: the channel of its agent."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._listens = 0
        self.uses = 0
        self.connections = 0
        self.busy_now = 0

    def use(self, sandbox: str) -> None:
        assert sandbox == SANDBOX
        self.uses += 1

    @contextmanager
    def connection(self, sandbox: str) -> Iterator[None]:
        self.connections += 1
        try:
            yield
        finally:
            self.connections -= 1

    @contextmanager
    def busy(self, sandbox: str) -> Iterator[None]:
        self.busy_now += 1
        try:
            yield
        finally:
            self.busy_now -= 1

    async def wake(self, sandbox: str) -> None:
        assert sandbox == SANDBOX

    @asynccontextmanager
    async def stream(
        self,
        sandbox: str,
        *,
        port: int | None = None,
        path: str | None = None,
        service: str | None = None,
        user: str | None = None,
    ) -> AsyncIterator[ByteStream]:
        assert sandbox == SANDBOX
        opening = self._channel.tunnel(port=port, path=path, service=service, user=user)
        async with AsyncExitStack() as stack:
            tunnel = await stack.enter_async_context(opening)
            stack.callback(tunnel.close)
            yield (stream := _Lingering(tunnel))
            await stream.linger()

    @asynccontextmanager
    async def accepted(self, sandbox: str, tunnel: Tunnel) -> AsyncIterator[ByteStream]:
        assert tunnel.id is not None
        async with self._channel.attach_tunnel(tunnel.id, 0) as attached:
            try:
                yield (stream := _Lingering(attached))
                await stream.linger()
            finally:
                attached.close()

    async def listen(
        self,
        sandbox: str,
        take: Callable[[Tunnel], None],
        *,
        port: int | None = None,
        path: str | None = None,
        task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        self._listens += 1
        async with self._channel.listen(port=port, path=path, id=f"l-{self._listens}") as listener:
            task_status.started()
            try:
                async for id in listener.accepted():
                    take(Tunnel(id))
            finally:
                listener.close()


class _Lingering(ByteStream):
    """A stream that is closed as the gateway closes one: once both ways have ended, when the program has read all."""

    def __init__(self, tunnel: guest.Tunnel) -> None:
        self._tunnel = tunnel
        self._received_end = self._sent_end = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            return await self._tunnel.receive(max_bytes)
        except anyio.EndOfStream:
            self._received_end = True
            raise

    async def send(self, item: bytes) -> None:
        await self._tunnel.send(item)

    async def send_eof(self) -> None:
        await self._tunnel.send_eof()
        self._sent_end = True

    async def aclose(self) -> None:
        self._tunnel.close()

    async def linger(self) -> None:
        if self._received_end and self._sent_end:
            with anyio.move_on_after(30), suppress(PandastackError):
                await self._tunnel.wait_closed()


class Keyring:
    """Who may log in."""

    def __init__(self) -> None:
        self.allowed: set[tuple[str, str]] = set()
        self.announced: list[tuple[int, str]] = []

    async def allows(self, sandbox: str, fingerprint: str) -> bool:
        return (sandbox, fingerprint) in self.allowed

    async def revoked(self, logins: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        return set(logins) - self.allowed

    async def announce(self, port: int, host_key: str) -> None:
        self.announced.append((port, host_key))


@dataclass
class Clients:
    """OpenSSH's clients with a key that opens the sandbox."""

    door: SshDoor
    streams: AgentStreams
    keyring: Keyring
    directory: Path
    key: Path

    def options(self, *more: str, key: Path | None = None) -> list[str]:
        options = [
            f"Port={self.door.port}",
            f"IdentityFile={key or self.key}",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            f"UserKnownHostsFile={self.directory / 'known_hosts'}",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
            *more,
        ]
        return ["-F", "none", *(each for option in options for each in ("-o", option))]

    def argv(self, *arguments: str, options: tuple[str, ...] = (), user: str = SANDBOX) -> list[str]:
        return ["ssh", *self.options(*options), "-l", user, "127.0.0.1", *arguments]

    async def ssh(
        self, *arguments: str, stdin: bytes = b"", options: tuple[str, ...] = (), user: str = SANDBOX
    ) -> subprocess.CompletedProcess[bytes]:
        return await run(self.argv(*arguments, options=options, user=user), stdin)

    def new_key(self, name: str) -> Path:
        path = self.directory / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return path


async def run(argv: list[str], stdin: bytes = b"", **more: object) -> subprocess.CompletedProcess[bytes]:
    with anyio.fail_after(40):
        return await anyio.run_process(argv, input=stdin, check=False, **more)  # type: ignore[arg-type]


def connection(clients: Clients) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": clients.door.port,
        "username": SANDBOX,
        "client_keys": [str(clients.key)],
        "known_hosts": str(clients.directory / "known_hosts"),
        "agent_path": None,
        "config": None,
    }


def fingerprint(key: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]
