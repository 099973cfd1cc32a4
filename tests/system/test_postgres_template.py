"""The template ``postgres``: what the control plane and clients find in a machine of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest

from pandastack.cluster import EngineClient
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import ExecResult, Output
from pandastack.contract.references import TemplateRef
from pandastack.contract.sandboxes import SandboxSpec
from pandastack.engine.http.app import create_engine_app
from pandastack.errors import PandastackError
from pandastack.products.databases.disk import LOOK, DiskState, disk_of
from pandastack.products.databases.spec import DISK
from tests.support.installation import Install, Installation
from tests.support.machines import opened

asyncpg = pytest.importorskip("asyncpg")

pytestmark = pytest.mark.anyio

SOCKET = ".s.PGSQL.5432"
CONTROL = "/usr/lib/pandastack/postgres-control"
PASSWORD = "correct horse"
SIZED = "SELECT current_setting('shared_buffers'), current_setting('max_connections'), current_setting('work_mem')"


@pytest.fixture(scope="module")
def place(install: Install) -> Iterator[Installation]:
    yield install("postgres")


@pytest.fixture
async def client(place: Installation) -> AsyncIterator[EngineClient]:
    async with opened(place) as engine, EngineClient.in_process(create_engine_app(engine)) as client:
        with anyio.fail_after(300):
            yield client


@pytest.fixture
async def database(client: EngineClient) -> AsyncIterator[str]:
    """A sandbox of the template, as it is made."""
    sandbox = str(uuid.uuid4())
    await client.create(SandboxSpec(sandbox), TemplateRef("postgres"))
    try:
        yield sandbox
    finally:
        await client.delete(sandbox)


@asynccontextmanager
async def door(client: EngineClient, sandbox: str, **where: int | str) -> AsyncIterator[str]:
    """A directory with a socket of PostgreSQL's name, which leads through tunnels to ``where`` in the guest."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with client.tunnel(sandbox, **where) as far, anyio.create_task_group() as both:  # type: ignore[arg-type]

                async def send() -> None:
                    while chunk := await reader.read(65536):
                        await far.send(chunk)
                    await far.send_eof()

                both.start_soon(send)
                async for chunk in far:
                    writer.write(chunk)
                both.cancel_scope.cancel()
        except* (PandastackError, OSError, anyio.BrokenResourceError):
            pass  # one of both ends is gone
        finally:
            writer.close()

    with TemporaryDirectory(prefix="ps-") as folder:
        async with await asyncio.start_unix_server(relay, Path(folder) / SOCKET):
            yield folder


@asynccontextmanager
async def session(
    client: EngineClient, sandbox: str, user: str = "pandastack", password: str = PASSWORD
) -> AsyncIterator[Any]:
    """What a client has: a session over TCP."""
    async with door(client, sandbox, port=5432) as folder:
        connection = await asyncpg.connect(host=folder, user=user, password=password, database="pandastack", timeout=60)
        try:
            yield connection
        finally:
            await connection.close(timeout=60)


@asynccontextmanager
async def owner(client: EngineClient, sandbox: str) -> AsyncIterator[Any]:
    """What the control plane has: a session of the superuser over the guest's Unix socket."""
    async with door(client, sandbox, path=f"/run/postgresql/{SOCKET}") as folder:
        settings = {"default_transaction_read_only": "off"}
        connection = await asyncpg.connect(
            host=folder, user="postgres", database="pandastack", timeout=60, server_settings=settings
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=60)


async def give_password(client: EngineClient, sandbox: str) -> None:
    async with owner(client, sandbox) as connection:
        await connection.execute(f"ALTER ROLE pandastack PASSWORD '{PASSWORD}'")


async def execute(client: EngineClient, sandbox: str, cmd: str, status: int = 0) -> str:
    text = b""
    async with client.exec(sandbox, ExecSpec(cmd=cmd, timeout_seconds=120)) as records:
        async for record in records:
            if isinstance(record, Output):
                text += record.data
            elif isinstance(record, ExecResult):
                assert record.exit_code == status, text
    return text.decode().strip()


