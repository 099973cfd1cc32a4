"""Statements for a database's query broker, and their answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, StrictBool, StrictStr

from pandastack.api.models.base import Answer, Body, WholeNumber, omitted_if_none
from pandastack.products.databases.query import spec
from pandastack.products.databases.query.broker import OneDatabase

_MS = "Milliseconds that it may take, at most"


class SqlStatement(Body):
    sql: StrictStr = Field("", description="One statement of SQL, at most 1 MiB")
    params: list[Any] | None = Field(None, description="A value for each of `$1`, `$2`, …")

    def statement(self) -> spec.Statement:
        return spec.Statement(self.sql, tuple(self.params or ()))


class RunSql(SqlStatement):
    database: StrictStr | None = Field(None, description="A database of the server: `pandastack` in a new one")
    timeout_ms: WholeNumber | None = Field(None, description=f"{_MS} and by default {spec.QUERY_MS}")
    read_only: StrictBool | None = Field(None, description="Whether the server lets it write nothing")

    def work(self) -> spec.Work:
        return spec.checked_work(self.database, self.statement(), self.timeout_ms, None, self.read_only)


class QuerySql(RunSql):
    max_rows: WholeNumber | None = Field(None, description=f"At most and by default {spec.MOST_ROWS}")

    def work(self) -> spec.Work:
        return spec.checked_work(self.database, self.statement(), self.timeout_ms, self.max_rows, self.read_only)


class RunTransaction(Body):
    database: StrictStr | None = Field(None, description="A database of the server")
    statements: list[SqlStatement] | None = Field(None, description=f"At most {spec.MOST_STATEMENTS}")
    timeout_ms: WholeNumber | None = Field(None, description=f"{_MS} and by default {spec.TRANSACTION_MS}")
    read_only: StrictBool | None = Field(None, description="Whether the server lets them write nothing")

    def work(self) -> spec.Work:
        statements = [each.statement() for each in self.statements or ()]
        return spec.checked_transaction(self.database, statements, self.timeout_ms, self.read_only)


class NewSqlDatabase(Body):
    name: StrictStr | None = Field(None, description="At most 63 bytes")


class SqlColumn(Answer):
    name: str
    type: str = Field(description="As PostgreSQL calls it: `int4`, `text`, `timestamptz`, `int4[]`, …")


class SqlRows(Answer):
    columns: list[SqlColumn]
    rows: list[list[Any]] = Field(description="A list of values for each row, in the order of the columns")
    count: int = Field(description="How many rows these are")
    truncated: bool = Field(description="Whether there were more")
    rows_affected: int | None = Field(description="As the server says; null for statements that affect none")


class SqlAnswer(SqlRows):
    duration_ms: float


class SqlDone(Answer):
    rows_affected: int
    duration_ms: float


class SqlTransactionDone(Answer):
    results: list[SqlRows] = Field(description="One for each statement; at most 10,000 rows together")
    duration_ms: float


class BrokerHealth(Answer):
    status: Literal["ok"] = "ok"


class BrokerInfo(Answer):
    version: str
    database: str = Field(description="The database that a new server has")
    username: str
    max_rows: int = spec.MOST_ROWS
    max_sql_bytes: int = spec.MOST_SQL
    max_statements: int = spec.MOST_STATEMENTS
    max_answer_bytes: int = spec.MOST_ANSWER
    query_timeout_ms: int = spec.QUERY_MS
    transaction_timeout_ms: int = spec.TRANSACTION_MS


class SqlDatabase(Answer):
    name: str
    owner: str | None = omitted_if_none()
    size_bytes: int | None = omitted_if_none("Of one that the role may open")

    @classmethod
    def of(cls, one: OneDatabase) -> SqlDatabase:
        return cls(name=one.name, owner=one.owner, size_bytes=one.size_bytes)


class SqlDatabases(Answer):
    databases: list[SqlDatabase]
