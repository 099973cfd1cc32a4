"""Who a guest of a test is told to be, and the agent as an ordinary process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import UNIXSocketStream

from pandastack.guest import Channel, Identity

IDENTITY = Identity(hostname="box", machine_id="0" * 32, env={"SANDBOX": "yes"})


@asynccontextmanager
async def agent_on(binary: Path, *options: str) -> AsyncIterator[Channel]:
    """An agent with these options that knows who it is, and the channel to it."""
    ours, theirs = socket.socketpair()
    argv = [str(binary), "--fd", str(theirs.fileno()), "--no-identity", *options]
    async with await anyio.open_process(argv, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        async with Channel(await UNIXSocketStream.from_socket(ours)) as channel:
            await channel.hello(10)
            await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=10)
            yield channel
    assert process.returncode == 0
