"""Where a request goes, and whether it may: by host name, by token, or as the API said."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
import h11

from pandastack.errors import AuthError, ForbiddenError, NotFoundError, PandastackError, UnavailableError
from pandastack.gateway.control import FUNCTION_PATH, Control, Route
from pandastack.gateway.http.grants import Grant
from pandastack.gateway.http.heads import Inward, checked
from pandastack.gateway.http.names import (
    TOKEN_PATH,
    allowed_path,
    check_path,
    check_plain_path,
    function_of,
    host_name,
    preview_of,
    token_path,
)
from pandastack.gateway.http.pages import is_navigation
from pandastack.gateway.http.tokens import QUERY, Found, cookie, take_token
from pandastack.model.forwarded import Client, Network, client_of
from pandastack.model.services import service_at

TRUST_SECONDS = 1.0
"""How long an answer of the control plane is used again: the longest delay of a revocation."""
_AWAY_SECONDS = 20.0
"""How long a request waits for a control plane that restarts."""
_MOST_KNOWN = 4096

_Key = tuple[str | int | None, ...]


@dataclass(frozen=True, slots=True)
class Visit:
    """One request to a sandbox. ``headers`` and ``target`` are without the preview's token."""

    route: Route
    how: Inward
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    protocol: str | None = None
    """The subprotocol that carried the token: a browser wants one of those that it offered."""
    raw: bool = False
    """Whether the bytes after the switch are the connection's own, not HTTP."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a function, which the control plane answers. ``target`` is the path there."""

    how: Inward
    target: str
    headers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Redirect:
    """The request is to be made elsewhere."""

    location: str
    cookie: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The door that a request came through. ``inner``: the control plane's, which says where a request goes.

    ``trusted`` are the networks of the proxies that are believed about their clients.
    """

    suffixes: tuple[str, ...]
    scheme: str = "http"
    inner: bool = False
    trusted: tuple[Network, ...] = ()
    own_port: int | None = None
    """The port of the door for host names."""
    grant: Grant | None = None
    """Who calls for what, if it is the door inward."""

    @property
    def domains(self) -> list[str]:
        """The suffixes without ports."""
        return [suffix.partition(":")[0] for suffix in self.suffixes]


@dataclass(slots=True)
class _Question:
    """What one request asks the control plane while others wait for the answer."""

    over: anyio.Event = field(default_factory=anyio.Event)
    failure: PandastackError | None = None


class Routes:
    """Asks the control plane, and remembers its answers for a moment."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._known: dict[_Key, tuple[float, Route | PandastackError]] = {}
        self._asking: dict[_Key, _Question] = {}

    async def visit(self, request: h11.Request, place: Place, peer: str) -> Visit | Call | Redirect:
        """Where the request goes. Raises :class:`BadRequestError`, :class:`AuthError`, :class:`NotFoundError`."""
        authority, target = checked(request)
        check_path(target)
        headers = tuple(request.headers.raw_items())
        if place.grant is not None:
            return await self._inward(place.grant, authority, target, headers)
        if place.inner and (told := _told(request)):
            return await self._as_told(told, authority, target, headers)
        name = host_name(authority) if authority else ""
        if not place.inner:
            client = client_of(request.headers, Client(peer, place.scheme), place.trusted)
            place, peer = replace(place, scheme=client.scheme), client.address
            if (function := function_of(name, place.domains)) is not None:
                how = Inward(0, authority, place.scheme, peer, "keep")
                return Call(how, f"{FUNCTION_PATH}/{function}/http{target}", headers)
        if found := token_path(target):
            return await self._by_token(request, place, peer, authority, found[0], found[1], headers)
        if place.inner or target.startswith(TOKEN_PATH):
            raise AuthError("this is not a token of a preview")
        return await self._by_name(request, place, peer, authority, name, take_token(target, headers))

    async def _by_name(
        self, request: h11.Request, place: Place, peer: str, authority: str, name: str, found: Found
    ) -> Visit | Redirect:
        preview = preview_of(name, place.domains)
        if preview is None:
            form = f"{{port}}-{{sandbox id}}.{place.suffixes[0]}" if place.suffixes else "/v1/p/{token}/"
            raise NotFoundError(f"no preview is at {name[:100] or 'this address'}", hint=f"previews are at {form}")
        route = await self.route(preview.sandbox, preview.port, found.token)
        if found.token and route.paths:
            check_plain_path(found.target)
            _check_allowed(found.target, route)
        if found.in_query and found.token and route.expires_at and is_navigation(request.method, request.headers):
            seconds = int(route.expires_at - time.time())
            return Redirect(found.target, cookie(found.token, tls=place.scheme == "https", seconds=seconds))
        how = Inward(route.port, authority, place.scheme, peer, route.host, route.origin)
        return Visit(route, how, found.target, found.headers, found.protocol)

    async def _by_token(
        self,
        request: h11.Request,
        place: Place,
        peer: str,
        authority: str,
        token: str,
        target: str,
        headers: tuple[tuple[bytes, bytes], ...],
    ) -> Visit | Redirect:
        check_plain_path(target)
        route = await self.route(None, None, token)
        _check_allowed(target, route)
        told = dict(request.headers)
        scheme = told.get(b"x-pandastack-scheme", b"").decode("latin-1") if place.inner else place.scheme
        if place.inner:
            peer = told.get(b"x-pandastack-client", b"").decode("latin-1")
        if told.get(b"sec-fetch-mode") == b"navigate" and (base := _named(place, route, authority, scheme)):
            mark = "&" if "?" in target else "?"
            return Redirect(f"{base}{target}{mark}{QUERY}={token}")
        prefix = f"{TOKEN_PATH}{token}"
        return Visit(
            route,
            Inward(route.port, authority, scheme or "http", peer, route.host, route.origin, prefix),
            target,
            headers,
        )

    async def _as_told(
        self, told: dict[str, str], authority: str, target: str, headers: tuple[tuple[bytes, bytes], ...]
    ) -> Visit:
        """The control plane has checked the caller already."""
        port = int(told.get("port", "0"))
        route = await self.route(told["sandbox"], port, None, checked=True)
        how = Inward(
            port,
            authority,
            told.get("scheme", "http"),
            told.get("client", ""),
            route.host,
            route.origin,
            told.get("prefix", ""),
        )
        return Visit(route, how, target, headers, raw=bool(told.get("raw")))

    async def _inward(
        self, grant: Grant, authority: str, target: str, headers: tuple[tuple[bytes, bytes], ...]
    ) -> Visit:
        """The slot says who calls, and the caller's policy is the permission: tokens have no part in it."""
        service = service_at(host_name(authority)) if authority else None
        if str(service) != grant.service:
            raise NotFoundError(f"this connection is for the service {grant.service}", hint="make another one")
        ask = partial(self._control.inward_route, caller=grant.caller, service=grant.service)
        route = await self._recall(("(inward)", grant.caller, grant.service), ask)
        how = Inward(route.port, authority, "http", "", route.host, route.origin, caller=grant.caller)
        return Visit(route, how, target, headers)

    async def route(self, sandbox: str | None, port: int | None, token: str | None, *, checked: bool = False) -> Route:
        """The control plane's answer, at most :data:`TRUST_SECONDS` old."""
        ask = partial(self._control.route, sandbox=sandbox, port=port, token=token, checked=checked)
        return await self._recall((sandbox, port, "(checked)" if checked else token), ask)

    async def _recall(self, key: _Key, ask: Callable[[], Awaitable[Route]]) -> Route:
        """What is known, or else the answer of ``ask``, which one of many requests asks for all."""
        while (known := self._fresh(key)) is None:
            if (question := self._asking.get(key)) is None:
                await self._learn(key, ask)
            else:
                await question.over.wait()
                if question.failure is not None:
                    raise question.failure
        if isinstance(known, PandastackError):
            raise known
        return known

    def _fresh(self, key: _Key) -> Route | PandastackError | None:
        known = self._known.get(key)
        return None if known is None or known[0] < anyio.current_time() else known[1]

    async def _learn(self, key: _Key, ask: Callable[[], Awaitable[Route]]) -> None:
        question = self._asking[key] = _Question()
        try:
            answer = await _patiently(ask)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = anyio.current_time() + TRUST_SECONDS, answer
        except PandastackError as error:
            question.failure = error
            raise
        finally:  # when this request's client left, another one asks
            del self._asking[key]
            question.over.set()


