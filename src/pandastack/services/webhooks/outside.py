"""The way out for deliveries: public addresses and what the operator has added, with every certificate checked.

A name is looked up here and the address that was checked is the one that is connected to, so that a name which changes
between two look-ups leads nowhere else. Redirects are not followed, and of an answer only the status is told.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from socket import AF_INET, SOCK_STREAM
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpcore

from pandastack.model.forwarded import Network
from pandastack.model.network import FORBIDDEN

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 20.0
"""How long a receiver may take for everything, from the look-up of its name to the end of its answer."""
_MOST_ANSWER = 16 * 1024
"""Bytes of an answer that are read, and thrown away, so that its connection can be used again."""
_KEPT_CONNECTIONS = 32
_KEPT_SECONDS = 30.0

OwnNetworks = Callable[[], Sequence[str]]
"""Gives the host's own networks; may block for a moment."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt: the receiver's status, or None and what went wrong."""

    status: int | None
    error: str | None = None

    @property
    def taken(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300


class NotPublic(httpcore.ConnectError):
    """The name leads to no address that may be reached."""


class Reach:
    """Which addresses deliveries may go to. ``allowed`` are the operator's."""

    def __init__(self, allowed: Iterable[Network], own: OwnNetworks) -> None:
        self._allowed = tuple(allowed)
        self._own = own

    @property
    def has_exceptions(self) -> bool:
        """Whether the operator has allowed any network."""
        return bool(self._allowed)

    def is_allowed(self, address: IPv4Address) -> bool:
        """Whether the operator has allowed the address."""
        return any(address in each for each in self._allowed)

    async def may_reach(self, address: IPv4Address, *, plain: bool = False) -> bool:
        """Whether deliveries may go to the address; ``plain``: without TLS."""
        if self.is_allowed(address):
            return True
        if plain:
            return False
        own = await anyio.to_thread.run_sync(self._own)
        return not any(address in IPv4Network(each) for each in (*FORBIDDEN, *own))


class _Backend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked."""

    def __init__(self, reach: Reach, *, plain: bool) -> None:
        self._reach = reach
        self._plain = plain
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look the name up, and connect to the first of its addresses that may be reached and answers."""
        try:
            found = await anyio.getaddrinfo(host, port, family=AF_INET, type=SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the name is not known") from error
        addresses = [IPv4Address(each[4][0]) for each in found]
        allowed = [each for each in addresses if await self._reach.may_reach(each, plain=self._plain)]
        if not allowed:
            raise NotPublic("the name leads to no address that webhooks may reach")
        for each in allowed[:-1]:
            try:
                return await self._sockets.connect_tcp(str(each), port, timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._sockets.connect_tcp(str(allowed[-1]), port, timeout)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never: no URL names one."""
        raise NotPublic("webhooks have no sockets")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


class Outside:
    """Connections to receivers. Made by :func:`open_outside`; what costs time is made when something is sent."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}
        self._making = anyio.Lock()

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send one delivery. Raises nothing: what goes wrong is in the answer."""
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                return Answer(await self._post(url, headers, body))
        except NotPublic as error:
            return Answer(None, str(error))
        except (httpcore.TimeoutException, TimeoutError):
            return Answer(None, "the receiver did not answer in time")
        except httpcore.ConnectError as error:
            return Answer(None, _why(error))
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError, OSError, ValueError):
            return Answer(None, "the connection broke before the receiver had answered")

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        limits = {"connect": CONNECT_SECONDS, "read": ANSWER_SECONDS, "write": ANSWER_SECONDS, "pool": ANSWER_SECONDS}
        pool = await self._pool(urlsplit(url).scheme)
        async with pool.stream(
            "POST", url, headers=list(headers.items()), content=body, extensions={"timeout": limits}
        ) as response:
            left = _MOST_ANSWER
            async for piece in response.aiter_stream():
                left -= len(piece)
                if left < 0:
                    break
            return response.status

    async def _pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        async with self._making:
            if scheme not in self._pools:
                plain = scheme == "http"
                self._pools[scheme] = httpcore.AsyncConnectionPool(
                    # Reading the host's authorities takes a third of a second.
                    ssl_context=None if plain else await anyio.to_thread.run_sync(ssl.create_default_context),
                    network_backend=_Backend(self._reach, plain=plain),
                    max_keepalive_connections=_KEPT_CONNECTIONS,
                    keepalive_expiry=_KEPT_SECONDS,
                )
            return self._pools[scheme]


def _why(error: httpcore.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the receiver's certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "the receiver does not speak TLS"
        cause = cause.__cause__ or cause.__context__
    return "the receiver cannot be connected to"


@asynccontextmanager
async def open_outside(reach: Reach) -> AsyncIterator[Outside]:
    """Connections for deliveries, kept for a while, and closed at the end of the block."""
    outside = Outside(reach)
    try:
        yield outside
    finally:
        with anyio.CancelScope(shield=True):
            await outside.close()
