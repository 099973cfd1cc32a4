"""Relays the HTTP of one connection between a guest and a host, with values in the place of placeholders."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import h11
from anyio.abc import ByteStream

from pandastack.broker.answers import send_answer
from pandastack.broker.inspection import Begun, Inspector, begin_json
from pandastack.broker.mask import Mask
from pandastack.broker.peer import GONE, Peer
from pandastack.broker.requests import BadRequest, Forwarded, path_of, plan_request, with_length
from pandastack.broker.swap import Refused, Swapper
from pandastack.broker.tunnels import relay_websocket

_LINGER_SECONDS = 1.0
_IDLE_SECONDS = 900.0
"""How long a connection may wait for its next request."""

Report = Callable[[str, str, str, str], Awaitable[None]]
"""Takes name of the secret, method, path, and why the request was refused (empty: it was not)."""


class HostUnreachable(Exception):
    """The host's side of the connection could not be opened."""


@dataclass
class Relay:
    """One connection of a guest to ``host``. ``open_host`` gives the other side, or raises :class:`HostUnreachable`."""

    client: Peer
    open_host: Callable[[], Awaitable[ByteStream]]
    host: str
    swapper: Swapper
    report: Report
    _upstream: Peer | None = None
    _echoes: dict[bytes, None] = field(default_factory=dict)

    async def run(self) -> None:
        """Relay requests until one side closes, or a request is refused."""
        try:
            while await self._one_request():
                pass
        except h11.RemoteProtocolError as error:
            await self._deny(error.error_status_hint, f"malformed request: {error}")
        except (*GONE, h11.LocalProtocolError):
            pass  # a far end is gone: the other one is closed as well

    async def _one_request(self) -> bool:
        request = await self._next_request()
        if not isinstance(request, h11.Request):
            return False
        method, path = request.method.decode("latin-1")[:32], path_of(request.target)
        try:
            return await self._forward(request, method, path)
        except BadRequest as error:
            await self._deny(error.status, error.reason)
        except Refused as error:
            await self.report(error.name, method, "" if error.where == "path" else path, error.reason)
            await self._deny(403, error.reason, secret=error.name, hint=error.hint)
        except HostUnreachable as error:
            await self._deny(502, str(error))
        return False

    async def _next_request(self) -> object:
        """The next event of the client; None when the host closes the connection before, or nothing comes for long.

        A client that finds its idle connection closed sends the request on another; one that is answered 502 does not.
        """
        if self._upstream is None:
            with anyio.move_on_after(_IDLE_SECONDS):
                return await self.client.event()
            return None
        upstream, event, failure = self._upstream, None, list[Exception]()

        async def watch() -> None:
            with suppress(h11.RemoteProtocolError, *GONE):
                await upstream.event()
            tasks.cancel_scope.cancel()

        with anyio.move_on_after(_IDLE_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                try:
                    event = await self.client.event()
                except Exception as error:  # raised as it is, not inside an exception group
                    failure.append(error)
                tasks.cancel_scope.cancel()
        if failure:
            raise failure[0]
        return event

    async def _forward(self, request: h11.Request, method: str, path: str) -> bool:
        plan = plan_request(request.method, request.target, list(request.headers), self.host)
        head = self.swapper.head(plan.target, plan.headers)
        inspector, begun, used = Inspector(self.swapper, plan.coding), Begun(), dict.fromkeys(head.used)
        if self.client.http.they_are_waiting_for_100_continue:
            await self.client.send(h11.InformationalResponse(status_code=100, headers=[]))
        if plan.is_json:
            begun = await begin_json(self.client, plan.coding)
        body = begun.whole
        if body is not None:
            body, names = self.swapper.json(body)
            used |= dict.fromkeys(names)
        for piece in begun.pieces if body is None else ():
            inspector.feed(piece)
        for name in used:
            await self.report(name, method, path, "")
        self._echoes |= dict.fromkeys(head.echoes)
        upstream = await self._opened()
        headers = head.headers if body is None else with_length(head.headers, len(body))
        headers = _without_range(headers) if used else headers
        await upstream.send(h11.Request(method=request.method, target=head.target, headers=headers))
        if body is not None:
            await upstream.send(h11.Data(data=body))
            await upstream.send(h11.EndOfMessage())
            return await self._answer(upstream, plan, request.method == b"HEAD")
        return await self._pass_body(upstream, request, plan, begun, inspector)

    async def _opened(self) -> Peer:
        if self._upstream is None:
            self._upstream = Peer(await self.open_host(), h11.CLIENT)
        return self._upstream

    async def _pass_body(
        self, upstream: Peer, request: h11.Request, plan: Forwarded, begun: Begun, inspector: Inspector
    ) -> bool:
        """Pass the body on while the answer may come already."""
        failure: list[Exception] = []
        goes_on = False

        async def upload() -> None:
            try:
                await self._upload(upstream, begun, inspector)
            except (BadRequest, Refused, h11.RemoteProtocolError) as error:
                failure.append(error)
                tasks.cancel_scope.cancel()
            except GONE:
                pass  # the host does not want more of it; what it answers is passed on

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(upload)
            try:
                goes_on = await self._answer(upstream, plan, request.method == b"HEAD")
            except Exception as error:  # raised as it is, not inside an exception group
                failure.append(error)
            tasks.cancel_scope.cancel()
        if failure:
            raise failure[0]
        return goes_on

    async def _upload(self, upstream: Peer, begun: Begun, inspector: Inspector) -> None:
        for piece in begun.pieces:
            await upstream.send(h11.Data(data=piece))
        if begun.ended:
            await upstream.send(h11.EndOfMessage())
            return
        while isinstance(event := await self.client.event(), h11.Data):
            inspector.feed(event.data)
            await upstream.send(h11.Data(data=event.data))
        if isinstance(event, h11.EndOfMessage):
            await upstream.send(h11.EndOfMessage())

    async def _answer(self, upstream: Peer, plan: Forwarded, head: bool) -> bool:
        mask = Mask(self.swapper.values, self._echoes)
        try:
            upgraded = await send_answer(upstream, self.client, mask, websocket=plan.websocket, head=head)
        except h11.RemoteProtocolError as error:
            raise HostUnreachable(f"{self.host} broke the protocol: {error}") from error
        if upgraded:
            await relay_websocket(self.client, upstream, self.swapper, Mask(self.swapper.values, self._echoes))
            return False
        # The task that passes the body on ends with it, so it may still have to send the end of the request.
        if not (upstream.between_requests and self.client.between_requests):
            return False
        upstream.http.start_next_cycle()
        self.client.http.start_next_cycle()
        return True

    async def _deny(self, status: int, reason: str, *, secret: str = "", hint: str = "") -> None:
        """Answer in the place of the host, if it has not begun to, and end."""
        if self.client.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        facts = {"error": reason, "code": "secret_refused" if status == 403 else "broker", "host": self.host}
        facts |= {key: text for key, text in (("secret", secret), ("hint", hint)) if text}
        body = json.dumps(facts).encode() + b"\n"
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        try:
            await self.client.send(h11.Response(status_code=status, headers=headers))
            await self.client.send(h11.Data(data=body))
            await self.client.send(h11.EndOfMessage())
            with anyio.move_on_after(_LINGER_SECONDS):  # a close with unread data would take the answer along
                while await self.client.stream.receive():
                    pass
        except (*GONE, h11.LocalProtocolError):
            pass


def _without_range(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """An echo in two parts could not be masked."""
    return [each for each in headers if each[0] not in (b"range", b"if-range")]