async def test_nobody_has_a_password_until_one_is_given(client: EngineClient, database: str) -> None:
    async with owner(client, database) as connection:
        assert await connection.fetch("SELECT rolname FROM pg_authid WHERE rolpassword IS NOT NULL") == []
        rows = await connection.fetch("SELECT rolname FROM pg_roles WHERE rolcanlogin ORDER BY 1")
        assert [row["rolname"] for row in rows] == ["pandastack", "postgres"]
    with pytest.raises(asyncpg.InvalidPasswordError):
        async with session(client, database, password=""):
            pass
    await give_password(client, database)
    async with session(client, database) as connection:
        assert await connection.fetchval("SHOW server_version_num") == "160014"
        assert await connection.fetchval("SELECT inet_server_addr()::text") == "127.0.0.1/32"
        stored = await connection.fetchval("SELECT current_setting('password_encryption')")
        assert (stored, connection.get_settings().server_encoding) == ("scram-sha-256", "UTF8")
    for user, password in (("pandastack", "wrong"), ("postgres", PASSWORD), ("nobody", PASSWORD)):
        with pytest.raises(asyncpg.InvalidPasswordError):
            async with session(client, database, user, password):
                pass
    assert await execute(client, database, "stat -c '%a %U' /run/postgresql") == "750 postgres"
    assert await execute(client, database, "ss -Hltn | awk '{print $4}'") == "127.0.0.1:5432"


async def test_the_owner_of_a_database_makes_extensions(client: EngineClient, database: str) -> None:
    await give_password(client, database)
    async with session(client, database) as connection:
        for extension in ("vector", "pgcrypto", "pg_stat_statements", "pg_trgm", "hstore", "citext", "unaccent"):
            await connection.execute(f"CREATE EXTENSION {extension}")
        assert await connection.fetchval("SELECT '[1,2,3]'::vector <-> '[1,2,5]'::vector") == 2.0
        await connection.execute(
            "CREATE TABLE items (at vector(3)); CREATE INDEX ON items USING hnsw (at vector_l2_ops)"
        )
        assert await connection.fetchval("SELECT encode(digest('a', 'md5'), 'hex')") == (
            "0cc175b9c0f1b6a831c399e269772661"
        )
        assert await connection.fetchval("SELECT similarity('panda', 'pandas')") > 0.5
        assert (
            await connection.fetchval("SELECT count(*) FROM pg_stat_statements WHERE query LIKE 'CREATE TABLE%'") == 1
        )


OUT = """
COPY (SELECT 1) TO PROGRAM 'id'
COPY (SELECT 1) TO '/tmp/file'
SELECT pg_read_file('/etc/passwd')
CREATE EXTENSION file_fdw
CREATE EXTENSION dblink
CREATE EXTENSION adminpack
ALTER ROLE pandastack SUPERUSER
ALTER ROLE postgres PASSWORD 'mine'
ALTER SYSTEM SET archive_command = 'id'
LOAD 'basebackup_to_shell'
SET ROLE postgres
"""
"""Ways from a session into the guest, or to the superuser."""


async def test_the_owner_of_a_database_does_not_get_into_the_guest(client: EngineClient, database: str) -> None:
    await give_password(client, database)
    async with session(client, database) as connection:
        for query in OUT.strip().splitlines():
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(query)
        await connection.execute("CREATE DATABASE another")
        await connection.execute("CREATE ROLE reader LOGIN PASSWORD 'r'")
        await connection.execute("GRANT pg_monitor TO reader")
    async with session(client, database, "reader", "r") as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE public.mine (n int)")


