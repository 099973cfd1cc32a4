"""The one way out of the namespace in which images are fetched: a proxy that decides about each connection.

The program in there has no other network and no name server. It asks for a name; the door looks the name up, checks the
address, and connects to that very address. So a redirect is a connection like any other, and a name that changes its
address between two looks gains nothing.
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import anyio

from pandastack.egress.http_head import HEAD_LIMIT, Head, MalformedHead, parse_head
from pandastack.egress.sockets import finish, prepare, receive, reset, send
from pandastack.model.registries import REGISTRIES, AllowedRegistry

MOST_CONNECTIONS = 64
DIAL_SECONDS, HEAD_SECONDS = 20.0, 20.0

_OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_HOP_FIELDS = (b"connection:", b"proxy-connection:", b"proxy-authorization:", b"keep-alive:")


class Refused(Exception):
    """The policy does not allow this connection; the text says why, to the author of the build."""


@dataclass(frozen=True)
class Policy:
    """``allowed`` are the operator's registries, which may be anywhere; ``forbidden`` are the networks that nothing
    else may be in."""

    allowed: Sequence[AllowedRegistry]
    forbidden: Sequence[str]

    def registry(self, host: str, port: int) -> AllowedRegistry | None:
        return next((each for each in self.allowed if (each.host, each.port) == (host, port)), None)

    def is_forbidden(self, address: str) -> bool:
        networks = (IPv4Network(each) for each in self.forbidden if ":" not in each)
        return any(IPv4Address(address) in network for network in networks)


@dataclass
class Door:
    """Serves the listeners in one namespace. ``budget`` is how many bytes may come in; ``on_bytes`` is called with how
    many have. ``refused`` has the reasons of refusals, ``failed`` why hosts were not reached."""

    policy: Policy
    budget: int
    on_bytes: Callable[[int], None] = lambda received: None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    received: int = 0
    refused: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def is_exhausted(self) -> bool:
        """Whether more came than may."""
        return self.received > self.budget

    async def serve(self, listener: socket.socket) -> None:
        """Serve connections as a proxy."""
        await self._accept(listener, self._proxy)

    async def lead(self, listener: socket.socket, registry: AllowedRegistry) -> None:
        """Lead connections to a registry of this host."""
        await self._accept(listener, partial(self._lead, (registry.address, registry.port)))

    async def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], object]) -> None:
        places = anyio.Semaphore(MOST_CONNECTIONS)
        async with anyio.create_task_group() as tasks:
            while True:
                await places.acquire()
                await anyio.wait_readable(listener)
                try:
                    client, _ = listener.accept()
                except OSError:  # it has left already
                    places.release()
                    continue
                tasks.start_soon(self._carry, client, serve, places)

    async def _carry(self, client: socket.socket, serve: Callable[..., object], places: anyio.Semaphore) -> None:
        try:
            with client, suppress(OSError, TimeoutError):
                prepare(client)
                await serve(client)  # type: ignore[misc]
        finally:
            places.release()

    async def _proxy(self, client: socket.socket) -> None:
        try:
            with anyio.fail_after(HEAD_SECONDS):
                head, data = await _read_head(client)
        except MalformedHead as error:
            await _answer(client, "400 Bad Request", str(error))
            return
        try:
            upstream = await self._reach(head)
        except Refused as error:
            self.refused.append(str(error))
            await _answer(client, "403 Forbidden", str(error))
        except (OSError, TimeoutError) as error:
            self.failed.append(str(error) or f"{head.name or head.address} does not answer")
            await _answer(client, "502 Bad Gateway", self.failed[-1])
        else:
            with upstream:
                if head.connect:
                    await send(client, _OPENED)
                    await self._copy(client, upstream, data[head.size :])
                else:
                    await self._copy(client, upstream, _as_to_origin(data, head))

    async def _lead(self, target: tuple[str, int], client: socket.socket) -> None:
        with await _dial([target[0]], target[1]) as upstream:
            await self._copy(client, upstream, b"")

    async def _reach(self, head: Head) -> socket.socket:
        """Connect to whom the request is for. Raises :class:`Refused`, ``OSError`` and ``TimeoutError``."""
        host, port = head.name or head.address or "", head.port or 0
        if not head.forwarded:
            raise Refused("a request that is not for a proxy")
        registry = self.policy.registry(host, port)
        if not head.connect and (registry is None or not registry.plain):
            raise Refused(f"{host}:{port} speaks plain HTTP, which only registries in {REGISTRIES} may")
        if registry is not None:
            return await _dial([head.address] if head.address else await _look_up(host), port)
        addresses = [head.address] if head.address else await _look_up(host, missing=bool(self._proxy_for(host)))
        if forbidden := [each for each in addresses if self.policy.is_forbidden(each)]:
            at = host if head.address else f"{host} is at {forbidden[0]}, and that address"
            raise Refused(
                f"{at} is not on the public internet; the operator can allow a registry there with {REGISTRIES}"
            )
        if proxy := self._proxy_for(host):
            return await _dial_through(proxy, host, port)
        return await _dial(addresses, port)

    def _proxy_for(self, host: str) -> SplitResult | None:
        """The host's own proxy, if it has one for this name."""
        wanted = {name.lower(): text for name, text in self.environment.items() if text}
        proxies = {"no": wanted.get("no_proxy", "")}
        address = wanted.get("https_proxy", "")
        if not address or proxy_bypass_environment(host, proxies):
            return None
        return urlsplit(address if "//" in address else f"http://{address}")

    async def _copy(self, client: socket.socket, upstream: socket.socket, first: bytes) -> None:
        """Copy both ways until both have ended. The end of the budget ends the connection."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._pump_in, upstream, client, tasks.cancel_scope)
            try:
                await send(upstream, first)
                while data := await receive(client):
                    await send(upstream, data)
                finish(upstream)
            except OSError:
                tasks.cancel_scope.cancel()

    async def _pump_in(self, upstream: socket.socket, client: socket.socket, scope: anyio.CancelScope) -> None:
        try:
            while data := await receive(upstream):
                self.received += len(data)
                if self.is_exhausted:
                    reset(client)
                    break
                self.on_bytes(self.received)
                await send(client, data)
            finish(client)
        except OSError:
            pass
        scope.cancel()


async def _read_head(client: socket.socket) -> tuple[Head, bytes]:
    data = b""
    while True:
        if (head := parse_head(data)) is not None:
            return head, data
        piece = await receive(client, HEAD_LIMIT)
        if not piece:
            raise MalformedHead("the request ends within its head")
        data += piece


def _as_to_origin(data: bytes, head: Head) -> bytes:
    """A request to a proxy as one to the server itself, and the last of its connection."""
    lines = data[: head.size - 4].split(b"\r\n")
    method, target, version = lines[0].split(b" ")
    path = b"/" + target.split(b"//", 1)[1].partition(b"/")[2]
    fields = [line for line in lines[1:] if not line.lower().startswith(_HOP_FIELDS)]
    return b"\r\n".join([b" ".join((method, path, version)), *fields, b"Connection: close", b"", data[head.size :]])


async def _answer(client: socket.socket, status: str, reason: str) -> None:
    body = reason.encode() + b"\n"
    fields = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    await send(client, fields.encode() + body)


async def _look_up(host: str, *, missing: bool = False) -> list[str]:
    """The IPv4 addresses of a name, as this host's resolver knows them. With ``missing`` there may be none."""
    try:
        with anyio.fail_after(DIAL_SECONDS):
            found = await anyio.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        if missing:
            return []
        raise OSError(f"the name {host} cannot be resolved") from error
    return [str(address[0]) for *_, address in found]


