"""The SSH door before the real agent, which is an ordinary process here, and OpenSSH's clients in front of it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from anyio.abc import UNIXSocketStream

from pandastack.gateway.listeners import open_listeners
from pandastack.gateway.options import Options
from pandastack.gateway.ssh import kept_host_key, open_ssh_door
from pandastack.guest import Channel
from pandastack.guest.agent import binary
from tests.support.guests import IDENTITY
from tests.support.ssh import SANDBOX, AgentStreams, Clients, Keyring, fingerprint


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[Channel]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [str(binary("x86_64")), "--fd", str(theirs.fileno()), "--no-identity"]
        argv += ["--logs", str(tmp_path / "processes")]
        process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])  # noqa: ASYNC220
        theirs.close()
        async with Channel(await UNIXSocketStream.from_socket(ours)) as channel:
            await channel.hello(10)
            await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=10)
            yield channel
        ours.close()
        assert await anyio.to_thread.run_sync(lambda: process.wait(timeout=10)) == 0


@pytest.fixture
async def clients(channel: Channel, tmp_path: Path) -> AsyncIterator[Clients]:
    if shutil.which("ssh") is None or shutil.which("sftp") is None:
        pytest.skip("OpenSSH's clients are not installed")
    directory = tmp_path / "ssh"
    directory.mkdir()
    streams, keyring = AgentStreams(channel), Keyring()
    options = Options(directory=str(directory), data=str(directory), http_port=None, ssh_port=0)
    with open_listeners(options) as listeners:
        opening = open_ssh_door(streams, keyring, listeners.ssh, kept_host_key(directory))
        async with opening as door:
            (directory / "known_hosts").write_text(f"[127.0.0.1]:{door.port} {door.host_key}\n")
            made = Clients(door, streams, keyring, directory, Path())
            made.key = made.new_key("id")
            keyring.allowed.add((SANDBOX, fingerprint(made.key)))
            yield made