async def test_settings_fit_a_size(client: EngineClient, database: str) -> None:
    await give_password(client, database)
    async with session(client, database) as connection:
        assert tuple(await connection.fetchrow(SIZED)) == ("256MB", "100", "4MB")
    assert await execute(client, database, f"{CONTROL} settings 1024") == "unchanged"
    assert await execute(client, database, f"{CONTROL} settings 512") == "restarted"
    async with session(client, database) as connection:
        assert tuple(await connection.fetchrow(SIZED)) == ("128MB", "100", "4MB")
    assert "the machine has" in await execute(client, database, f"{CONTROL} settings 4096", status=1)
    assert await execute(client, database, "pgrep -xo postgres | xargs -I{} cat /proc/{}/oom_score_adj") == "-900"
    for wrong in (
        "settings",
        "settings 12x",
        "settings -1",
        "settings 255",
        "settings ''",
        "settings 99999999",
        "stop",
    ):
        said = await execute(client, database, f"{CONTROL} {wrong}", status=2)
        assert said.startswith("postgres-control: ")
    assert await execute(client, database, f"{CONTROL} settings 512") == "unchanged"


async def test_a_server_that_is_killed_is_back_with_all_that_was_committed(client: EngineClient, database: str) -> None:
    await give_password(client, database)
    async with session(client, database) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    before = await execute(client, database, "head -1 /var/lib/postgresql/16/main/postmaster.pid")
    await execute(client, database, f"kill -9 {before}")
    back = f"pg_isready -qh 127.0.0.1 && ! kill -0 {before} 2>/dev/null"
    await execute(client, database, f"for i in $(seq 600); do {back} && exit; sleep .1; done; exit 1")
    async with session(client, database) as connection:
        assert await connection.fetchval("SELECT sum(n) FROM kept") == 500500


FILLER = f"{DISK}/filler"
FILL = f"fallocate -l $(($(stat -f -c '%a * %S' {DISK}))) {FILLER} 2>/dev/null || true"
TABLE = """
    CREATE TABLE kept (n int PRIMARY KEY, what text);
    ALTER TABLE kept ALTER what SET STORAGE EXTERNAL;
    CREATE TABLE load AS SELECT repeat('x', 1000) AS what FROM generate_series(1, 3000);
"""
INSERT = "INSERT INTO kept VALUES ($1::int, repeat(md5($1::int::text), 400))"
UNHURT = "SELECT count(*), count(*) FILTER (WHERE what <> repeat(md5(n::text), 400)) FROM kept"
WRITE_LOG = """
    DO $$ BEGIN
      FOR turn IN 1..100 LOOP
        PERFORM pg_logical_emit_message(true, 'log', 'of the next file');
        PERFORM pg_switch_wal();
      END LOOP;
    END $$
"""


async def state(client: EngineClient, sandbox: str) -> DiskState:
    return disk_of(await execute(client, sandbox, LOOK)).state


async def fill(client: EngineClient, sandbox: str) -> None:
    """Leave no room on the disk, and a whole file for the log."""
    async with owner(client, sandbox) as connection:
        await connection.execute("SELECT pg_switch_wal()")
        await connection.execute("CHECKPOINT")
    await execute(client, sandbox, f"rm -f {FILLER}; sync; {FILL}")
    assert await state(client, sandbox) is DiskState.FULL


async def write_until_full(connection: Any, first: int) -> int:
    """Insert rows, of which each is acknowledged, until one is refused; returns the number of that."""
    for number in range(first, first + 500):
        try:
            await connection.execute(INSERT, number)
        except asyncpg.DiskFullError:
            return number
    raise AssertionError("the disk is not full")


async def test_a_full_disk_refuses_writes_until_there_is_room(client: EngineClient, database: str) -> None:
    await give_password(client, database)
    async with session(client, database) as connection:
        await connection.execute(TABLE)
        await fill(client, database)
        written = await write_until_full(connection, 0)
        assert tuple(await connection.fetchrow(UNHURT)) == (written, 0), "the session goes on"
        await connection.execute("DROP TABLE load")  # a TRUNCATE would need room for pages of new indexes
        again = await write_until_full(connection, written)
        assert again > written, "the room of the other table is used"
        await client.volumes.grow_own(database, DISK, 12 * 1024)
        assert await state(client, database) is DiskState.OK
        await connection.execute(INSERT, again)
        assert tuple(await connection.fetchrow(UNHURT)) == (again + 1, 0)


