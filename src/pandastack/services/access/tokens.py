"""API tokens and the callers that they identify."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from pandastack.errors import AuthError, NotFoundError
from pandastack.model.caller import Caller
from pandastack.store import Store, tokens
from pandastack.store.schema import DEFAULT_WORKSPACE
from pandastack.store.tokens import TokenRecord

_TRUSTED_SECONDS = 30.0
"""How long a token is trusted without asking the store: the longest delay of a revocation by another process."""
_PREFIX_LENGTH = len("pds_") + 8
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    until: float


class Access:
    """Checks, makes, lists and revokes tokens."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}

    async def identify(self, token: str) -> Caller:
        """The caller that ``token`` identifies; raises :class:`AuthError`. A token seen a moment ago costs no query."""
        digest = _digest(token)
        known = self._known.get(digest)
        if known is not None and time.time() < known.until:
            return known.caller
        return await self._look_up(digest)

    def has_seen(self, token: str) -> bool:
        """Whether ``token`` was valid when it was last looked up."""
        return _digest(token) in self._known

    async def first_token(self, deliver: Callable[[str], None]) -> None:
        """If there are no tokens yet, create one and pass its text to ``deliver``; if that fails, none is created."""
        async with self._store.write() as connection:
            if await tokens.count(connection) == 0:
                text, record = _new(DEFAULT_WORKSPACE, "first start", None)
                await tokens.add(connection, record)
                deliver(text)

    async def create(self, caller: Caller, label: str, expires_in_days: int | None) -> tuple[str, TokenRecord]:
        """Create a token. Returns its text, which is shown only this once, and its record."""
        text, record = _new(caller.workspace, label, expires_in_days)
        async with self._store.write() as connection:
            await tokens.add(connection, record)
        return text, record

    async def list(self, caller: Caller) -> list[TokenRecord]:
        """The workspace's tokens, oldest first."""
        async with self._store.read() as connection:
            return await tokens.of_workspace(connection, caller.workspace)

    async def revoke(self, caller: Caller, prefix: str) -> None:
        """Revoke a token, named by its prefix, at once. Raises :class:`NotFoundError`."""
        async with self._store.write() as connection:
            if not await tokens.remove(connection, caller.workspace, prefix):
                raise NotFoundError("token not found", hint="the list of tokens shows the prefixes that exist")
        self._known = {key: known for key, known in self._known.items() if known.caller.token != prefix}

    async def _look_up(self, digest: str) -> Caller:
        self._known.pop(digest, None)
        async with self._store.read() as connection:
            record = await tokens.by_hash(connection, digest)
        now = time.time()
        if record is None:
            raise AuthError("invalid api token")
        if record.expires_at is not None and record.expires_at <= now:
            raise AuthError("expired api token")
        caller = Caller(record.workspace, record.workspace, token=record.prefix)
        self._known[digest] = _Known(caller, min(now + _TRUSTED_SECONDS, record.expires_at or float("inf")))
        return caller


def _new(workspace: str, label: str, expires_in_days: int | None) -> tuple[str, TokenRecord]:
    text, now = "pds_" + secrets.token_hex(16), time.time()
    expires_at = None if expires_in_days is None else now + expires_in_days * _DAY
    return text, TokenRecord(_digest(text), workspace, text[:_PREFIX_LENGTH], label, now, expires_at)


def _digest(token: str) -> str:
    # A token is 128 random bits: a plain hash is enough, there is nothing to guess from a dictionary.
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
