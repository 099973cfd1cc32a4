"""Handing a connection over to the broker, which puts secrets into its requests.

The broker gets both ends of it and the bytes read so far over a Unix stream socket: a JSON line ``{"slot", "sandbox",
"host", "port", "tls", "begun"}`` beside the descriptors of client and upstream, then as many bytes as ``begun`` says.
It answers with a JSON line; ``"ok": true`` means that it has taken the connection over. While the Unix connection is
open the egress process keeps its own descriptors too, so that it can cut the connection; the broker closes it when it
is done.
"""

from __future__ import annotations

import array
import json
import socket
from contextlib import suppress
from pathlib import Path

import anyio

from pandastack.egress.sockets import receive, send

ANSWER_SECONDS = 2.0


async def hand_over(
    broker: Path, client: socket.socket, upstream: socket.socket, data: bytes, about: dict[str, str | int | bool]
) -> socket.socket | None:
    """The connection to the broker, open for as long as it is busy with this one; None: it did not take it."""
    line = json.dumps({**about, "begun": len(data)}).encode() + b"\n"
    descriptors = array.array("i", [client.fileno(), upstream.fileno()])
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with anyio.fail_after(ANSWER_SECONDS):
            control.connect(str(broker))
            sent = control.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            await send(control, line[sent:] + data)
            answer = b""
            while b"\n" not in answer and len(answer) < 4096:
                if not (more := await receive(control, 4096)):
                    break
                answer += more
        if json.loads(answer.partition(b"\n")[0] or b"{}").get("ok") is True:
            taken, control = control, socket.socket(socket.AF_UNIX)
            return taken
    except (OSError, TimeoutError, ValueError, AttributeError):
        return None
    finally:
        control.close()
    return None


async def until_done(control: socket.socket) -> None:
    """Wait until the broker closes its connection to us, and close ours."""
    with control, suppress(OSError):
        while await receive(control, 4096):
            pass
