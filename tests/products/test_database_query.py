"""Statements of the query broker, against a real PostgreSQL, and against what no server sends."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandastack.errors import BadRequestError, GuestError, NotFoundError, PandastackError, TooLargeError
from pandastack.products.databases.query import broker, messages
from pandastack.products.databases.query.messages import Column, Cutter
from pandastack.products.databases.query.session import Outcome, SqlRefused, TenantSession
from pandastack.products.databases.query.spec import (
    MOST_ANSWER,
    MOST_SQL,
    Statement,
    Work,
    checked_name,
    checked_transaction,
    checked_work,
)
from pandastack.products.databases.query.values import ELEMENTS, NAMES, answer, parameter
from pandastack.products.databases.wire import Gone
from pandastack.services import Settings
from pandastack.services.output_budget import OutputBudget
from tests.cluster.scripted_postgres import message
from tests.support import postgres
from tests.support.streams import Scripted

pytestmark = pytest.mark.anyio
needs_postgres = pytest.mark.skipif(postgres.missing() is not None, reason=str(postgres.missing()))


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with postgres.serving() as directory:
        yield directory


@asynccontextmanager
async def opened(directory: Path, work: Work) -> AsyncIterator[TenantSession]:
    lease = OutputBudget(Settings()).lease("x")
    async with await anyio.connect_unix(str(directory / ".s.PGSQL.5432")) as stream:
        session = TenantSession(stream, lease)
        await session.start(broker._settings(work))
        yield session


async def run(directory: Path, work: Work) -> list[Outcome]:
    async with opened(directory, work) as session:
        return await broker._limited(session, work)


async def rows(directory: Path, sql: str, *params: Any, **more: Any) -> Any:
    work = checked_work("postgres", Statement(sql, params), **more)
    async with opened(directory, work) as session:
        (outcome,) = await broker._limited(session, work)
        names = await session.names([outcome])
    return json.loads(b"{" + answer(outcome.columns, outcome.rows, names) + b"}")


async def values(directory: Path, sql: str, *params: Any, **more: Any) -> list[Any]:
    (row,) = (await rows(directory, sql, *params, **more))["rows"]
    return list(row)


async def refusal(directory: Path, sql: str, *params: Any, **more: Any) -> SqlRefused:
    with pytest.raises(SqlRefused) as refused:
        await rows(directory, sql, *params, **more)
    return refused.value


@needs_postgres
async def test_values_are_json_by_their_types(directory: Path) -> None:
    sql = """SELECT true, 1::int2, 2, 9007199254740991, 9007199254740992, -0.5::float8, 'NaN'::float8,
        '-Infinity'::float4, 1e300::float8, 12345678901234567890.5::numeric, 'ä"\\', NULL::int, '\\x00ff'::bytea,
        '{"a": [1, 12345678901234567890, null]}'::jsonb, '[1,  2]'::json, date '2026-01-31',
        timestamp '2026-01-31 09:30:00.25', timestamptz '2026-01-31 09:30+00', 'infinity'::timestamptz,
        '00000000-0000-4000-8000-000000000000'::uuid, interval '1 day 2 hours', '1.2.3.4'::inet"""
    assert await values(directory, f"SELECT * FROM ({sql}) AS x") == [
        True, 1, 2, 9007199254740991, "9007199254740992", -0.5, "NaN", "-Infinity", 1e300, "12345678901234567890.5",
        'ä"\\', None, "\\x00ff", {"a": [1, 12345678901234567890, None]}, [1, 2], "2026-01-31",
        "2026-01-31T09:30:00.25", (await values(directory, "SELECT to_json(timestamptz '2026-01-31 09:30+00')"))[0],
        "infinity", "00000000-0000-4000-8000-000000000000", "1 day 02:00:00", "1.2.3.4",
    ]  # fmt: skip


@needs_postgres
async def test_arrays(directory: Path) -> None:
    sql = """SELECT '{1,NULL,3}'::int[], '{}'::int[], '[0:1]={1,2}'::int[], '{{1,2},{3,4}}'::int[],
        ARRAY['a,b', 'c"d', 'e\\f', 'NULL', NULL, '', '{}'], '{t,f}'::bool[], '{1.5,NaN}'::float8[],
        ARRAY['{"a": 1}'::jsonb, 'null'], ARRAY['2026-01-31 09:30'::timestamp]"""
    assert await values(directory, sql) == [
        [1, None, 3], [], [1, 2], [[1, 2], [3, 4]], ["a,b", 'c"d', "e\\f", "NULL", None, "", "{}"], [True, False],
        [1.5, "NaN"], [{"a": 1}, None], ["2026-01-31T09:30:00"],
    ]  # fmt: skip


@needs_postgres
async def test_types_have_names(directory: Path) -> None:
    await rows(directory, "CREATE TYPE mood AS ENUM ('sad', 'ok')")
    found = await rows(directory, "SELECT 1 AS a, 'ok'::mood AS b, '{1}'::int[] AS c, '{ok}'::mood[] AS d, 1 AS a")
    assert found["columns"] == [
        {"name": "a", "type": "int4"},
        {"name": "b", "type": "mood"},
        {"name": "c", "type": "int4[]"},
        {"name": "d", "type": "mood[]"},
        {"name": "a", "type": "int4"},
    ]
    assert found["rows"] == [[1, "ok", [1], "{ok}", 1]]


@needs_postgres
async def test_the_numbers_of_types_are_those_of_a_real_server(directory: Path) -> None:
    found = (await rows(directory, "SELECT oid::int, typname, typelem::int FROM pg_type WHERE oid < 10000"))["rows"]
    names = {number: name for number, name, _ in found}
    assert {number: names[number] for number in NAMES} == dict(NAMES)
    of = {number: element for number, _, element in found}
    assert {number: of[number] for number in ELEMENTS} == dict(ELEMENTS)


@needs_postgres
async def test_parameters_are_bound(directory: Path) -> None:
    text = "'; DROP TABLE x; --"
    plain = "SELECT $1::text, $2::int + 1, $3::bool, $4::float8, $5::text"
    assert await values(directory, plain, text, 1, True, 0.5, None) == [text, 2, True, 0.5, None]
    wide = "SELECT $1::jsonb, $2::jsonb, $3::int[], $4::text[]"
    given: list[Any] = [{"a": [1]}, [1, "x"], [1, None], ['a"b', "c\\", None]]
    assert await values(directory, wide, *given) == given
    assert (await refusal(directory, "SELECT $1::int", "x")).detail["sqlstate"] == "22P02"
    assert (await refusal(directory, "SELECT $1::int", 1, 2)).detail["sqlstate"] == "08P01"
    assert (await refusal(directory, "SELECT $1::int, $2::int[]", 1)).detail["sqlstate"] == "08P01"


@needs_postgres
async def test_what_the_server_refuses(directory: Path) -> None:
    wrong = await refusal(directory, "SELECT 1 +")
    assert (wrong.status_code, wrong.detail["sqlstate"], wrong.detail["position"]) == (400, "42601", 11)
    two = await refusal(directory, "SELECT 1; SELECT 2")
    assert two.detail["sqlstate"] == "42601" and "transaction" in (two.hint or "")
    with pytest.raises(NotFoundError) as unknown:
        await run(directory, checked_work("nowhere", Statement("SELECT 1")))
    assert unknown.value.field == "database"
    for sql in ("COPY pg_class TO STDOUT", "COPY pg_class FROM STDIN"):
        with pytest.raises(BadRequestError, match="COPY"):
            await rows(directory, sql)
    assert await rows(directory, "-- nothing") == {"columns": [], "rows": []}


@needs_postgres
async def test_the_server_enforces_the_limits(directory: Path) -> None:
    late = await refusal(directory, "SELECT pg_sleep(60)", timeout_ms=50)
    assert late.detail["sqlstate"] == "57014" and "timeout_ms" in (late.hint or "")
    (cut,) = await run(directory, checked_work("postgres", Statement("SELECT generate_series(1, 1000000)"), max_rows=7))
    assert (len(cut.rows), cut.cut, cut.affected) == (7, True, None)
    (whole,) = await run(directory, checked_work("postgres", Statement("SELECT generate_series(1, 7)"), max_rows=7))
    assert (len(whole.rows), whole.affected) == (7, 7)
    with pytest.raises(BadRequestError, match=f"over {MOST_ANSWER} bytes"):
        await rows(directory, "SELECT repeat('x', 100000) FROM generate_series(1, 1000)")
    await rows(directory, "CREATE TABLE filled (x int)")
    (added,) = await run(directory, checked_work("postgres", Statement("INSERT INTO filled VALUES (1), (2), (3)")))
    assert (added.affected, added.columns) == (3, [])


@needs_postgres
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE written (x int)",
        "SET TRANSACTION READ WRITE",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "DO $$ BEGIN COMMIT; SET TRANSACTION READ WRITE; CREATE TABLE written (x int); END $$",
        "WITH x AS (CREATE TABLE written (x int)) SELECT 1",
        "SELECT nextval('counter')",
    ],
)
async def test_nothing_is_written_by_what_is_only_to_read(directory: Path, sql: str) -> None:
    await rows(directory, "CREATE SEQUENCE IF NOT EXISTS counter")
    await refusal(directory, sql, read_only=True)
    assert await values(directory, "SELECT to_regclass('written')") == [None]


@needs_postgres
@pytest.mark.parametrize("end", ["COMMIT", "COMMIT AND CHAIN", "ROLLBACK", "END", "ROLLBACK AND CHAIN", "ABORT"])
async def test_a_transaction_that_is_only_to_read_stays_one(directory: Path, end: str) -> None:
    sql = (end, "SET TRANSACTION READ WRITE", "CREATE TABLE written (x int)")
    with pytest.raises(BadRequestError, match="ended the transaction"):
        await run(directory, checked_transaction("postgres", [Statement(each) for each in sql], read_only=True))
    assert await values(directory, "SELECT to_regclass('written')") == [None]


@needs_postgres
async def test_a_transaction_happens_or_not(directory: Path) -> None:
    def transaction(*sql: str) -> Work:
        return checked_transaction("postgres", [Statement(each) for each in sql])

    made = "CREATE TABLE t (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    first, second = await run(directory, transaction(made, "INSERT INTO t VALUES (1)"))
    assert (first.affected, second.affected) == (None, 1)
    with pytest.raises(SqlRefused) as failed:
        await run(directory, transaction("INSERT INTO t VALUES (2)", "SELECT 1/0", "INSERT INTO t VALUES (3)"))
    assert failed.value.detail == {"sqlstate": "22012", "statement": 1}
    with pytest.raises(SqlRefused) as deferred:
        await run(directory, transaction("INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)"))
    assert deferred.value.detail["sqlstate"] == "23505"
    with pytest.raises(BadRequestError, match="ended"):
        await run(directory, transaction("INSERT INTO t VALUES (4)", "ROLLBACK", "INSERT INTO t VALUES (5)"))
    assert await values(directory, "SELECT array_agg(x) FROM t") == [[1]]


@needs_postgres
async def test_settings_of_the_role_hold(directory: Path) -> None:
    await rows(directory, "ALTER ROLE pandastack SET default_transaction_read_only = on")
    try:
        assert (await refusal(directory, "CREATE TABLE unwritten (x int)")).detail["sqlstate"] == "25006"
        with pytest.raises(SqlRefused, match="read-only"):
            await run(directory, checked_transaction("postgres", [Statement("CREATE TABLE unwritten (x int)")]))
    finally:
        async with opened(directory, checked_work("postgres", Statement("SELECT 1"))) as session:
            for sql in ("SET default_transaction_read_only = off", "ALTER ROLE pandastack RESET ALL"):
                await session.run(Statement(sql), 1)


@needs_postgres
async def test_a_limit_that_sql_turns_off_is_the_hosts(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_GRACE_SECONDS", 0.1)
    sql = (Statement("SET statement_timeout = 0"), Statement("SELECT pg_sleep(600)"))
    with pytest.raises(SqlRefused, match="too long"):
        await run(directory, checked_transaction("postgres", sql, timeout_ms=100))
    left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(6__)%' AND pid <> pg_backend_pid()"
    with anyio.fail_after(30):
        while await values(directory, left) != [0]:  # noqa: ASYNC110  the server notices that nobody waits
            await anyio.sleep(0.05)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"database": None}, "database"),
        ({"database": ""}, "database"),
        ({"database": "x" * 64}, "database"),
        ({"database": "a\0b"}, "database"),
        ({"statement": Statement(" ")}, "sql"),
        ({"statement": Statement("SELECT '\0'")}, "sql"),
        ({"statement": Statement("SELECT '\ud800'")}, "sql"),
        ({"statement": Statement("SELECT $1", ("\0",))}, "params.0"),
        ({"statement": Statement("SELECT $1", (1,) * 10_001)}, "params"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": 30_001}, "timeout_ms"),
        ({"max_rows": 10_001}, "max_rows"),
        ({"max_rows": -1}, "max_rows"),
    ],
)
def test_what_is_no_request(given: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        checked_work(**{"database": "x", "statement": Statement("SELECT 1"), **given})
    assert refused.value.field == field and refused.value.message.startswith(field)


def test_the_length_of_sql() -> None:
    text = "ä" + "x" * (MOST_SQL - 2)
    assert checked_work("x", Statement(text)).statements[0].sql == text
    with pytest.raises(TooLargeError, match="sql: over 1048576 bytes"):
        checked_work("x", Statement(text + "x"))
    half = Statement("x" * (MOST_SQL // 2 + 1))
    for wrong in ([], [Statement("SELECT 1")] * 101, [half, half]):
        with pytest.raises(TooLargeError if half in wrong else BadRequestError, match=r"^statements"):
            checked_transaction("x", wrong)
    with pytest.raises(BadRequestError) as refused:
        checked_transaction("x", [Statement("SELECT 1"), Statement("SELECT $1", ("\0",))])
    assert refused.value.field == "statements.1.params.0"
    assert checked_name("ä" * 31) == "ä" * 31


def test_parameters_as_text() -> None:
    assert parameter(math.inf, 701) == b"inf" and parameter(10**30, 1700) == b"1" + b"0" * 30
    assert parameter([[1, 2], [3, None]], 1007) == b'{{"1","2"},{"3",NULL}}'
    assert parameter("[1]", 3802) == b"[1]" and parameter(True, 3802) == b"true" and parameter(None, 3802) is None


def row(*values: str | None) -> bytes:
    encoded = (None if each is None else each.encode() for each in values)
    pieces = (
        (-1).to_bytes(4, "big", signed=True) if each is None else len(each).to_bytes(4, "big") + each
        for each in encoded
    )
    return len(values).to_bytes(2, "big") + b"".join(pieces)


@given(
    st.sampled_from([*NAMES, *ELEMENTS]),
    st.text(st.characters(codec="utf-8"), max_size=60) | st.text('{},"\\N1[]= -.eE', max_size=60),
)
@settings(max_examples=500, deadline=None)
def test_whatever_a_guest_calls_a_value_is_json_or_an_error(number: int, text: str) -> None:
    try:
        written = answer([Column("a", number)], [row(text)], {})
    except GuestError:
        return
    found = json.loads(b"{" + written + b"}")
    assert len(found["rows"]) == 1 and len(found["rows"][0]) == 1


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8), st.sampled_from([b"", b"T", b"D", b"t", b"E", b"C"]))
@settings(max_examples=300, deadline=None)
def test_whatever_a_guest_sends_is_an_answer_or_an_error(pieces: list[bytes], kind: bytes) -> None:
    sent = [message(kind, each) if kind else each for each in pieces]

    async def ask() -> None:
        session = TenantSession(Scripted(*sent), OutputBudget(Settings()).lease("x"))
        with anyio.fail_after(5):
            try:
                outcome = await session.run(Statement("SELECT 1"), 10)
                answer(outcome.columns, outcome.rows, {})
            except (PandastackError, Gone):
                return
        assert b"Z" in b"".join(sent)

    anyio.run(ask)


@given(st.lists(st.tuples(st.sampled_from([b"D", b"C", b"Z"]), st.binary(max_size=30)), max_size=8), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_messages_arrive_whatever_their_pieces(sent: list[tuple[bytes, bytes]], size: int) -> None:
    data, cutter = b"".join(message(*each) for each in sent), Cutter()
    pieces = [data[place : place + size] for place in range(0, len(data), size)]
    assert [each for piece in pieces for each in cutter.feed(piece)] == sent


def test_a_message_without_end_is_refused_at_once() -> None:
    for length in (0, 3, messages.MOST_MESSAGE + 1, 2**32 - 1):
        with pytest.raises(GuestError, match="malformed"):
            list(Cutter().feed(b"D" + length.to_bytes(4, "big")))
