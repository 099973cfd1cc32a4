"""A session of the tenant's role, for the statements of one request."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import ByteStream

from pandastack.errors import BadRequestError, GuestError, NotFoundError, PandastackError, QuotaError, UnavailableError
from pandastack.products.databases.query import messages
from pandastack.products.databases.query.messages import Column, Cutter, Refusal, malformed
from pandastack.products.databases.query.spec import MOST_ANSWER, Statement
from pandastack.products.databases.query.values import is_foreign, parameter
from pandastack.products.databases.wire import Gone
from pandastack.services.output_budget import Lease

_OVER = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError)
_GOODBYE_SECONDS = 1.0
_SKIPPED = b"12KNSAIns"
_COPY = b"GHW"
_NAMES = (
    "SELECT t.oid::pg_catalog.text, pg_catalog.format_type(t.oid, NULL) FROM pg_catalog.pg_type t"
    " WHERE t.oid::pg_catalog.text = ANY (pg_catalog.string_to_array($1, ','))"
)
STARTING = ("57P01", "57P02", "57P03")
"""SQLSTATE: the server starts, or stops to start anew."""
_UNAVAILABLE = ("53", "57P")
_HINTS = {
    "57014": "it took longer than timeout_ms",
    "25006": "it was sent with read_only",
}


@dataclass(slots=True)
class Outcome:
    """What a statement gave: rows as the server encodes them, and how many it affected. ``cut``: there were more."""

    columns: list[Column] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    affected: int | None = None
    cut: bool = False


@dataclass(slots=True)
class _Seen(Outcome):
    parameters: list[int] = field(default_factory=list)
    refusal: Refusal | None = None
    in_transaction: bool = False
    ended: bool = False


class SqlRefused(BadRequestError):
    """The server refuses a statement."""

    code = "sql_error"


class TenantSession:
    """One statement at a time. What the server sends is limited in length, and counts against ``lease``."""

    def __init__(self, stream: ByteStream, lease: Lease) -> None:
        self._stream = stream
        self._cutter = Cutter()
        self._lease = lease
        self._left = MOST_ANSWER

    async def start(self, settings: Mapping[str, str]) -> None:
        """Begin. Raises :class:`Gone`, and the errors of :func:`refused`."""
        await self._exchange(messages.startup(settings))

    async def begin(self, *, read_only: bool) -> None:
        """Begin a transaction. Its first query is ours: after it, no SQL makes a read-only one writable."""
        await self._exchange(messages.simple(f"BEGIN{' READ ONLY' if read_only else ''}; SELECT 1"), keep=False)

    async def commit(self) -> None:
        """Commit it. What was deferred is checked now: the errors of :func:`refused`."""
        await self._exchange(messages.simple("COMMIT"))

    async def run(self, statement: Statement, most_rows: int, *, in_transaction: bool = False) -> Outcome:
        """Carry out one statement. ``in_transaction``: it must not end the transaction.

        Raises the errors of :func:`refused`, :class:`BadRequestError` and :class:`GuestError`.
        """
        prepared = messages.prepare(statement.sql)
        kinds: Sequence[int] = ()
        if any(isinstance(each, list | dict) for each in statement.params):
            kinds = (await self._exchange(prepared + messages.SYNC)).parameters
            prepared = b""
        values = _values(statement.params, kinds)
        seen = await self._exchange(prepared + messages.run(values, most_rows + 1) + messages.SYNC)
        seen.cut = len(seen.rows) > most_rows
        del seen.rows[most_rows:]
        if in_transaction and (seen.ended or not seen.in_transaction):
            hint = "leave BEGIN, COMMIT, ROLLBACK and savepoints out: all statements are one transaction"
            raise BadRequestError("sql: the statement ended the transaction", field="sql", hint=hint)
        return seen

    async def names(self, outcomes: Sequence[Outcome]) -> dict[int, str]:
        """The names of the types in these answers that are not PostgreSQL's own."""
        foreign = {each.type for outcome in outcomes for each in outcome.columns if is_foreign(each.type)}
        if not foreign:
            return {}
        found = await self.run(Statement(_NAMES, (",".join(map(str, sorted(foreign))),)), len(foreign))
        rows = [messages.values_of(each, 2) for each in found.rows]
        return {int(number): (name or "")[:256] for number, name in rows if number and number.isdigit()}

    async def end(self) -> None:
        """Say goodbye; the stream is the caller's to close."""
        with anyio.move_on_after(_GOODBYE_SECONDS), suppress(*_OVER):
            await self._stream.send(messages.TERMINATE)

    async def _exchange(self, request: bytes, *, keep: bool = True) -> _Seen:
        """Send, and read until the server is ready. Rows are dropped unless ``keep``."""
        seen = _Seen()
        try:
            await self._stream.send(request)
            while not await self._read(seen, keep):
                pass
        except _OVER as error:
            if seen.refusal is not None:
                raise refused(seen.refusal) from error
            raise Gone from error
        except struct.error as error:
            raise malformed() from error
        if seen.refusal is not None:
            raise refused(seen.refusal)
        return seen

    async def _read(self, seen: _Seen, keep: bool) -> bool:
        """Read a piece; whether the server is ready."""
        for kind, body in self._cutter.feed(await self._stream.receive()):
            if kind == b"Z":
                seen.in_transaction = body == b"T"
                return True
            if kind == b"D":
                self._take(len(body))
                if keep:
                    seen.rows.append(body)
            else:
                _note(seen, kind, body)
        return False

    def _take(self, size: int) -> None:
        self._left -= size + 16
        if self._left < 0:
            hint = "ask for fewer rows or columns, or for pages of them"
            raise BadRequestError(f"the answer is over {MOST_ANSWER} bytes", field="sql", hint=hint)
        if not self._lease.take(size + 16):
            raise QuotaError("too many answers are waiting to be fetched", hint="try again in a moment")