async def test_a_log_without_room_is_recovered(client: EngineClient, database: str) -> None:
    """The server ends, and is back in the room that is kept for it: read-only until there is more."""
    await give_password(client, database)
    async with session(client, database) as connection:
        await connection.execute(TABLE)
        await connection.executemany(INSERT, [(number,) for number in range(100)])
    await fill(client, database)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        async with owner(client, database) as connection:
            await connection.execute(WRITE_LOG)
    await execute(client, database, "for i in $(seq 600); do pg_isready -qh 127.0.0.1 && exit; sleep .1; done; exit 1")
    assert await state(client, database) is DiskState.READ_ONLY
    await give_password(client, database)
    async with session(client, database) as connection:
        assert tuple(await connection.fetchrow(UNHURT)) == (100, 0)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute(INSERT, 100)
        await connection.execute("BEGIN READ WRITE")
        await connection.execute("TRUNCATE load")
        await connection.execute(INSERT, 100)
        await connection.execute("COMMIT")
        await execute(client, database, f"rm {FILLER}")
        while await connection.fetchval("SHOW default_transaction_read_only") == "on":  # noqa: ASYNC110
            await anyio.sleep(0.1)  # the guest looks every two seconds
        await connection.execute(INSERT, 101)
        assert tuple(await connection.fetchrow(UNHURT)) == (102, 0)
    assert await state(client, database) is DiskState.OK
    assert int(await execute(client, database, f"stat -c %s {DISK}/spare")) == 128 << 20


async def test_sessions_are_ended(client: EngineClient, database: str) -> None:
    await give_password(client, database)
    async with session(client, database) as idle, session(client, database) as busy:
        async with anyio.create_task_group() as group:

            async def sleep() -> None:
                with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
                    await busy.execute("SELECT pg_sleep(300)")

            group.start_soon(sleep)
            sleepers = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
            while not await idle.fetchval(sleepers):  # noqa: ASYNC110
                await anyio.sleep(0.05)  # the server has no event for it
            assert await execute(client, database, f"{CONTROL} sessions-end") == "2"
        with pytest.raises((asyncpg.AdminShutdownError, asyncpg.InterfaceError, asyncpg.ConnectionDoesNotExistError)):
            await idle.fetchval("SELECT 1")
    assert await execute(client, database, f"{CONTROL} sessions-end") == "0"
    async with session(client, database) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_fork_has_the_data_and_goes_its_own_way(client: EngineClient, database: str) -> None:
    await give_password(client, database)
    child = str(uuid.uuid4())
    async with session(client, database) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        await client.fork(database, [SandboxSpec(child)])
        try:
            async with owner(client, child) as copied:
                await copied.execute("ALTER ROLE pandastack PASSWORD 'of the child'")
            assert int(await execute(client, child, f"{CONTROL} sessions-end")) <= 1  # the tunnel's end may be first
            async with session(client, child, password="of the child") as branch:
                assert await branch.fetchval("SELECT sum(n) FROM kept") == 500500
                await branch.execute("DELETE FROM kept")
            with pytest.raises(asyncpg.InvalidPasswordError):
                async with session(client, child):
                    pass
            assert await connection.fetchval("SELECT sum(n) FROM kept") == 500500
        finally:
            await client.delete(child)
    async with session(client, database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM kept") == 1000


async def test_the_server_recovers_in_a_boot_without_memory(client: EngineClient, database: str) -> None:
    await give_password(client, database)
    async with session(client, database) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
        assert await execute(client, database, f"{CONTROL} settings 512") == "restarted"
    await client.hibernate(database)
    await client.wake(database, boot=True)
    async with session(client, database) as connection:
        assert await connection.fetchval("SELECT sum(n) FROM kept") == 500500
        assert tuple(await connection.fetchrow(SIZED)) == ("128MB", "100", "4MB")
        assert await connection.fetchval("SELECT pg_is_in_recovery()") is False
