"""The engine's routes into a guest, from the client to the real agent, which is an ordinary process here."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import cast

import anyio
import pytest

from pandastack.cluster import EngineClient
from pandastack.contract.processes import ExecSpec, ProcessRecord, ProcessSpec, TerminalSize
from pandastack.contract.records import (
    STDERR,
    STDOUT,
    ExecFailed,
    ExecResult,
    Output,
    OutputOffset,
    Record,
    StillRunning,
)
from pandastack.engine.engine import Engine
from pandastack.engine.http.app import create_engine_app
from pandastack.errors import BadRequestError, ConflictError, NotFoundError
from pandastack.guest import Channel

pytestmark = pytest.mark.anyio

ID = "00000000-0000-4000-8000-000000000000"


class OneGuest:
    """All that the routes into guests need of an engine: it has one sandbox."""

    builds = None

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.registry = self.brokerage = self

    def reach(self, _sandbox_id: str) -> OneGuest:
        return self

    def env_of(self, _sandbox: OneGuest) -> Mapping[str, str]:
        return {}


@pytest.fixture
async def client(channel: Channel) -> AsyncIterator[EngineClient]:
    async with EngineClient.in_process(create_engine_app(cast(Engine, OneGuest(channel)))) as client:
        with anyio.fail_after(60):
            yield client


async def ran(client: EngineClient, spec: ExecSpec) -> tuple[bytes, bytes, Record]:
    collected = {STDOUT: b"", STDERR: b""}
    async with client.exec(ID, spec) as records:
        *output, end = [record async for record in records]
    for record in output:
        assert isinstance(record, Output)
        collected[record.kind] += record.data
    return collected[STDOUT], collected[STDERR], end


async def test_a_command_and_how_it_ended(client: EngineClient) -> None:
    stdout, stderr, end = await ran(client, ExecSpec(cmd="echo out; echo err >&2; exit 3"))
    assert (stdout, stderr) == (b"out\n", b"err\n")
    assert isinstance(end, ExecResult)
    assert (end.exit_code, end.timed_out, end.signal) == (3, False, 0)
    assert end.duration_us > 0 and end.maxrss_kb > 0


async def test_what_a_command_is_given(client: EngineClient, tmp_path: Path) -> None:
    spec = ExecSpec(cmd='cat; echo "$A"; pwd', stdin=b"\x00in\xff", env={"A": "ü"}, cwd=str(tmp_path))
    assert (await ran(client, spec))[0] == b"\x00in\xff" + f"ü\n{tmp_path}\n".encode()
    assert (await ran(client, ExecSpec(cmd="cat", stdin=b"")))[0] == b""
    assert (await ran(client, ExecSpec(cmd="cat")))[0] == b""


async def test_a_command_over_its_time(client: EngineClient) -> None:
    _, _, end = await ran(client, ExecSpec(cmd="sleep 60", timeout_seconds=0.2))
    assert isinstance(end, ExecResult) and end.timed_out and end.exit_code == 128 + end.signal


async def test_a_command_that_could_not_begin_says_why(client: EngineClient) -> None:
    _, _, end = await ran(client, ExecSpec(cmd="true", cwd="/nowhere"))
    assert isinstance(end, ExecFailed) and isinstance(end.failure.exception(), NotFoundError)
    assert end.failure.detail == {"errno": 2}
    _, _, end = await ran(client, ExecSpec(cmd="true", user="nobody there"))
    assert isinstance(end, ExecFailed) and isinstance(end.failure.exception(), BadRequestError)


async def start(client: EngineClient, cmd: str, **extra: object) -> ProcessRecord:
    spec = ProcessSpec(cmd=cmd, id=str(uuid.uuid4()), spool=True, keep_bytes=1 << 20, **extra)  # type: ignore[arg-type]
    started = await client.start_process(ID, spec)
    assert (started.id, started.cmd, started.running, started.exit_code) == (spec.id, cmd, True, None)
    return started


async def ended(client: EngineClient, process: str) -> Record:
    async with client.attach(ID, process, stdout=None, stderr=None, follow=True) as records:
        return [record async for record in records][-1]


async def test_a_process_is_read_from_any_offset(client: EngineClient) -> None:
    started = await start(client, "printf 0123456789; printf error >&2; exit 4")
    assert await ended(client, started.id) == ExecResult(
        **{
            name: getattr(await client.process(ID, started.id), name)
            for name in ("exit_code", "timed_out", "signal", "duration_us", "utime_us", "stime_us", "maxrss_kb")
        }
    )
    async with client.attach(ID, started.id, stdout=4, stderr=None, follow=True) as records:
        found = [record async for record in records]
    assert found[:2] == [OutputOffset(STDOUT, 4), Output(STDOUT, b"456789")]
    assert isinstance(found[-1], ExecResult) and found[-1].exit_code == 4
    record = await client.process(ID, str(started.pid))
    assert (record.id, record.running, record.exit_code) == (started.id, False, 4)
    assert (record.stdout.base, record.stdout.end, record.stderr.end) == (0, 10, 5)
    listed = await client.processes(ID)
    assert record in listed.processes and listed.retention.records > 0


async def test_a_process_is_written_to_and_signalled(client: EngineClient) -> None:
    started = await start(client, "cat; echo done", stdin_open=True)
    assert await client.send_input(ID, started.id, b"some ", close=False) == 5
    async with client.attach(ID, started.id, stdout=0, stderr=0, follow=False) as records:
        assert isinstance([record async for record in records][-1], StillRunning)
    assert await client.send_input(ID, started.id, b"text", close=True) == 4
    assert await ended(client, started.id)
    async with client.attach(ID, started.id, stdout=0, stderr=None, follow=True) as records:
        output = b"".join([record.data async for record in records if isinstance(record, Output)])
    assert output == b"some textdone\n"
    with pytest.raises(ConflictError):
        await client.signal(ID, started.id, 15)
    killed = await start(client, "exec sleep 60")
    await client.signal(ID, killed.id, 9)
    end = await ended(client, killed.id)
    assert isinstance(end, ExecResult) and end.signal == 9


async def test_a_terminal_has_a_size(client: EngineClient) -> None:
    started = await start(client, "read line; stty size", terminal=TerminalSize(30, 100))
    assert (started.pty, started.rows, started.columns) == (True, 30, 100)
    await client.resize(ID, started.id, TerminalSize(31, 101))
    await client.send_input(ID, started.id, b"\n", close=False)
    await ended(client, started.id)
    async with client.attach(ID, started.id, stdout=0, stderr=None, follow=True) as records:
        output = b"".join([record.data async for record in records if isinstance(record, Output)])
    assert output.endswith(b"31 101\r\n")


async def test_a_process_that_is_not_there(client: EngineClient) -> None:
    for operation in (
        client.process(ID, ID),
        client.signal(ID, ID, 15),
        client.send_input(ID, ID, b"x", close=True),
        client.resize(ID, ID, TerminalSize(24, 80)),
        client.attach(ID, ID, stdout=0, stderr=0, follow=True).__aenter__(),
    ):
        with pytest.raises(NotFoundError):
            await operation


async def test_files_as_the_guest_describes_them(client: EngineClient, tmp_path: Path) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        yield b"y"

    path = f"{tmp_path}/new/a b ü"
    written = await client.write_file(ID, path, content())
    assert (written.path, written.bytes) == (path, 100_001)
    Path(tmp_path, "new", "link").symlink_to("nowhere")
    Path(tmp_path, "new", "zoo").mkdir()
    directory = await client.directory(ID, f"{tmp_path}/new")
    assert [(each.name, each.is_dir, each.mode[0]) for each in directory.entries] == [
        ("a b ü", False, "-"),
        ("link", False, "l"),
        ("zoo", True, "d"),
    ]
    assert directory.entries[0] == await client.stat(ID, path)
    async with client.read_file(ID, path, offset=99_999, length=10) as (_, chunks):
        assert b"".join([chunk async for chunk in chunks]) == b"xy"
    await client.delete_file(ID, path)
    for missing in (client.stat(ID, path), client.read_file(ID, path).__aenter__()):
        with pytest.raises(NotFoundError):
            await missing
    with pytest.raises(BadRequestError):
        await client.directory(ID, "/etc/hostname")
