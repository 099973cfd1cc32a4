"""One client's connection: its requests, one after another, and what becomes of each."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from functools import partial

import anyio
import h11
import structlog

from pandastack.errors import GuestError, PandastackError, ServerError
from pandastack.gateway.client_socket import ClientGone, ClientSocket
from pandastack.gateway.http import pages
from pandastack.gateway.http.heads import Header, inward, outward, wants_upgrade
from pandastack.gateway.http.passing import pass_bytes
from pandastack.gateway.http.routing import Call, Place, Redirect, Routes, Visit
from pandastack.gateway.http.upstream import Upstream, Upstreams
from pandastack.gateway.reach import Reach
from pandastack.host.tasks import beside
from pandastack.model.previews import Waker

MOST_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0
"""How long a request's head may take to arrive."""
IDLE_SECONDS = 75.0
"""How long a client may keep a connection between two requests."""
HOLD_SECONDS = 1.5
"""How long a person waits for a sandbox that wakes before a page says so."""
_LINGER_SECONDS = 1.0
_BROKEN = (anyio.ClosedResourceError, anyio.BrokenResourceError)
_REPEATABLE = (b"GET", b"HEAD", b"OPTIONS")

log = structlog.get_logger(__name__)


class _Stale(Exception):
    """A connection that was used before broke before it answered: another one may be tried."""


