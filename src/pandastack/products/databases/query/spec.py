"""Requests for statements, and their limits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pandastack.errors import BadRequestError, TooLargeError
from pandastack.products.databases.query.values import check_parameters, is_text

MOST_ROWS = 10_000
MOST_SQL = 1024 * 1024
MOST_STATEMENTS = 100
MOST_ANSWER = 8 * 1024 * 1024
"""Bytes of all rows of an answer."""
LONGEST_NAME = 63
QUERY_MS, TRANSACTION_MS = 30_000, 60_000


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, with a value for each of its parameters ``$1``, ``$2``, …"""

    sql: str
    params: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """Statements for one database of a server: one by itself, or those of a transaction.

    ``max_rows`` is the most rows of each answer. ``read_only``: nothing that they do can write.
    """

    database: str
    statements: tuple[Statement, ...]
    timeout_ms: int
    max_rows: int = MOST_ROWS
    read_only: bool = False
    is_transaction: bool = False


def checked_work(
    database: str | None,
    statement: Statement,
    timeout_ms: int | None = None,
    max_rows: int | None = None,
    read_only: bool | None = None,
) -> Work:
    """One statement. Raises :class:`BadRequestError`, and :class:`TooLargeError` for its text."""
    _check_statement(statement, "")
    limit = _within(timeout_ms, "timeout_ms", QUERY_MS)
    rows = _within(max_rows, "max_rows", MOST_ROWS)
    return Work(checked_name(database), (statement,), limit, rows, bool(read_only))


def checked_transaction(
    database: str | None,
    statements: Sequence[Statement] | None,
    timeout_ms: int | None = None,
    read_only: bool | None = None,
) -> Work:
    """Statements that all happen or none. The same errors."""
    if not statements:
        hint = 'such as {"statements": [{"sql": "SELECT 1"}]}'
        raise BadRequestError("statements: at least one", field="statements", hint=hint)
    if len(statements) > MOST_STATEMENTS:
        raise BadRequestError(f"statements: at most {MOST_STATEMENTS}", field="statements")
    for place, each in enumerate(statements):
        _check_statement(each, f"statements.{place}.")
    if sum(len(each.sql) for each in statements) > MOST_SQL:
        raise TooLargeError(f"statements: over {MOST_SQL} bytes of SQL together", field="statements")
    limit = _within(timeout_ms, "timeout_ms", TRANSACTION_MS)
    read_only = bool(read_only)
    return Work(checked_name(database), tuple(statements), limit, MOST_ROWS, read_only, is_transaction=True)


def checked_name(name: str | None, field: str = "database") -> str:
    """The name of a database of a server. Raises :class:`BadRequestError`."""
    if not name:
        hint = "GET …/v1/databases lists them; a new server has pandastack"
        raise BadRequestError(f"{field}: missing", field=field, hint=hint)
    if not is_text(name) or len(name.encode()) > LONGEST_NAME:
        raise BadRequestError(f"{field}: must have at most {LONGEST_NAME} bytes", field=field)
    return name


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _check_statement(statement: Statement, place: str) -> None:
    field = f"{place}sql"
    if not statement.sql.strip():
        raise BadRequestError(f"{field}: missing", field=field, hint="a statement of SQL")
    if not is_text(statement.sql):
        raise BadRequestError(f"{field}: must be text without NUL characters", field=field)
    if len(statement.sql.encode()) > MOST_SQL:
        raise TooLargeError(f"{field}: over {MOST_SQL} bytes", field=field)
    try:
        check_parameters(statement.params)
    except BadRequestError as error:
        raise BadRequestError(place + error.message, field=f"{place}{error.field}", hint=error.hint) from error


def _within(given: int | None, field: str, most: int) -> int:
    if given is None:
        return most
    if not 1 <= given <= most:
        raise BadRequestError(f"{field}: must be from 1 to {most}", field=field)
    return given
