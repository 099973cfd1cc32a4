"""Opens the SSH door."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import anyio
import asyncssh

from pandastack.errors import PandastackError
from pandastack.gateway.control import Control
from pandastack.gateway.listeners import Listeners
from pandastack.gateway.options import Options
from pandastack.gateway.reach import Reach
from pandastack.gateway.ssh.authority import ControlAuthority
from pandastack.gateway.ssh.connections import Connections
from pandastack.gateway.ssh.host_key import public_line
from pandastack.gateway.ssh.seams import Authority, Streams
from pandastack.gateway.ssh.server import Server

_NAME = "PandaStack_as_OpenSSH"
"""Clients give SFTP's SYMLINK the arguments in OpenSSH's order where the server's name has this word in it."""
_LOGIN_SECONDS = 30.0
_KEEPALIVE_SECONDS, _KEEPALIVES = 60.0, 3
"""A client that does not answer as often is gone."""
_ANNOUNCE_SECONDS = 10.0
"""A server that was started again has forgotten where the door is."""


@dataclass(frozen=True, slots=True)
class SshDoor:
    """Where clients connect, and the public key by which they know it (``ssh-ed25519 AAAA…``)."""

    port: int
    host_key: str


@asynccontextmanager
async def open_ssh_doors(
    options: Options, listeners: Listeners, host_key: asyncssh.SSHKey | None, reach: Reach, control: Control
) -> AsyncIterator[None]:
    """The SSH door at the listeners for it, if there are any."""
    if host_key is None:
        yield
        return
    opening = open_ssh_door(
        reach, ControlAuthority(control), listeners.ssh, host_key, most_connections=options.max_connections
    )
    async with opening:
        yield


@asynccontextmanager
async def open_ssh_door(
    streams: Streams,
    authority: Authority,
    listeners: Sequence[socket.socket],
    key: asyncssh.SSHKey,
    *,
    most_connections: int = 1024,
) -> AsyncIterator[SshDoor]:
    """Serve SSH at ``listeners`` inside the block, under the host key ``key``."""
    asyncssh.set_log_level(logging.ERROR)
    connections = Connections(authority, most_connections)
    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
        for listener in listeners:
            acceptor = await asyncssh.listen(
                sock=listener,
                server_factory=lambda: Server(streams, authority, tasks, connections),
                server_host_keys=[key],
                server_version=_NAME,
                encoding=None,
                agent_forwarding=True,
                x11_forwarding=False,
                allow_scp=False,
                line_editor=False,
                gss_host=None,
                login_timeout=_LOGIN_SECONDS,
                keepalive_interval=_KEEPALIVE_SECONDS,
                keepalive_count_max=_KEEPALIVES,
                config=None,
            )
            stack.callback(acceptor.close)
        door = SshDoor(listeners[0].getsockname()[1], public_line(key))
        tasks.start_soon(_announce, authority, door)
        tasks.start_soon(connections.end_revoked)
        try:
            yield door
        finally:
            tasks.cancel_scope.cancel()


async def _announce(authority: Authority, door: SshDoor) -> None:
    while True:
        pause = _ANNOUNCE_SECONDS
        try:
            await authority.announce(door.port, door.host_key)
        except PandastackError:
            pause = 1.0
        await anyio.sleep(pause)
