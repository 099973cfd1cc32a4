"""How a refusal looks to the client: JSON for HTTP, a reset for everything else."""

from __future__ import annotations

import json
import socket

import anyio

from pandastack.egress.decide import Verdict
from pandastack.egress.http_head import looks_like_http
from pandastack.egress.opening import Kind, Opening
from pandastack.egress.route import Wanted
from pandastack.egress.sockets import finish, receive, reset, send

_DRAIN_SECONDS, _DRAIN_BYTES = 1.0, 1024 * 1024


async def refuse(
    client: socket.socket, opening: Opening, wanted: Wanted | None, verdict: Verdict, sandbox: str
) -> None:
    """403 for HTTP, with what an agent needs to go on; the client's connection ends."""
    if not (opening.kind is Kind.HTTP or (opening.kind is Kind.BROKEN and looks_like_http(opening.data))):
        reset(client)
        return
    how = f"pandastack network allow {sandbox} {verdict.how_to_allow}" if verdict.how_to_allow else None
    body = {
        "error": f"policy_denied: {verdict.reason}",
        "code": "policy_denied",
        "host": (wanted.name or wanted.address or "") if wanted else "",
        "port": wanted.port if wanted else 0,
        "rule": verdict.rule,
        "how_to_allow": how,
    }
    await respond(client, "403 Forbidden", body)


async def unreachable(client: socket.socket, opening: Opening, wanted: Wanted) -> None:
    """502 for HTTP: the connection is allowed, but the host does not answer."""
    if opening.kind is not Kind.HTTP:
        reset(client)
        return
    host = wanted.name or wanted.address or ""
    body = {
        "error": f"cannot connect to {host}:{wanted.port}",
        "code": "host_unreachable",
        "host": host,
        "port": wanted.port,
    }
    await respond(client, "502 Bad Gateway", body)


async def respond(client: socket.socket, status: str, body: dict[str, object]) -> None:
    """An answer after which the connection ends. What the client still sends is read for a moment, because a reset
    could overtake the answer."""
    text = json.dumps(body).encode() + b"\n"
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
        "Connection: close",
    ]
    head = "\r\n".join([*lines, "", ""])
    with anyio.move_on_after(_DRAIN_SECONDS):
        await send(client, head.encode() + text)
        finish(client)
        drained = 0
        while drained < _DRAIN_BYTES and (data := await receive(client)):
            drained += len(data)
