"""Archives of databases, written by a real PostgreSQL of this host and read by another one."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream
from hypothesis import given, settings
from hypothesis import strategies as st

from pandastack.errors import GuestError, UnavailableError
from pandastack.products.databases.archive import feed, plan, receiver
from pandastack.products.databases.archive.archive import Archive, Health
from pandastack.products.databases.archive.receiver import Receiver
from pandastack.products.databases.archive.replication import Replication
from pandastack.products.databases.archive.target import DirectoryTarget
from pandastack.products.databases.archive.wal import SEGMENT, position_of, segment_name
from pandastack.products.databases.wire import Gone, Session, SqlError
from tests.cluster.scripted_postgres import message, row
from tests.support import postgres

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(postgres.missing() is not None, reason=str(postgres.missing())),
]

ROLE = "pandastack"


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with postgres.serving() as directory:
        yield directory


async def until(is_so: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while True:
            if is_so():
                return
            await anyio.sleep(0.01)


class Source:
    """A server, and the archive of it in a directory."""

    def __init__(self, sockets: Path, root: Path) -> None:
        self.sockets, self.root = sockets, root
        self.archive = self.opened()

    def opened(self) -> Archive:
        return Archive(DirectoryTarget(self.root / "target"), self.root / "pending", "one", user=ROLE)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[ByteStream]:
        async with await anyio.connect_unix(str(self.sockets / ".s.PGSQL.5432")) as stream:
            yield stream

    async def run(self, sql: str) -> list[tuple[str | None, ...]]:
        async with self.connect() as stream:
            session = Session(stream)
            await session.open({"user": ROLE, "database": "postgres"})
            return await session.query(sql)

    @asynccontextmanager
    async def archiving(self) -> AsyncIterator[None]:
        """Inside the block the log is received."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Receiver(self.archive, self.connect).run)
            await until(lambda: self.archive.health is Health.ARCHIVING)
            yield
            tasks.cancel_scope.cancel()
        self.archive.health = Health.WAITING

    async def flushed(self) -> None:
        """Wait until all that was committed is archived."""
        ((position,),) = await self.run("SELECT pg_current_wal_flush_lsn()")
        with anyio.fail_after(30):
            await self.archive.reached(position_of(position or ""))

    async def now(self) -> float:
        ((now,),) = await self.run("SELECT extract(epoch FROM clock_timestamp())")
        return float(now or 0)


@pytest.fixture
async def source(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Source]:
    monkeypatch.setattr(receiver, "_ASK_SECONDS", 0.1)
    source = Source(directory, tmp_path)
    await source.archive.load()
    yield source


async def test_a_base_and_its_log_are_a_server_again(source: Source, tmp_path: Path) -> None:
    await source.run("DROP TABLE IF EXISTS t; CREATE TABLE t (x int)")
    async with source.archiving():
        with anyio.fail_after(60):
            base = await source.archive.take_base(source.connect)
        await source.run("INSERT INTO t SELECT generate_series(1, 1000); SELECT pg_switch_wal()")
        await source.run("INSERT INTO t SELECT generate_series(1, 234)")
        await source.flushed()
    epoch = source.archive.current
    assert epoch is not None and epoch.bases == (base,) and base.start < base.end
    again = source.opened()
    await again.load()
    assert again.epochs == source.archive.epochs and again.size == source.archive.size > base.size
    wal = tmp_path / "wal"
    wal.mkdir()
    first, last = base.start // plan.SEGMENT, source.archive.durable // plan.SEGMENT
    assert last > first
    for number in range(first, last + 1):
        name = segment_name(epoch.timeline, number * plan.SEGMENT)
        content = await again.segment(epoch, name)
        assert content is not None
        (wal / f"{name}.gz").write_bytes(content)
    assert await again.segment(epoch, segment_name(epoch.timeline, (last + 1) * plan.SEGMENT)) is None
    (tmp_path / "base").write_bytes(b"".join([piece async for piece in again.base_pieces(epoch, base)]))
    assert recovered(tmp_path / "base", wal) == "1234"


