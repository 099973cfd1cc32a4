"""Queries of the operator, against a real PostgreSQL, and against what no server sends."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandastack.errors import GuestError
from pandastack.products.databases import server
from pandastack.products.databases.credentials import Credentials, new_password, verifier_of
from pandastack.products.databases.disk import Disk, disk_of
from pandastack.products.databases.numbers import NUMBERS_QUERY, WORK_QUERY, Work, read_numbers, read_work
from pandastack.products.databases.wire import Gone, Session, SqlError
from tests.cluster.scripted_postgres import NUMBERS, message, row
from tests.support import postgres
from tests.support.streams import Scripted

pytestmark = pytest.mark.anyio
needs_postgres = pytest.mark.skipif(postgres.missing() is not None, reason=str(postgres.missing()))


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with postgres.serving() as directory:
        yield directory


@pytest.fixture
async def session(directory: Path) -> AsyncIterator[Session]:
    async with await anyio.connect_unix(str(directory / ".s.PGSQL.5432")) as stream:
        session = Session(stream)
        await session.start("pandastack", "postgres")
        yield session


@needs_postgres
async def test_rows_of_a_real_server(session: Session) -> None:
    assert await session.query("SELECT 1, NULL, 'ä'; SELECT 2") == [("1", None, "ä"), ("2",)]
    assert await session.query("") == []
    assert await session.query("CREATE TEMP TABLE t (x int)") == []
    with pytest.raises(SqlError) as refused:
        await session.query("SELECT 1; SELECT 1/0; SELECT 2")
    assert refused.value.code == "22012"
    assert await session.query("SHOW search_path") == [("pg_catalog",)]
    assert len((await session.query("SELECT repeat('x', 200000)"))[0][0] or "") == 200000
    with pytest.raises(GuestError, match="malformed"):
        await session.query("SELECT repeat('x', 300000)")


@needs_postgres
async def test_an_answer_without_end_is_left(session: Session) -> None:
    with pytest.raises(GuestError, match="too much"):
        await session.query("SELECT repeat('x', 1000) FROM generate_series(1, 10000)")


@needs_postgres
async def test_a_server_refuses_at_the_start(directory: Path) -> None:
    async with await anyio.connect_unix(str(directory / ".s.PGSQL.5432")) as stream:
        with pytest.raises(SqlError) as refused:
            await Session(stream).start("pandastack", "nowhere")
    assert refused.value.code == "3D000"


@needs_postgres
async def test_the_verifier_is_what_the_server_makes_of_the_password(session: Session) -> None:
    password = new_password()
    await session.query(f"CREATE ROLE mine LOGIN PASSWORD '{password}'")
    ((stored,),) = await session.query("SELECT rolpassword FROM pg_authid WHERE rolname = 'mine'")
    assert stored is not None
    salt = base64.b64decode(stored.split("$")[1].split(":")[1])
    assert verifier_of(password, salt) == stored
    given = verifier_of(password)
    assert given != stored
    await session.query(f"ALTER ROLE mine LOGIN PASSWORD '{given}'; SET ROLE mine; RESET ROLE")
    assert await session.query("SELECT rolpassword FROM pg_authid WHERE rolname = 'mine'") == [(given,)]


async def until_at_work(session: Session, *work: Work) -> None:
    with anyio.fail_after(20):
        while read_numbers(await session.query(NUMBERS_QUERY)).work != work:  # noqa: ASYNC110
            await anyio.sleep(0.01)


@needs_postgres
async def test_the_operators_queries_are_those_of_a_real_server(session: Session, directory: Path) -> None:
    async with await anyio.connect_unix(str(directory / ".s.PGSQL.5432")) as stream:
        other = Session(stream)
        await other.start("pandastack", "postgres")
        assert await session.query(WORK_QUERY) == [("0", "0", "0")]
        await other.ask("SELECT pg_sleep(600)")
        await until_at_work(session, Work.QUERY)
        await server.end_all(session)
        with pytest.raises((SqlError, Gone, anyio.BrokenResourceError)):
            await other.query("SELECT 1")
    numbers = read_numbers(await session.query(NUMBERS_QUERY))
    assert numbers.postgres_version and numbers.db_size_bytes > 1 << 20
    assert numbers.connections == 0 and numbers.max_connections >= 10
    assert (numbers.running_queries, numbers.open_transactions) == (0, 0)
    assert numbers.wal_bytes > 1 << 20 and numbers.work == ()


@needs_postgres
async def test_all_sessions_end_at_once(session: Session, directory: Path) -> None:
    """Those of twenty clients, some in a transaction and one in a query, and a base backup that is being taken."""
    async with AsyncExitStack() as stack:

        async def opened(**more: str) -> Session:
            connecting = await anyio.connect_unix(str(directory / ".s.PGSQL.5432"))
            other = Session(await stack.enter_async_context(connecting))
            await other.open({"user": "pandastack", "database": "postgres", **more})
            return other

        others = [await opened() for _ in range(20)]
        for number, each in enumerate(others[:5]):
            await each.query(f"BEGIN; CREATE TABLE t{number} (x int); INSERT INTO t{number} VALUES (1)")
        await others[5].ask("SELECT pg_sleep(600)")
        backup = await opened(replication="true")
        await backup.ask("BASE_BACKUP (CHECKPOINT 'fast', MAX_RATE 32)")
        await until_at_work(session, Work.QUERY, Work.REPLICATION, Work.BASE_BACKUP)
        with anyio.fail_after(20):
            await server.end_all(session)
        remaining = "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender')"
        assert await session.query(remaining) == [("1",)]
        assert await session.query("SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-4]$'") == [("0",)]


def test_what_is_stored_of_a_password_is_read_back() -> None:
    for each in (Credentials("a"), Credentials("a", "b")):
        assert Credentials.from_text(each.to_text()) == each


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
@settings(max_examples=200, deadline=None)
def test_whatever_a_guest_sends_is_an_answer_or_an_error(pieces: list[bytes]) -> None:
    async def ask() -> None:
        stream = Scripted(*pieces)
        with anyio.fail_after(5):
            try:
                await Session(stream).query("SELECT 1")
            except (GuestError, SqlError, Gone):
                return
        assert b"Z" in b"".join(pieces)

    anyio.run(ask)


@given(
    st.lists(st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=9), max_size=5), max_size=5),
    st.integers(1, 7),
)
@settings(max_examples=100, deadline=None)
def test_rows_arrive_whatever_their_pieces(rows: list[list[str | None]], size: int) -> None:
    sent = b"".join(row(tuple(each)) for each in rows) + message(b"C", b"SELECT\0") + message(b"Z", b"I")
    pieces = [sent[place : place + size] for place in range(0, len(sent), size)]

    async def ask() -> object:
        return await Session(Scripted(*pieces)).query("SELECT")

    assert anyio.run(ask) == [tuple(each) for each in rows]


@pytest.mark.parametrize("disk", ["", "a\nb", "Filesystem\n/dev/vda x 1 1 1% /\n"])
def test_numbers_that_are_none(disk: str) -> None:
    good = Disk(102400, 51200, 51200)
    assert disk_of("Filesystem\n/dev/vda 100 50 50 50% /\n") == good
    with pytest.raises(GuestError, match="malformed"):
        disk_of(disk)
    for rows in ([], [()], [("16",)], [NUMBERS, NUMBERS], [(*NUMBERS, "0")]):
        with pytest.raises(GuestError, match="malformed"):
            read_numbers(rows)
        with pytest.raises(GuestError, match="malformed"):
            read_work(rows)
