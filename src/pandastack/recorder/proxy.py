"""One connection of a program in a guest to its proxy: requests in absolute form, and tunnels, which are opened."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import anyio
import h11
from anyio.abc import ByteStream

from pandastack.broker.authority import Authority
from pandastack.broker.peer import GONE, Peer
from pandastack.broker.streams import Begun, accept_tls
from pandastack.recorder.answers import Answer
from pandastack.recorder.lock import Lock
from pandastack.recorder.outside import Unreachable
from pandastack.recorder.requests import Pairs, Refused, check_request, wanted_url
from pandastack.recorder.sources import Refusals
from pandastack.recorder.urls import Url, parse_authority

IDLE_SECONDS = 900.0
_LINGER_SECONDS = 1.0
_TLS_RECORD = b"\x16"

_Base = tuple[str, str, int]


class Source(Protocol):
    """What answers requests."""

    async def answer(self, method: str, url: Url, headers: Pairs) -> Answer: ...

    async def lock(self) -> Lock: ...


class Proxy:
    """Serves connections. ``refusals`` are told what got no answer of a host."""

    def __init__(self, authority: Authority, source: Source, refusals: Refusals) -> None:
        self._authority = authority
        self._source = source
        self._refusals = refusals

    async def serve(self, stream: ByteStream) -> None:
        """Answer the requests of one connection until it ends."""
        with suppress(*GONE, TimeoutError):
            base = await self._requests(Peer(stream, h11.SERVER), None)
            if base is not None:
                await self._tunnel(*base)

    async def _tunnel(self, stream: ByteStream, host: str, port: int) -> None:
        with anyio.fail_after(IDLE_SECONDS):
            first = await stream.receive()
        stream, scheme = Begun(first, stream), "http"
        if first[:1] == _TLS_RECORD:
            stream, scheme = await accept_tls(stream, self._authority.context(host)), "https"
        await self._requests(Peer(stream, h11.SERVER), (scheme, host, port))
        with anyio.move_on_after(_LINGER_SECONDS):
            await stream.aclose()

    async def _requests(self, client: Peer, base: _Base | None) -> tuple[ByteStream, str, int] | None:
        """Answer requests; for one that opens a tunnel, the stream and where it leads."""
        try:
            while True:
                event: object = None
                with anyio.move_on_after(IDLE_SECONDS):
                    event = await client.event()
                if not isinstance(event, h11.Request):
                    return None
                if event.method == b"CONNECT" and base is None:
                    return await self._connected(client, event)
                if not await self._one(client, event, base):
                    return None
        except Refused as error:
            await _refuse(client, error)
        except h11.RemoteProtocolError as error:
            await _refuse(client, Refused(error.error_status_hint, f"malformed request: {error}"))
        except h11.LocalProtocolError:
            pass
        return None

    async def _connected(self, client: Peer, request: h11.Request) -> tuple[ByteStream, str, int]:
        try:
            host, port = parse_authority(request.target.decode("latin-1"), 443)
        except ValueError as error:
            raise Refused(400, str(error)) from error
        if not isinstance(await client.event(), h11.EndOfMessage):
            raise Refused(400, "malformed CONNECT")
        await client.send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
        return Begun(client.http.trailing_data[0], client.stream), host, port

    async def _one(self, client: Peer, request: h11.Request, base: _Base | None) -> bool:
        """Answer one request; whether another may follow."""
        method, headers = request.method.decode("latin-1")[:32], list(request.headers)
        shown = request.target.decode("latin-1")
        if base is not None:
            shown = f"{base[0]}://{base[1]}{shown}"
        try:
            shown = str(url := wanted_url(request.target, headers, base))
            check_request(request.method, headers)
            if not isinstance(await client.event(), h11.EndOfMessage):
                raise Refused(400, "the request ended before it was whole")
            answer = await self._source.answer(method, url, headers)
            try:
                await self._send(client, answer, method)
            finally:
                answer.release()
        except Unreachable as error:
            self._refusals.add(method, shown, str(error))
            raise Refused(502, str(error)) from error
        except Refused as error:
            self._refusals.add(method, shown, error.reason)
            raise
        if client.http.our_state is not h11.DONE or client.http.their_state is not h11.DONE:
            return False
        client.http.start_next_cycle()
        return True

    async def _send(self, client: Peer, answer: Answer, method: str) -> None:
        await answer.begun()
        headers = [
            (name.encode(), value.encode("latin-1")) for name, value in answer.headers.items() if name != "accept"
        ]
        bodiless = method == "HEAD" or answer.status == 204
        length = answer.size if answer.whole else answer.length
        if length is not None and not bodiless:
            headers.append((b"content-length", str(length).encode()))
        await client.send(h11.Response(status_code=answer.status, headers=headers))
        async for piece in answer.body():
            if not bodiless:
                await client.send(h11.Data(data=piece))
        await client.send(h11.EndOfMessage())


async def _refuse(client: Peer, refused: Refused) -> None:
    """Answer in the place of the host, if nothing of an answer was sent yet; the connection then ends."""
    if client.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    body = f"{refused.reason}\n".encode("latin-1", "replace")
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Connection", "close")]
    reason = body.strip()[:200]
    with suppress(*GONE, h11.LocalProtocolError):
        await client.send(h11.Response(status_code=refused.status, headers=headers, reason=reason))
        await client.send(h11.Data(data=body))
        await client.send(h11.EndOfMessage())
        with anyio.move_on_after(_LINGER_SECONDS):  # a close with unread data would take the answer along
            while await client.stream.receive():
                pass