def recovered(base: Path, wal: Path) -> str:
    """What a server counts that began with ``base`` and then had the log in ``wal``."""
    tools, user = postgres.programs(), "postgres" if os.geteuid() == 0 else None
    assert tools is not None
    root = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pg-XXXXXX"], text=True).strip())
    data = root / "data"
    try:
        with tarfile.open(base) as packed:
            packed.extractall(data, filter="data")
        shutil.copytree(wal, root / "wal")
        for name in ("pg_hba.conf", "postgresql.conf"):
            assert (data / name).exists()
        (data / "recovery.signal").touch()
        subprocess.run(["chown", "-R", user or str(os.geteuid()), root], check=True)
        subprocess.run(["chmod", "700", data], check=True)
        fetch = f"gunzip -c {root}/wal/%f.gz > %p"
        options = f"-k {root} -c listen_addresses= -c fsync=off -c restore_command='{fetch}'"
        log = ["-l", root / "log", "-o", options]
        subprocess.run([tools / "pg_ctl", "-D", data, *log, "-w", "start"], check=True, user=user, cwd=root)
        try:
            for _ in range(600):
                if ask(root, "SELECT pg_is_in_recovery()") == "f":
                    break
                time.sleep(0.05)
            return ask(root, "SELECT count(*) FROM t")
        finally:
            subprocess.run([tools / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, user=user, cwd=root)
    finally:
        shutil.rmtree(root)


def ask(sockets: Path, sql: str) -> str:
    tools = postgres.programs()
    assert tools is not None
    argv = [tools / "psql", "-h", sockets, "-U", ROLE, "-Atc", sql, "postgres"]
    return subprocess.check_output(argv, text=True).strip()


async def test_the_log_goes_on_after_a_break(source: Source) -> None:
    async with source.archiving():
        await source.run("CREATE TABLE IF NOT EXISTS u (x int); INSERT INTO u VALUES (1)")
        await source.flushed()
    durable = source.archive.durable
    await source.run("INSERT INTO u SELECT generate_series(1, 300000); SELECT pg_switch_wal()")
    source.archive = source.opened()  # as another server finds it
    await source.archive.load()
    async with source.archiving():
        await source.run("INSERT INTO u VALUES (2)")
        await source.flushed()
        assert source.archive.durable > durable
        began = await source.now()
        await until(lambda: (source.archive.as_of or 0) > began)
    assert [each.number for each in source.archive.epochs] == [1]
    positions = sorted(source.archive.epochs[0].segments)
    first = source.archive.epochs[0].start
    assert positions == [segment_name(1, first + n * plan.SEGMENT) for n in range(len(positions))] != []


async def test_a_log_that_the_server_has_lost_begins_another_epoch(source: Source) -> None:
    async with source.archiving():
        await source.archive.take_base(source.connect)
    await source.run(
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active;"
        "SELECT pg_drop_replication_slot('pandastack')"
    )
    for _ in range(3):
        await source.run("CREATE TABLE v AS SELECT generate_series(1, 1000) x; DROP TABLE v; SELECT pg_switch_wal()")
        await source.run("CHECKPOINT")
    receiving = Receiver(source.archive, source.connect)
    with pytest.raises(SqlError):
        await receiving.run()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receiving.run)
        await until(lambda: len(source.archive.epochs) == 2 and source.archive.health is Health.ARCHIVING)
        await source.archive.take_base(source.connect)
        tasks.cancel_scope.cancel()
    first, second = source.archive.epochs
    assert first.ended_at is not None and second.ended_at is None and second.start > first.next_segment
    assert [len(each.bases) for each in source.archive.epochs] == [1, 1]
    between = (first.ended_at + second.bases[0].ended_at) / 2
    assert plan.find_base(source.archive.epochs, between, time.time()) is None


