"""What the gateway asks the control plane, over a Unix socket of this user: where, whether, and who is awake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import httpx
from anyio.abc import SocketStream

from pandastack.errors import CapacityError, PandastackError, RateLimitError, UnavailableError, from_body
from pandastack.model.databases import DatabaseRoute
from pandastack.model.previews import Waker

FUNCTION_PATH = "/internal/functions"
"""Below it the control plane answers requests for functions."""
_ANSWER_SECONDS = 10.0
_WAKE_SECONDS = 300.0
_AWAY_SECONDS = 20.0
"""How long a connection waits for a server that restarts."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes. ``host`` and ``origin`` are the port's switches: ``rewrite``, ``keep`` or a value."""

    sandbox: str
    port: int
    running: bool = False
    host: str = "rewrite"
    origin: str = "keep"
    paths: tuple[str, ...] = ()
    """Prefixes that a token is limited to; empty: all."""
    expires_at: float | None = None
    """When the token that came with it expires (epoch seconds)."""
    waker: Waker = Waker.VISITOR
    """Whose request it is: whether it wakes a sleeping sandbox depends on that."""


@dataclass(frozen=True, slots=True)
class States:
    """What became of the sandboxes that were asked for."""

    running: frozenset[str] = field(default_factory=frozenset)
    gone: frozenset[str] = field(default_factory=frozenset)


class Control:
    """Every method raises the control plane's errors, and :class:`UnavailableError` while it does not answer."""

    def __init__(self, client: httpx.AsyncClient, path: Path) -> None:
        self._client = client
        self._path = path

    @classmethod
    def connect(cls, path: Path) -> Self:
        """A client for the socket at ``path``. Use it inside ``async with``."""
        limits = httpx.Limits(max_connections=64)
        transport = httpx.AsyncHTTPTransport(uds=str(path), limits=limits, verify=False)  # no TLS is spoken there
        return cls(httpx.AsyncClient(transport=transport, base_url="http://control", timeout=_ANSWER_SECONDS), path)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    async def dial(self) -> SocketStream:
        """A connection for one request that is passed on, whose answer may be endless."""
        deadline = anyio.current_time() + _AWAY_SECONDS
        while True:
            try:
                return await anyio.connect_unix(self._path)
            except OSError as error:
                if anyio.current_time() > deadline:
                    raise UnavailableError("the server does not answer") from error
            await anyio.sleep(0.1)

    async def ask(self, path: str, message: Mapping[str, Any], seconds: float = _ANSWER_SECONDS) -> dict[str, Any]:
        """``POST path`` with a JSON object; the answer is one too."""
        try:
            response = await self._client.post(path, json=message, timeout=seconds)
            body = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise UnavailableError("the server does not answer") from error
        if not isinstance(body, dict):
            raise UnavailableError("the server's answer is malformed")
        if response.is_error:
            raise _refusal(response, body)
        return body

    async def route(
        self, *, sandbox: str | None = None, port: int | None = None, token: str | None = None, checked: bool = False
    ) -> Route:
        """The route of a preview, by sandbox and port, by token, or by all three; ``checked``: the caller may use it.

        Raises :class:`AuthError` when the preview wants a token or the token is not valid, :class:`NotFoundError`.
        """
        message = {"sandbox": sandbox, "port": port, "token": token, "checked": checked}
        answer = await self.ask("/internal/route", message)
        return _route(answer)

    async def inward_route(self, *, caller: str, service: str) -> Route:
        """The route of a service that the sandbox ``caller`` wants to reach.

        Raises :class:`NotFoundError` unless its policy lists the service and its workspace has it.
        """
        answer = await self.ask("/internal/inward", {"caller": caller, "service": service})
        return _route(answer)

    async def wake(self, sandbox: str, waker: Waker) -> None:
        """Return once the sandbox runs. Raises :class:`ConflictError` when it cannot, :class:`NotFoundError`,
        :class:`AsleepError` when ``waker`` does not wake it, :class:`RateLimitError`."""
        await self.ask("/internal/wake", {"sandbox": sandbox, "waker": waker}, _WAKE_SECONDS)

    async def certificate(self, name: str) -> tuple[str, float]:
        """Private key and certificate chain (PEM) to show for ``name``, and the seconds after which to ask again."""
        answer = await self.ask("/internal/certificate", {"name": name})
        return str(answer["pem"]), float(answer["seconds"])

    async def database_route(self, database: str) -> DatabaseRoute:
        """The route of a database. Raises :class:`NotFoundError` when there is none."""
        answer = await self.ask(f"/internal/databases/{database}/route", {})
        return DatabaseRoute(str(answer["sandbox"]), int(answer["port"]), int(answer["max_connections"]))

    async def announce_databases(self, port: int) -> None:
        """Tell where clients of databases are answered."""
        await self.ask("/internal/databases/door", {"port": port})

    async def activity(self, used: Sequence[str], connected: Sequence[str], asked: Sequence[str]) -> States:
        """Report which sandboxes' clients sent bytes, and which have connections; learn what became of ``asked``."""
        message = {"used": list(used), "connected": list(connected), "asked": list(asked)}
        answer = await self.ask("/internal/activity", message)
        return States(frozenset(answer["running"]), frozenset(answer["gone"]))


def _route(answer: Mapping[str, Any]) -> Route:
    return Route(**{**answer, "paths": tuple(answer.get("paths", ())), "waker": Waker(answer["waker"])})


def _refusal(response: httpx.Response, body: Mapping[str, Any]) -> PandastackError:
    error = from_body(response.status_code, body)
    seconds = response.headers.get("retry-after", "")
    if isinstance(error, RateLimitError | CapacityError) and seconds.isascii() and seconds.isdecimal():
        error.retry_after = int(seconds)
    return error