async def _dial(addresses: Sequence[str], port: int) -> socket.socket:
    for address in addresses:
        upstream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            prepare(upstream)
            with anyio.fail_after(DIAL_SECONDS / 2):
                await _connect(upstream, address, port)
            return upstream
        except (OSError, TimeoutError):
            upstream.close()
        except BaseException:
            upstream.close()
            raise
    raise OSError(f"nothing answers at port {port} of {', '.join(addresses[:4]) or 'no address'}")


async def _connect(upstream: socket.socket, address: str, port: int) -> None:
    with suppress(BlockingIOError):
        upstream.connect((address, port))
    await anyio.wait_writable(upstream)
    if error := upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, os.strerror(error))


async def _dial_through(proxy: SplitResult, host: str, port: int) -> socket.socket:
    """A connection by way of the host's own proxy, which the operator trusts to decide about names."""
    upstream = await _dial(await _look_up(proxy.hostname or ""), proxy.port or 80)
    try:
        word = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}".encode()
        sign_in = f"Proxy-Authorization: Basic {base64.b64encode(word).decode()}\r\n" if proxy.username else ""
        await send(upstream, f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{sign_in}\r\n".encode())
        answer = b""
        with anyio.fail_after(DIAL_SECONDS):
            while not answer.endswith(b"\r\n\r\n"):
                if len(answer) > HEAD_LIMIT or not (piece := await receive(upstream, 1)):
                    raise OSError("the host's proxy does not answer")
                answer += piece
        if answer.split(b" ")[1:2] != [b"200"]:
            raise OSError(f"the host's proxy refuses {host}:{port}")
        return upstream
    except BaseException:
        upstream.close()
        raise