async def test_a_server_that_stops_ends_the_connection(source: Source) -> None:
    async def stop() -> None:
        await anyio.sleep(0.2)
        await source.run("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop)
        with anyio.fail_after(30), pytest.raises((SqlError, Gone)):
            await Receiver(source.archive, source.connect).run()


class Scripted(ByteStream):
    """A server that says what it is told to, piece by piece, then nothing more."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [each for each in pieces if each]
        self.sent: list[bytes] = []

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self.pieces:
            raise anyio.EndOfStream
        return self.pieces.pop(0)

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(item)

    async def send_eof(self) -> None:
        raise AssertionError("never called")

    async def aclose(self) -> None:
        raise AssertionError("never called")


def data(body: bytes) -> bytes:
    return message(b"d", body)


@given(st.lists(st.binary(min_size=1, max_size=60) | st.binary(max_size=40).map(data), max_size=8))
@settings(max_examples=200, deadline=None)
def test_whatever_a_guest_sends_is_a_piece_of_the_log_or_an_error(pieces: list[bytes]) -> None:
    async def receive() -> None:
        session = Replication(Scripted(*pieces))
        with anyio.fail_after(5), pytest.raises((GuestError, SqlError, Gone)):
            while True:
                piece = await session.receive()
                assert piece.start + len(piece.data) <= piece.end or not piece.data

    anyio.run(receive)


@pytest.mark.parametrize("start", [SEGMENT + 1, SEGMENT - 1, 0])
async def test_a_log_with_a_gap_is_refused(tmp_path: Path, start: int) -> None:
    archive = Archive(DirectoryTarget(tmp_path / "target"), tmp_path / "pending", "one")
    position = b"0/1000010"
    identity = row(("7", "1", position.decode(), None)) + message(b"C", b"\0") + message(b"Z", b"I")
    ready = message(b"C", b"\0") + message(b"Z", b"I")
    begun = message(b"R", b"\0\0\0\0") + message(b"Z", b"I")
    piece = data(b"w" + struct.pack("!QQQ", start, start + 4, 5) + b"abcd")
    sessions = [begun + ready, begun + identity + ready + ready + message(b"W", b"") + piece]

    @asynccontextmanager
    async def connect() -> AsyncIterator[ByteStream]:
        yield Scripted(sessions.pop(0))

    with anyio.fail_after(30), pytest.raises(GuestError, match="gap"):
        await Receiver(archive, connect).run()
    assert archive.durable == SEGMENT


NAME = segment_name(1, SEGMENT)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (b".\n", None),
        (f"{NAME}\n{segment_name(1, 9 * SEGMENT)}\n.\n".encode(), None),
        (b"!the backup is damaged\n", "cannot be restored"),
        (b"../../etc/passwd\n", "nonsense"),
        (b"x" * 601, "has ended"),
        (b"\xff\n", "nonsense"),
        (f"{NAME}\n".encode(), "has ended"),
        (b"", "has ended"),
    ],
)
async def test_what_a_restoring_guest_may_ask_for(tmp_path: Path, lines: bytes, error: str | None) -> None:
    target = DirectoryTarget(tmp_path)
    target.put_bytes("one/0001/bases/0001.tar.gz", b"base")
    target.put_bytes(f"one/0001/wal/{NAME}.gz", b"segment")
    archive = Archive(target, tmp_path / "pending", "one")
    base = plan.Base(1, SEGMENT, SEGMENT, 5.0, 4)
    stream = Scripted(lines)
    source = feed.Source(archive, plan.Epoch(1, "7", 1, SEGMENT), base, None)
    with anyio.fail_after(10):
        if error is None:
            await feed._feed(stream, source)
        else:
            with pytest.raises(GuestError, match=error):
                await feed._feed(stream, source)
    sent = struct.pack("!I", 4) + b"base" + struct.pack("!I", 0)
    if lines.startswith(NAME.encode()):
        sent += struct.pack("!i", 7) + b"segment" + (struct.pack("!i", -1) if error is None else b"")
    assert b"".join(stream.sent) == sent


async def test_a_log_without_a_base_is_limited(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_MOST_LOG", SEGMENT)
    receiving = Receiver(source.archive, source.connect)

    async def write() -> None:
        await until(lambda: source.archive.health is Health.ARCHIVING)
        for _ in range(3):
            await source.run(
                "CREATE TABLE w AS SELECT generate_series(1, 1000) x; DROP TABLE w; SELECT pg_switch_wal()"
            )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        with anyio.fail_after(30), pytest.raises(UnavailableError, match="faster"):
            await receiving.run()
    source.archive.health = Health.WAITING
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receiving.run)
        await until(lambda: source.archive.health is Health.ARCHIVING)
        tasks.cancel_scope.cancel()
    first, second = source.archive.epochs
    assert second.start > first.start
    gone = plan.plan_retention(source.archive.epochs, 0.0)
    assert gone.epochs == (1,)
    await source.archive.delete(gone)
    again = source.opened()
    await again.load()
    assert [each.number for each in again.epochs] == [2]