def _note(seen: _Seen, kind: bytes, body: bytes) -> None:
    """Note what a message says of a statement."""
    if kind == b"T":
        seen.columns = messages.columns_of(body)
    elif kind == b"t":
        seen.parameters = messages.parameters_of(body)
    elif kind == b"C":
        seen.affected, seen.ended = messages.affected_of(body), messages.ends_transaction(body)
    elif kind == b"E":
        seen.refusal = seen.refusal or messages.refusal_of(body)
    elif kind == b"R":
        if body != b"\0\0\0\0":
            raise GuestError("the database server wants a password on its Unix socket")
    elif kind in _COPY:
        hint = "GET /v1/databases/{id}/export and a client of PostgreSQL copy data"
        raise BadRequestError("sql: COPY from or to the client is not supported here", field="sql", hint=hint)
    elif kind not in _SKIPPED:
        raise malformed()


def _values(params: Sequence[Any], kinds: Sequence[int]) -> list[bytes | None]:
    """``kinds`` has as many as there are parameters, if the server was asked; a wrong number is its to refuse."""
    padded = [*kinds, *[0] * (len(params) - len(kinds))]
    return [parameter(each, kind) for each, kind in zip(params, padded, strict=False)]


def _hint(refusal: Refusal) -> str | None:
    if "multiple commands" in refusal.message:
        return "send one statement at a time; a transaction takes a list of them"
    return refusal.hint or _HINTS.get(refusal.code)


def refused(refusal: Refusal) -> PandastackError:
    """What the server refuses, as an error for callers: SQL that is wrong is 400."""
    detail: dict[str, Any] = {"sqlstate": refusal.code}
    if refusal.position is not None:
        detail["position"] = refusal.position
    if refusal.detail is not None:
        detail["detail"] = refusal.detail
    message, hint = refusal.message or "the database server refuses it", _hint(refusal)
    if refusal.code == "3D000":
        return NotFoundError(f"database: {message}", field="database", hint=hint, detail=detail)
    if refusal.code.startswith(_UNAVAILABLE):
        return UnavailableError(message, hint=hint, detail=detail)
    return SqlRefused(message, hint=hint, detail=detail)
