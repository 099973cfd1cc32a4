"""The requests of databases."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pandastack.errors import DatabaseFailedError
from pandastack.sdk._types import Database
from pandastack.sdk.wire.call import CAPTURE_SILENCE_SECONDS, Call, new_key, segment

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two looks at a database that is being made; each is half as long again as the one before."""


LONGEST_QUERY, LONGEST_DUMP = 60.0, 6 * 3600.0
"""Seconds that statements take at most, and that a dump may be silent: its end is the server's to say."""


def create_database(key: str | None = None, **wanted: Any) -> Call:
    """``POST /databases``. ``key`` None: a new one."""
    return _creation("/databases", wanted, key)


def clone_database(database_id: str, key: str | None = None, **wanted: Any) -> Call:
    """``POST /databases/{id}/clone``. ``key`` None: a new one."""
    return _creation(f"/databases/{segment(database_id)}/clone", wanted, key)


def one_database(method: str, database_id: str, what: str = "", **wanted: Any) -> Call:
    """A request about one database."""
    body = _given(wanted) if method == "PATCH" else None
    path = f"/databases/{segment(database_id)}{what}"
    return Call(method, path, json=body, silence=CAPTURE_SILENCE_SECONDS if method in ("POST", "PATCH") else None)


def database_logs(database_id: str, lines: int | None) -> Call:
    """``GET /databases/{id}/logs``."""
    params = {} if lines is None else {"lines": str(lines)}
    return Call("GET", f"/databases/{segment(database_id)}/logs", params=params)


def query_database(database_id: str, what: str, timeout: float | None, default: float, **wanted: Any) -> Call:
    """A request to the query broker. ``timeout``: seconds that the statements may take."""
    limit = None if timeout is None else max(1, round(timeout * 1000))
    body = _given({**wanted, "timeout_ms": limit})
    path = f"/databases/{segment(database_id)}/proxy/v1/{what}"
    silence = max(default, (timeout or LONGEST_QUERY) + CAPTURE_SILENCE_SECONDS)  # one that sleeps is woken before
    return Call("POST", path, json=body, silence=silence)


def statements_of(statements: Sequence[str | tuple[str, Sequence[Any]]]) -> list[dict[str, Any]]:
    """Statements of a transaction: SQL, or SQL and its parameters."""
    given = ((each, ()) if isinstance(each, str) else each for each in statements)
    return [{"sql": sql, "params": list(params)} for sql, params in given]


def export_database(database_id: str, database: str | None, plain: bool) -> Call:
    """``GET …/export``."""
    params = {"format": "plain" if plain else "custom"} | ({"database": database} if database else {})
    path = f"/databases/{segment(database_id)}/export"
    return Call("GET", path, params=params, streamed=True, silence=LONGEST_DUMP)


def import_database(
    database_id: str, database: str | None, clean: bool, content: AsyncIterable[bytes] | Iterable[bytes]
) -> Call:
    """``POST …/import``."""
    params = ({"clean": "1"} if clean else {}) | ({"database": database} if database else {})
    path = f"/databases/{segment(database_id)}/import"
    kind = "application/vnd.postgresql.dump"
    return Call("POST", path, params=params, content=content, content_type=kind, silence=LONGEST_DUMP)


def is_ready(database: Database) -> bool:
    """Whether it can be used. Raises DatabaseFailedError when it never will be."""
    status = database.get("status", "")
    if status in ("failed", "error"):
        why = database.get("error") or status
        raise DatabaseFailedError(f"database {database.get('id')} has failed: {why}", database=database)
    return status == "running" and bool(database.get("connection_url"))


def now_text() -> str:
    """The present time, as a request has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _creation(path: str, wanted: dict[str, Any], key: str | None) -> Call:
    silence = CAPTURE_SILENCE_SECONDS
    return Call("POST", path, json=_given(wanted), creates=True, key=key or new_key(), silence=silence)


def _given(wanted: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in wanted.items() if value is not None}
