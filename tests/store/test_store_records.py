"""Reading back what was written."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from sqlalchemy import event, text

from pandastack.errors import ServerError, UnavailableError
from pandastack.store import Store, events, open_store, sandboxes, tokens
from pandastack.store.events import EventRecord
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.tokens import TokenRecord

pytestmark = pytest.mark.anyio

RECORD = SandboxRecord(
    id="a" * 36,
    workspace="default",
    template="base",
    status="creating",
    ttl_seconds=300,
    created_at=1700000000.25,
    last_active_at=1700000001.5,
    metadata={"k.ey": "välue", "workspace": "default"},
)


@pytest.fixture
async def store(empty_database: str) -> AsyncIterator[Store]:
    async with open_store(empty_database) as opened:
        yield opened


async def _add_event(store: Store, type: str) -> None:
    async with store.write() as connection:
        await events.add_all(connection, [EventRecord(0, "default", RECORD.id, 1.0, type, {"n": type})])


async def test_a_record_comes_back_as_it_was(store: Store) -> None:
    async with store.write() as connection:
        await sandboxes.add(connection, RECORD)
        await sandboxes.change_all(
            connection, {RECORD.id: {"status": "running", "cpu": 2, "boot_ms": 37}, "unknown": {}}
        )
        await sandboxes.set_active(connection, {RECORD.id: 5.5, "unknown": 1.0})
    async with store.read() as connection:
        expected = replace(RECORD, status="running", cpu=2, boot_ms=37, last_active_at=5.5)
        assert await sandboxes.load_all(connection) == [expected]


async def test_a_cancelled_read_keeps_its_connection(empty_database: str) -> None:
    opened: list[object] = []
    with anyio.fail_after(20):
        async with open_store(empty_database) as store:
            event.listen(store._engine.sync_engine, "connect", lambda connection, _: opened.append(connection))
            for number in range(20):
                with anyio.move_on_after(number / 10_000):  # seconds: each cancels at another step
                    await store.check()
            await store.check()
    assert len(opened) <= 1


async def test_events_go_with_their_sandbox(store: Store) -> None:
    async with store.write() as connection:
        await sandboxes.add(connection, RECORD)
    for name in ("one", "two", "three"):
        await _add_event(store, name)
    async with store.read() as connection:
        latest = await events.latest(connection, RECORD.id, 2)
        assert [event.type for event in latest] == ["two", "three"]
        assert len(await events.latest(connection, RECORD.id, None)) == 3
        assert [event.type for event in await events.after(connection, RECORD.id, latest[0].id)] == ["three"]
    async with store.write() as connection:
        await sandboxes.remove(connection, RECORD.id)
    async with store.read() as connection:
        assert await events.latest(connection, RECORD.id, None) == []


async def test_an_event_needs_its_sandbox(store: Store) -> None:
    with pytest.raises(ServerError):
        await _add_event(store, "orphan")


async def test_tokens_are_found_by_hash_and_removed_by_prefix_of_their_workspace(store: Store) -> None:
    record = TokenRecord("f" * 64, "default", "pds_01234567", "laptop", 1.0)
    async with store.write() as connection:
        await tokens.add(connection, record)
        assert await tokens.count(connection) == 1
        assert await tokens.by_hash(connection, "f" * 64) == record
        assert await tokens.by_hash(connection, "0" * 64) is None
        assert not await tokens.remove(connection, "other", "pds_01234567")
        assert await tokens.of_workspace(connection, "default") == [record]
        assert await tokens.remove(connection, "default", "pds_01234567")
        assert await tokens.count(connection) == 0


async def test_a_failed_block_writes_nothing(store: Store) -> None:
    with pytest.raises(KeyError):
        async with store.write() as connection:
            await sandboxes.add(connection, RECORD)
            raise KeyError
    async with store.read() as connection:
        assert await sandboxes.load_all(connection) == []


async def test_a_write_that_began_survives_cancellation(store: Store) -> None:
    with anyio.CancelScope() as scope:
        async with store.write() as connection:
            scope.cancel()
            await sandboxes.add(connection, RECORD)
    async with store.read() as connection:
        assert len(await sandboxes.load_all(connection)) == 1


async def test_parallel_writers_all_succeed(store: Store) -> None:
    async def add(number: int) -> None:
        async with store.write() as connection:
            await sandboxes.add(connection, replace(RECORD, id=f"{number:036d}"))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(add, number)
    async with store.read() as connection:
        assert len(await sandboxes.load_all(connection)) == 50


async def test_sqlite_is_set_up_for_concurrency_and_integrity(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store, store.read() as connection:
        found = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        ]
    assert found == ["wal", 1, 1, 5000]


async def test_errors_of_the_database_are_mapped(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        async with open_store(f"sqlite:///{tmp_path}/no/such/directory/store.db"):
            pass
    with pytest.raises(ServerError, match="URL"):
        async with open_store("what is this"):
            pass
    # The driver's threads report their end to the event loop, which must still be there.
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await anyio.to_thread.run_sync(thread.join)
