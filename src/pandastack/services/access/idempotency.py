"""Idempotency keys: a request that is sent again is not carried out again (docs/design/0021)."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from pandastack.errors import AnswerLostError, KeyInUseError, KeyReusedError, PandastackError
from pandastack.store import Store
from pandastack.store import idempotency as table
from pandastack.store.idempotency import KeyRecord

KEPT_SECONDS = 24 * 3600.0
MOST_ANSWER_BYTES = 64 * 1024
"""A larger answer is not stored: its key stays taken, and a repeat gets an error."""
MOST_KEYS = 10_000
"""Keys per token. Beyond this the oldest tenth is forgotten early."""
_SWEEP_SECONDS = 3600.0
_LOOK = "check whether its object exists; to create another one, use a new key"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Keyed:
    """A request with a key: its sender, the key, and a digest of everything that it asks for."""

    workspace: str
    token: str
    key: str
    fingerprint: str
    resumable: bool
    """Whether an interrupted attempt can be repeated: the object it made is found by its id."""


@dataclass(slots=True)
class Attempt:
    """One request with a key, while it is being answered.

    ``object_id`` is the id that the object gets. ``interrupted``: the server ended during an earlier attempt, so the
    object may exist. ``replayed`` is the answer of an earlier attempt, to be repeated.
    The block sets ``status`` once it knows the outcome, and ``answer`` if it is to be stored.
    """

    object_id: str
    interrupted: bool = False
    replayed: tuple[int, bytes] | None = None
    status: int | None = field(default=None, init=False)
    answer: bytes | None = field(default=None, init=False)


class IdempotencyKeys:
    """The keys of all tokens. The answer under each key is stored for 24 hours."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[tuple[str, str], str] = {}
        self._known: dict[str, set[str]] = {}
        """The keys of each token, in memory: a new key, the usual case, costs no query."""

    async def load(self) -> None:
        """Delete keys older than 24 hours, and read the others."""
        async with self._store.write() as connection:
            await table.remove_older(connection, time.time() - KEPT_SECONDS)
            known: dict[str, set[str]] = {}
            for token, key in await table.names(connection):
                known.setdefault(token, set()).add(key)
            self._known = known

    @asynccontextmanager
    async def attempt(self, request: Keyed) -> AsyncIterator[Attempt]:
        """A block that answers ``request``. A success is stored; after a failure the key is free again.

        Raises :class:`KeyReusedError` if the key belongs to another request, :class:`KeyInUseError` while the first
        request with it is being answered, :class:`AnswerLostError` if there is no answer to repeat.
        """
        name = request.token, request.key
        if (running := self._running.get(name)) is not None:
            _check_same(running, request)
            raise KeyInUseError("the first request with this idempotency key is still being answered")
        self._running[name] = request.fingerprint
        try:
            attempt = await self._begin(request)
            if attempt.replayed is not None:
                yield attempt
                return
            try:
                yield attempt
            finally:
                await self._end(request, attempt)
        finally:
            del self._running[name]

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Call :meth:`load` every hour, until cancelled."""
        task_status.started()
        while True:
            await anyio.sleep(_SWEEP_SECONDS)
            try:
                await self.load()
            except PandastackError as error:
                log.warning("idempotency.sweep_failed", cause=repr(error))

    async def _begin(self, request: Keyed) -> Attempt:
        now, is_known = time.time(), request.key in self._known.get(request.token, ())
        async with self._store.write() as connection:
            known = await table.find(connection, request.token, request.key) if is_known else None
            if known is not None and known.created_at >= now - KEPT_SECONDS:
                return _again(known, request)
            if known is not None:
                await table.remove(connection, request.token, request.key)
            object_id = str(uuid.uuid4())
            record = KeyRecord(request.token, request.key, request.workspace, request.fingerprint, object_id, now)
            await table.add(connection, record)
        keys = self._known.setdefault(request.token, set())
        keys.add(request.key)
        if len(keys) > MOST_KEYS:
            await self._make_room(request.token)
        return Attempt(object_id)

    async def _make_room(self, token: str) -> None:
        async with self._store.write() as connection:
            self._known[token] = set(await table.remove_oldest(connection, token, MOST_KEYS * 9 // 10))

    async def _end(self, request: Keyed, attempt: Attempt) -> None:
        """Store a success; free the key after a refusal; without an outcome, leave the key as it is.

        If this fails, the request's effects remain and the key counts as interrupted.
        """
        if attempt.status is None:
            return
        try:
            async with self._store.write() as connection:
                if 200 <= attempt.status < 300:
                    fits = len(attempt.answer or b"") <= MOST_ANSWER_BYTES
                    answer = attempt.answer if fits else None
                    await table.set_answer(connection, request.token, request.key, attempt.status, answer)
                elif not attempt.interrupted:  # else a refusal does not prove that the earlier attempt made nothing
                    await table.remove(connection, request.token, request.key)
                    self._known.get(request.token, set()).discard(request.key)
        except PandastackError as error:
            log.error("idempotency.answer_not_stored", cause=repr(error))


def _again(known: KeyRecord, request: Keyed) -> Attempt:
    """What an earlier request with the same key means for this one."""
    _check_same(known.fingerprint, request)
    if known.status is None and request.resumable:
        return Attempt(known.object_id, interrupted=True)
    if known.status is None:
        raise AnswerLostError("the server stopped during this request, which may have been carried out", hint=_LOOK)
    if known.answer is None:
        raise AnswerLostError("this request was carried out, but its answer was not stored", hint=_LOOK)
    return Attempt(known.object_id, replayed=(known.status, known.answer))


def _check_same(fingerprint: str, request: Keyed) -> None:
    if fingerprint != request.fingerprint:
        raise KeyReusedError("this idempotency key was used for another request", hint="use a new key per request")
