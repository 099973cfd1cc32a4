"""The real agent as an ordinary process, at the other end of a socket pair."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from anyio.abc import UNIXSocketStream

from pandastack.guest import Channel
from pandastack.guest.agent import binary
from tests.support.guests import IDENTITY


@pytest.fixture(scope="session")
def agent_binary() -> Path:
    return binary("x86_64")


@pytest.fixture
def raw_agent(agent_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    """Our end of the agent's channel, nothing read or written yet."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [str(agent_binary), "--fd", str(theirs.fileno()), "--no-identity"]
        argv += ["--logs", str(tmp_path_factory.mktemp("logs") / "processes")]
        process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])
        theirs.close()
        try:
            yield ours
        finally:
            ours.close()
            assert process.wait(timeout=10) == 0


@pytest.fixture
async def channel(raw_agent: socket.socket) -> AsyncIterator[Channel]:
    """A channel to an agent that booted and was told who it is."""
    stream = await UNIXSocketStream.from_socket(raw_agent)
    async with Channel(stream) as channel:
        await channel.hello(10)
        await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=10)
        yield channel
