"""GitHub's webhooks as they come in: checked, each handled once, and handed to the products that asked for them."""

from __future__ import annotations

import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import anyio
import anyio.to_thread
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from pandastack.errors import AuthError, BadRequestError, NotFoundError, UnavailableError
from pandastack.services.github.connections import Connections
from pandastack.services.github.events import Event, Kind, is_signed, parse_event, payload_of
from pandastack.store import Store
from pandastack.store import github as table

MOST_BYTES = 5 * 1024 * 1024
KEPT_SECONDS = 4 * 24 * 3600.0
"""GitHub delivers again for three days."""
_HANDLING_SECONDS = 8.0
"""GitHub waits for ten."""
_SMALL = 64 * 1024
"""Bytes that are checked at once; more are checked beside the event loop."""
_SERVER = "server"
_DELIVERY = re.compile(r"[A-Za-z0-9-]{1,64}")
_PRUNE_SECONDS = 3600.0

log = structlog.get_logger(__name__)

Handler = Callable[[Event, str | None], Awaitable[None]]
"""Gets an event, and the workspace whose webhook it came by; None: the server's own, which serves all of them. What it
raises makes GitHub's delivery fail, and it gets the event once more if that is sent again. It must not take long."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request. Names of headers are in lower case."""

    headers: Mapping[str, str]
    body: bytes


class Hooks:
    """``server_secret`` is that of the server's own webhook; empty: there is none."""

    def __init__(self, store: Store, connections: Connections, server_secret: str) -> None:
        self._store = store
        self._connections = connections
        self._server_secret = server_secret
        self._handlers: defaultdict[Kind, list[Handler]] = defaultdict(list)
        self._in_hand: set[tuple[str, str]] = set()
        self._pruned = 0.0

    def on(self, kind: Kind, handler: Handler) -> None:
        """Have events of a kind handled."""
        self._handlers[kind].append(handler)

    async def receive(self, incoming: Incoming, connection_id: str | None = None) -> None:
        """Handle a delivery of a workspace's webhook, or of the server's own. One that was handled is fine.

        Raises :class:`AuthError` for a wrong signature, :class:`NotFoundError` for an unknown connection, and
        :class:`UnavailableError` when the server has no webhook of its own.
        """
        secret, workspace = await self._secret(connection_id)
        headers, hook = incoming.headers, connection_id or _SERVER
        if not await _is_signed(secret, incoming):
            raise AuthError("the signature is wrong", hint="the webhook's secret at GitHub must be the one given here")
        delivery_id = headers.get("x-github-delivery", "")
        if not _DELIVERY.fullmatch(delivery_id):
            raise BadRequestError("the header X-GitHub-Delivery is missing, or makes no sense")
        digest = hashlib.sha256(incoming.body).hexdigest()
        keys = {(hook, delivery_id), (hook, digest)}
        if keys & self._in_hand or await self._is_handled(hook, delivery_id, digest):
            return
        self._in_hand |= keys
        try:
            await self._dispatch(incoming, workspace)
            async with self._store.write() as connection:
                await table.add_handled(connection, hook, delivery_id, digest, time.time())
                await self._prune(connection)
        finally:
            self._in_hand -= keys

    async def _dispatch(self, incoming: Incoming, workspace: str | None) -> None:
        name = incoming.headers.get("x-github-event", "")
        payload = payload_of(incoming.headers.get("content-type", ""), incoming.body)
        event = None if payload is None else parse_event(name, payload)
        if event is None:
            log.info("github.event_left_alone", github_event=name[:64])
            return
        with anyio.move_on_after(_HANDLING_SECONDS) as scope:
            for handler in self._handlers[Kind(name)]:
                await handler(event, workspace)
        if scope.cancelled_caught:
            raise UnavailableError("the event could not be handled in time", hint="deliver it again")

    async def _secret(self, connection_id: str | None) -> tuple[str, str | None]:
        if connection_id is None:
            if not self._server_secret:
                hint = "the operator sets PANDASTACK_GITHUB_WEBHOOK_SECRET"
                raise UnavailableError("this server has no webhook for GitHub", hint=hint)
            return self._server_secret, None
        found = await self._connections.find_by_id(connection_id)
        if found is None:
            raise NotFoundError("there is no such webhook")
        return found.hook_secret, found.workspace

    async def _is_handled(self, hook: str, delivery_id: str, digest: str) -> bool:
        async with self._store.read() as connection:
            return await table.is_handled(connection, hook, delivery_id, digest)

    async def _prune(self, connection: AsyncConnection) -> None:
        if (now := time.time()) - self._pruned > _PRUNE_SECONDS:
            self._pruned = now
            await table.forget_handled(connection, now - KEPT_SECONDS)


async def _is_signed(secret: str, incoming: Incoming) -> bool:
    signature = incoming.headers.get("x-hub-signature-256", "")
    if len(incoming.body) <= _SMALL:
        return is_signed(secret, incoming.body, signature)
    return await anyio.to_thread.run_sync(is_signed, secret, incoming.body, signature)