class Exchange:
    """Serves one connection."""

    def __init__(self, socket: ClientSocket, place: Place, routes: Routes, upstreams: Upstreams, reach: Reach) -> None:
        self._socket = socket
        self._place = place
        self._routes = routes
        self._upstreams = upstreams
        self._reach = reach
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)

    async def run(self) -> None:
        """Answer requests until one side wants no more."""
        with suppress(ClientGone):
            while (request := await self._next_request()) is not None:
                await self._serve(request)
                if self._http.states[h11.CLIENT] is not h11.DONE or self._http.states[h11.SERVER] is not h11.DONE:
                    await self._linger()
                    break
                self._http.start_next_cycle()
        self._socket.close()

    async def _next_request(self) -> h11.Request | None:
        try:
            with anyio.move_on_after(IDLE_SECONDS):
                while (event := self._http.next_event()) is h11.NEED_DATA and not self._http.trailing_data[0]:
                    self._http.receive_data(await self._socket.receive())
                if event is h11.NEED_DATA:
                    with anyio.fail_after(HEAD_SECONDS):
                        while (event := self._http.next_event()) is h11.NEED_DATA:
                            self._http.receive_data(await self._socket.receive())
                return event if isinstance(event, h11.Request) else None
        except h11.RemoteProtocolError as error:
            await self._answer(_bad_request(error))
        except TimeoutError:
            await self._answer(_plain(408, f"the headers took longer than {HEAD_SECONDS:g} s"))
        return None

    async def _serve(self, request: h11.Request) -> None:
        """Answer one request. When its client leaves, everything for it ends."""
        port = None
        with anyio.CancelScope() as scope:
            self._socket.on_gone = scope.cancel
            if self._socket.gone:
                raise ClientGone
            try:
                visit = await self._routes.visit(request, self._place, self._socket.peer)
                if isinstance(visit, Redirect):
                    await self._answer(_redirect(visit))
                    return
                if isinstance(visit, Call):
                    await self._call(request, visit)
                    return
                port = visit.route.port
                await self._visit(request, visit)
            except PandastackError as error:
                await self._refuse(request, error, port)
            finally:
                self._socket.on_gone = None
        if scope.cancelled_caught:
            raise ClientGone

    async def _visit(self, request: h11.Request, visit: Visit) -> None:
        sandbox, port, waker = visit.route.sandbox, visit.route.port, visit.route.waker
        with ExitStack() as use:
            use.enter_context(self._reach.connection(sandbox))
            busy = use.enter_context(ExitStack())
            busy.enter_context(self._reach.busy(sandbox))
            if visit.raw:
                await self._switch_to_bytes(visit, busy)
                return
            given = list(request.headers)
            has_body = _has_body(given)
            repeatable = request.method in _REPEATABLE and not has_body
            upgrade = wants_upgrade(given)
            for fresh in (not repeatable or upgrade is not None, True):
                upstream = await self._open(request, visit, fresh=fresh)
                if upstream is None:
                    return
                try:
                    await self._exchange(request, visit, upstream, busy, has_body=has_body, upgrade=upgrade)
                except _Stale:
                    continue
                except ClientGone:
                    raise
                finally:
                    self._upstreams.give_back(sandbox, port, waker, upstream)
                return

    async def _call(self, request: h11.Request, call: Call) -> None:
        """Have the control plane answer for a function: it is told when the client leaves."""
        async with self._upstreams.to_control() as upstream:
            has_body = _has_body(list(request.headers))
            await self._exchange(request, call, upstream, ExitStack(), has_body=has_body, upgrade=None)

    def _is_for_people(self, request: h11.Request) -> bool:
        """Whether our own answers are pages. Through the door inward programs call, whatever they accept."""
        return self._place.grant is None and pages.is_navigation(request.method, request.headers)

    async def _open(self, request: h11.Request, visit: Visit, *, fresh: bool) -> Upstream | None:
        """A connection; None when a page was sent that asks for patience."""
        sandbox, port, waker = visit.route.sandbox, visit.route.port, visit.route.waker
        if visit.route.running or not self._is_for_people(request):
            return await self._upstreams.take(sandbox, port, waker, fresh=fresh)
        with anyio.move_on_after(HOLD_SECONDS):
            return await self._upstreams.take(sandbox, port, waker, fresh=fresh)
        await self._answer(pages.holding(sandbox))
        return None

    async def _exchange(
        self,
        request: h11.Request,
        visit: Visit | Call,
        upstream: Upstream,
        busy: ExitStack,
        *,
        has_body: bool,
        upgrade: bytes | None,
    ) -> None:
        chunked = has_body and any(name == b"transfer-encoding" for name, _ in request.headers)
        headers = inward(visit.headers, visit.how, upgrade, chunked=chunked)
        try:
            head = upstream.encode(
                h11.Request(method=request.method, target=visit.target.encode("latin-1"), headers=headers)
            )
            if not has_body:
                self._http.next_event()
                await upstream.send(head + upstream.encode(h11.EndOfMessage()))
                await self._respond(visit, upstream, busy)
                return
            async with beside(partial(self._upload, upstream, head)):
                await self._respond(visit, upstream, busy)
        except (h11.RemoteProtocolError, PandastackError, *_BROKEN) as error:
            await self._broke(error, upstream)

    async def _broke(self, error: Exception, upstream: Upstream) -> None:
        """The server failed: say so, or abort the answer that has begun."""
        if self._http.states[h11.SERVER] not in (h11.IDLE, h11.SEND_RESPONSE):
            self._socket.abort()
            raise ClientGone from error
        if upstream.is_reused and self._http.states[h11.CLIENT] is not h11.SEND_BODY:
            raise _Stale from error
        if isinstance(error, PandastackError) and not isinstance(error, GuestError):
            raise error
        raise upstream.no_answer from error

    async def _upload(self, upstream: Upstream, head: bytes) -> None:
        """Pass head and body in, what is here at once in one piece, and no faster than it is read there."""
        parts = [head]
        with suppress(PandastackError, ClientGone, *_BROKEN):  # the answer says more
            if self._http.they_are_waiting_for_100_continue:
                await self._send(self._encode(h11.InformationalResponse(status_code=100, headers=[])))
            while True:
                try:
                    event = self._http.next_event()
                except h11.RemoteProtocolError:  # a broken body must not look like a whole one
                    self._socket.abort()
                    return
                if event is h11.NEED_DATA:
                    await upstream.send(_taken(parts))
                    self._http.receive_data(await self._socket.receive())
                elif isinstance(event, h11.Data):
                    parts.append(upstream.encode(event))
                elif isinstance(event, h11.EndOfMessage):
                    parts.append(upstream.encode(h11.EndOfMessage()))
                    await upstream.send(_taken(parts))
                    return

    async def _respond(self, visit: Visit | Call, upstream: Upstream, busy: ExitStack) -> None:
        event = await upstream.next_event()
        while isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            event = await upstream.next_event()
        if isinstance(event, h11.InformationalResponse) and isinstance(visit, Visit):
            await self._switch(event, visit, upstream, busy)
            return
        if not isinstance(event, h11.Response):
            raise upstream.no_answer
        headers = outward(event.headers.raw_items(), visit.how)
        if _is_endless(event):
            busy.close()  # listening alone does not keep a sandbox awake
        head = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        await self._pass_answer(head, upstream)

    async def _pass_answer(self, head: h11.Response, upstream: Upstream) -> None:
        """Pass head and body out, what is here at once in one piece."""
        parts = [self._encode(head)]
        while not isinstance(event := upstream.http.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                parts.append(self._encode(event))
            else:
                assert event is h11.NEED_DATA
                await self._send(_taken(parts))
                await upstream.receive()
        parts.append(self._encode(h11.EndOfMessage()))
        await self._send(_taken(parts))

    async def _switch(
        self, event: h11.InformationalResponse, visit: Visit, upstream: Upstream, busy: ExitStack
    ) -> None:
        """Pass bytes both ways from now on."""
        headers = outward(event.headers.raw_items(), visit.how)
        chosen = next((value for name, value in event.headers if name == b"upgrade"), b"websocket")
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", chosen)]
        if visit.protocol and not any(name.lower() == b"sec-websocket-protocol" for name, _ in headers):
            headers.append((b"Sec-WebSocket-Protocol", visit.protocol.encode("latin-1")))
        await self._send(self._encode(h11.InformationalResponse(status_code=101, headers=headers, reason=event.reason)))
        await self._pass(visit, upstream, busy, is_websocket=chosen.lower() == b"websocket")

    async def _switch_to_bytes(self, visit: Visit, busy: ExitStack) -> None:
        self._http.next_event()
        upstream = await self._upstreams.take(visit.route.sandbox, visit.route.port, Waker.MEMBER, fresh=True)
        try:
            headers = [(b"Connection", b"Upgrade"), (b"Upgrade", b"pandastack-stream")]
            await self._send(self._encode(h11.InformationalResponse(status_code=101, headers=headers)))
            await self._pass(visit, upstream, busy, is_websocket=False)
        finally:
            upstream.done.set()

    async def _pass(self, visit: Visit, upstream: Upstream, busy: ExitStack, *, is_websocket: bool) -> None:
        busy.close()
        self._socket.on_gone = None  # its end is passed in
        used = lambda: self._reach.use(visit.route.sandbox)  # noqa: E731
        first = self._http.trailing_data[0], upstream.http.trailing_data[0]
        try:
            await pass_bytes(self._socket, upstream.stream, first, used, is_websocket=is_websocket)
        except (PandastackError, anyio.ClosedResourceError) as error:
            self._socket.abort()
            raise ClientGone from error
        raise ClientGone

    def _encode(self, event: h11.Event) -> bytes:
        try:
            return self._http.send(event) or b""
        except h11.LocalProtocolError as error:
            raise GuestError("the server in the sandbox sent an answer that HTTP does not allow") from error

    async def _send(self, data: bytes) -> None:
        if data:
            await self._socket.send(data)

    async def _refuse(self, request: h11.Request, error: PandastackError, port: int | None) -> None:
        if isinstance(error, ServerError):
            log.info("gateway.refused", error=str(error))
        if self._http.states[h11.SERVER] in (h11.IDLE, h11.SEND_RESPONSE):
            await self._answer(pages.refusal(error, page=self._is_for_people(request), port=port))
        else:
            self._socket.abort()

    async def _answer(self, answer: pages.Answer) -> None:
        """The gateway's own answer."""
        status, headers, body = answer
        if self._http.states[h11.CLIENT] is h11.SEND_BODY and not self._http.they_are_waiting_for_100_continue:
            with suppress(h11.RemoteProtocolError):
                self._http.next_event()  # there may be no body at all
        with suppress(h11.LocalProtocolError):
            headers = [*headers, (b"content-length", str(len(body)).encode())]
            data = self._http.send(h11.Response(status_code=status, headers=headers))
            data = (data or b"") + (self._http.send(h11.Data(data=body)) or b"")
            await self._socket.send(data + (self._http.send(h11.EndOfMessage()) or b""))

    async def _linger(self) -> None:
        """Read on for a moment: a connection that is closed with unread bytes loses the answer, too."""
        if self._http.states[h11.CLIENT] is h11.SEND_BODY:
            self._socket.send_end()
            with anyio.move_on_after(_LINGER_SECONDS), suppress(ClientGone):
                while await self._socket.receive():
                    pass


def _taken(parts: list[bytes]) -> bytes:
    """The parts as one, which are no longer in the list."""
    whole = b"".join(parts)
    parts.clear()
    return whole


def _has_body(headers: Iterable[Header]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")) for name, value in headers
    )


def _is_endless(response: h11.Response) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in response.headers)


def _redirect(redirect: Redirect) -> pages.Answer:
    headers = [(b"location", redirect.location.encode("latin-1")), (b"referrer-policy", b"no-referrer")]
    headers.append((b"cache-control", b"no-store"))
    if redirect.cookie:
        headers.append((b"set-cookie", redirect.cookie.encode("latin-1")))
    return 303, headers, b""


def _bad_request(error: h11.RemoteProtocolError) -> pages.Answer:
    return _plain(error.error_status_hint, "this is not a valid HTTP request")


def _plain(status: int, text: str) -> pages.Answer:
    return pages.refusal(PandastackError(text, status_code=status), page=False)
