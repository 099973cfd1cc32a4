"""Real clients of PostgreSQL with a real server, through the door."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import anyio
import asyncpg
import psycopg
import pytest

from tests.gateway.postgres_clients import DATABASE, HOST, PASSWORD, USER, ca, parameters
from tests.gateway.world import World

pytestmark = pytest.mark.anyio

Connection = psycopg.AsyncConnection[Any]


async def connected(world: World, **more: Any) -> Connection:
    return await psycopg.AsyncConnection.connect(**parameters(world, **more), autocommit=True)


async def value(connection: Connection, query: str) -> Any:
    row = await (await connection.execute(query)).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row[0]


async def answer(world: World, query: str = "SELECT current_user", **more: Any) -> Any:
    async with await connected(world, **more) as connection:
        return await value(connection, query)


async def refusal(world: World, **more: Any) -> str:
    with pytest.raises(psycopg.OperationalError) as caught:
        await connected(world, **more)
    return str(caught.value)


def conninfo(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}='{each}'" for name, each in values.items())


async def run(program: str, *arguments: str) -> str:
    done = await anyio.run_process([program, *arguments], env=os.environ | {"PGPASSWORD": PASSWORD}, check=False)
    return (done.stdout + done.stderr).decode()


async def test_psql_by_the_name_of_the_server(door: World) -> None:
    said = await run("psql", "-XAtc", "SELECT current_user, 40 + 2", conninfo(parameters(door)))
    assert said == f"{USER}|42\n"
    assert door.announced == [door.postgres_port]


@pytest.mark.parametrize(
    "more",
    [
        {"options": f"endpoint={DATABASE}"},
        {"options": f"project={DATABASE.upper()} -c statement_timeout=7s"},
        {"user": f"{USER}@{DATABASE}"},
        {"user": f"{USER}@{DATABASE}", "dbname": f"{USER}@{DATABASE}"},  # a client's default is the user's name
    ],
)
async def test_clients_that_send_no_server_name(door: World, more: dict[str, str]) -> None:
    query = "SELECT current_user || ' ' || current_database() || ' ' || current_setting('statement_timeout')"
    said = await answer(door, query, sslsni=0, sslmode="require", **more)
    assert said == f"{USER} {USER} {'7s' if 'timeout' in more.get('options', '') else '0'}"


async def test_the_address_of_the_gateway_itself(door: World) -> None:
    said = await answer(door, host="localhost", options=f"endpoint={DATABASE}", sslmode="verify-full")
    assert said == USER


async def test_a_connection_without_the_name_of_a_database(door: World) -> None:
    said = await refusal(door, sslsni=0, sslmode="require")
    for way in ("ID.localhost", "options=endpoint%3DID", "NAME@ID"):
        assert way in said
    assert "two databases" in await refusal(door, options="endpoint=other")
    assert "not the id" in await refusal(door, options=f"endpoint={HOST}")


async def test_a_client_without_tls(door: World) -> None:
    said = await run("psql", "-XAtc", "SELECT 1", conninfo(parameters(door, sslmode="disable")))
    assert "only answers over TLS" in said and "sslmode=require" in said


async def test_tls_from_the_first_byte(door: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await answer(door, sslnegotiation="direct") == USER
    real = socket.getaddrinfo  # the resolver may not know names below localhost
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **named: real("127.0.0.1", *more, **named))
    context = ssl.create_default_context(cafile=str(ca(door)))
    context.set_alpn_protocols(["postgresql"])
    connection = await asyncpg.connect(
        host=HOST,
        port=door.postgres_port,
        user=USER,
        password=PASSWORD,
        database=USER,
        ssl=context,
        direct_tls=True,
    )
    assert await connection.fetchval("SELECT current_user") == USER
    await connection.close()


async def test_bound_channels_are_refused(door: World) -> None:
    assert "channel binding" in await refusal(door, channel_binding="require")
    assert await answer(door, channel_binding="disable") == USER


async def test_a_database_that_does_not_exist_looks_like_a_wrong_password(door: World) -> None:
    wrong = await refusal(door, password="wrong")
    assert f'password authentication failed for user "{USER}"' in wrong
    unknown = await refusal(door, host="other.localhost")
    assert unknown.replace("other.localhost", HOST) == wrong
    assert await refusal(door, user="nobody") == wrong.replace(f'"{USER}"', '"nobody"')


async def test_what_only_a_client_with_a_password_learns(door: World) -> None:
    assert 'database "other" does not exist' in await refusal(door, dbname="other")
    assert 'password authentication failed for user "app"' in await refusal(door, dbname="other", password="x")


@pytest.mark.parametrize("newest", ["3.0", "3.2", "latest"])
async def test_versions_of_the_protocol(door: World, newest: str) -> None:
    async with await connected(door, max_protocol_version=newest) as connection:
        assert await value(connection, "SELECT current_user") == USER
        await cancelled(connection)


async def cancelled(connection: Connection) -> None:
    """A query that is cancelled, and one after it that is not."""
    with pytest.raises(psycopg.errors.QueryCanceled):
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                await anyio.sleep(0.3)
                await connection.cancel_safe()

            tasks.start_soon(cancel)
            try:
                await connection.execute("SELECT pg_sleep(30)")
            except psycopg.Error as error:
                failure = error
        raise failure
    assert await value(connection, "SELECT 1") == 1


async def test_cancels_inside_tls_and_outside(door: World) -> None:
    async with await connected(door) as connection:
        await cancelled(connection)
    async with await connected(door, sslnegotiation="direct") as connection:
        await cancelled(connection)

    # libpq 15 sends it outside of TLS, whatever the session is.
    argv = ["psql", "-XAt", conninfo(parameters(door)), "-c", "SELECT pg_sleep(30)"]
    async with await anyio.open_process(argv) as process:
        await anyio.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = b""
        while b"canceling statement due to user request" not in said:
            said += await process.stderr.receive()


async def test_a_late_cancel_does_nothing(door: World) -> None:
    async with await connected(door) as connection:
        assert await value(connection, "SELECT 1") == 1
        opened = len(door.connections)
        for _ in range(5):
            await connection.cancel_safe()
        assert len(door.connections) == opened  # the server has not even heard of it
        assert await value(connection, "SELECT 2") == 2


async def test_as_many_clients_as_a_database_takes(door: World) -> None:
    door.most_clients = 2
    async with await connected(door) as first, await connected(door) as second:
        assert "too many clients" in await refusal(door)
        assert (await value(first, "SELECT 1"), await value(second, "SELECT 2")) == (1, 2)
    with anyio.fail_after(10):
        while True:
            try:
                assert await answer(door) == USER  # a place is free again
                break
            except psycopg.OperationalError:
                await anyio.sleep(0.05)


async def test_a_connection_wakes_the_database(door: World) -> None:
    door.hibernate()
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(answer, door)
    assert (door.wakes, door.wakers) == (1, ["visitor"])


async def test_a_session_outlives_a_sleep_and_wakes_the_database(door: World) -> None:
    async with await connected(door) as connection:
        await connection.execute("CREATE TEMP TABLE kept AS SELECT 7 AS it")
        await connection.execute("PREPARE prepared AS SELECT it + 1 FROM kept")
        await connection.execute("LISTEN news")
        await connection.execute("SELECT pg_advisory_lock(5)")
        door.hibernate()
        await door.reported(lambda report: bool(report.asked), times=2)
        assert door.wakes == 0
        assert await value(connection, "SELECT it FROM kept") == 7
        assert door.wakes == 1
        assert await value(connection, "EXECUTE prepared") == 8
        assert await value(connection, "SELECT pg_listening_channels()") == "news"
        assert await value(connection, "SELECT pg_advisory_unlock(5)") is True


async def test_a_client_that_leaves_wakes_nobody(door: World) -> None:
    async with await connected(door):
        door.hibernate()
        await door.reported(lambda report: bool(report.asked), times=2)
    await door.reported(times=3)
    assert door.wakes == 0


async def test_a_transaction_whose_client_left_as_it_slept_ends_after_the_wake(door: World) -> None:
    async with await connected(door) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS orders AS SELECT 1 AS id")
    left = await connected(door)
    await left.execute("BEGIN")
    await left.execute("DELETE FROM orders")
    door.hibernate()
    await door.reported(lambda report: bool(report.asked), times=2)
    await left.close()
    async with await connected(door) as connection:
        assert door.wakes == 1
        with anyio.fail_after(10):
            assert await value(connection, "SELECT id FROM orders FOR UPDATE") == 1


async def test_what_runs_is_use_and_an_idle_client_is_none(door: World) -> None:
    def used(report: Any) -> bool:
        return bool(report.used)

    async with await connected(door) as connection:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(value, connection, "SELECT 1 FROM pg_sleep(1.5)")
            await door.reported(used, times=4)
        await door.reported(lambda report: bool(report.connected) and not report.used, times=2)
        await connection.execute("BEGIN")
        await door.reported(lambda report: bool(report.connected) and not report.used, times=2)
        await connection.execute("CREATE TEMP TABLE rows (id int)")
        async with connection.cursor() as cursor, cursor.copy("COPY rows FROM STDIN") as copy:
            await copy.write_row((1,))
            await door.reported(used, times=4)
        await door.reported(lambda report: not report.used, times=2)


async def test_much_data_both_ways(door: World) -> None:
    async with await connected(door) as connection:
        await connection.execute("CREATE TEMP TABLE rows (id int, body text)")
        async with connection.cursor() as cursor:
            async with cursor.copy("COPY rows FROM STDIN") as copy:
                for number in range(20_000):
                    await copy.write_row((number, f"{number:0200}"))
            received = bytearray()
            async with cursor.copy("COPY (SELECT body FROM rows ORDER BY id) TO STDOUT") as copy:
                async for piece in copy:
                    received += piece
        assert received == b"".join(b"%0200d\n" % number for number in range(20_000))


async def test_queries_that_do_not_wait_for_answers(door: World) -> None:
    async with await connected(door) as connection:
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", (number,)) for number in range(200)]
        assert [(await cursor.fetchone())[0] for cursor in cursors] == list(range(200))  # type: ignore[index]


async def test_notifications(door: World) -> None:
    async with await connected(door) as listener, await connected(door) as speaker:
        await listener.execute("LISTEN news")
        await speaker.execute("NOTIFY news, 'hello'")
        async for notice in listener.notifies(timeout=10, stop_after=1):
            assert notice.payload == "hello"


async def test_pgbench(door: World) -> None:
    where = conninfo(parameters(door))
    assert "done" in await run("pgbench", "-iq", "-s", "1", where)
    said = await run("pgbench", "-S", "-c", "8", "-j", "2", "-t", "50", "-M", "prepared", where)
    assert "number of transactions actually processed: 400/400" in said
    said = await run("pgbench", "-c", "4", "-C", "-t", "10", where)
    assert "number of transactions actually processed: 40/40" in said