async def _patiently(ask: Callable[[], Awaitable[Route]]) -> Route | PandastackError:
    """The answer, also if that is an error. A control plane that is away gets its time."""
    deadline = anyio.current_time() + _AWAY_SECONDS
    while True:
        try:
            return await ask()
        except UnavailableError:
            if anyio.current_time() > deadline:
                raise
            await anyio.sleep(0.1)
        except PandastackError as error:
            return error


def _check_allowed(target: str, route: Route) -> None:
    if not allowed_path(target, route.paths):
        raise ForbiddenError("the token does not allow this path", field="path")


def _told(request: h11.Request) -> dict[str, str] | None:
    start = b"x-pandastack-"
    told = {
        name.removeprefix(start).decode(): value.decode("latin-1")
        for name, value in request.headers
        if name.startswith(start)
    }
    return told if "sandbox" in told else None


def _named(place: Place, route: Route, authority: str, scheme: str) -> str | None:
    """The address by host name of the same preview, if the client can reach it."""
    port, suffix = place.own_port, place.suffixes[0] if place.suffixes else ""
    if port is None or not suffix:
        return None
    if suffix == "localhost" and authority.rpartition(":")[0].strip("[]") not in ("localhost", "127.0.0.1", "::1"):
        return None
    return f"{scheme or 'http'}://{route.port}-{route.sandbox}.{suffix if ':' in suffix else f'{suffix}:{port}'}"
