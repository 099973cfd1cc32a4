"""Passes the answer of a host on to the guest, masked."""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import anyio.lowlevel
import h11

from pandastack.broker.coding import Decoder, decoder_of
from pandastack.broker.mask import Mask
from pandastack.broker.peer import Peer
from pandastack.broker.requests import plan_answer, tokens, values

_HOLD_SECONDS = 0.1
"""How long the end of what has come is held back because a value may begin with it."""

_SWITCHING, _NO_CONTENT, _NOT_MODIFIED = 101, 204, 304


async def send_answer(upstream: Peer, client: Peer, mask: Mask, *, websocket: bool, head: bool) -> bool:
    """Pass one answer on. Returns whether both sides now speak WebSocket. ``head``: the request was a HEAD.

    Raises ``h11.RemoteProtocolError`` for a host that breaks the protocol, errors of anyio for a client that is gone.
    """
    while isinstance(event := await upstream.event(), h11.InformationalResponse):
        if event.status_code == _SWITCHING:
            if not websocket:
                raise h11.RemoteProtocolError("it switched the protocol unasked")
            await client.send(_head(event, mask, upgraded=True))
            return True
        if event.status_code != 100:  # asked for by nobody: the request goes without Expect
            await client.send(_head(event, mask))
    if not isinstance(event, h11.Response):
        raise h11.RemoteProtocolError("it closed the connection without an answer")
    await _body(event, upstream, client, mask, ends=_ends_connection(event, head=head))
    return False


async def _body(response: h11.Response, upstream: Peer, client: Peer, mask: Mask, *, ends: bool) -> None:
    decoder = _decoder(response)
    await client.send(_head(response, mask, decoded=decoder is not None, ends=ends))
    while True:
        event: object = None
        with anyio.move_on_after(_HOLD_SECONDS if mask.holds else None):
            event = await upstream.event()
        if event is None:
            await client.send(h11.Data(data=mask.release()))
        elif isinstance(event, h11.Data):
            for piece in _pieces(decoder, event.data):
                if masked := mask.feed(piece):
                    await client.send(h11.Data(data=masked))
                await anyio.lowlevel.checkpoint()
        else:
            break
    if rest := mask.end():
        await client.send(h11.Data(data=rest))
    if not isinstance(event, h11.EndOfMessage):
        raise h11.RemoteProtocolError("it closed the connection within an answer")
    await client.send(h11.EndOfMessage())


def _decoder(response: h11.Response) -> Decoder | None:
    try:
        return decoder_of(b",".join(values(list(response.headers), b"content-encoding")).decode("latin-1"))
    except ValueError as error:
        raise h11.RemoteProtocolError(f"its {error}") from error


def _pieces(decoder: Decoder | None, data: bytes) -> Iterable[bytes]:
    return [bytes(data)] if decoder is None else decoder.feed(bytes(data))


def _head(
    event: h11.Response | h11.InformationalResponse,
    mask: Mask,
    *,
    upgraded: bool = False,
    decoded: bool = False,
    ends: bool = False,
) -> h11.Response | h11.InformationalResponse:
    given = list(event.headers)
    headers = [
        (mask.whole(name), mask.whole(value)) for name, value in plan_answer(given, upgraded=upgraded, decoded=decoded)
    ]
    if ends:
        headers.append((b"Connection", b"close"))
    return type(event)(status_code=event.status_code, headers=headers, reason=mask.whole(bytes(event.reason)))


def _ends_connection(response: h11.Response, *, head: bool) -> bool:
    """Whether the host closes the connection after this answer: then the client's is closed, too."""
    headers = list(response.headers)
    if response.http_version != b"1.1" or b"close" in tokens(headers, b"connection"):
        return True
    bodiless = head or response.status_code in (_NO_CONTENT, _NOT_MODIFIED)
    return not (bodiless or values(headers, b"content-length") or values(headers, b"transfer-encoding"))
