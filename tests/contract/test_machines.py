"""The engine's contract with sandboxes in it: the scripted engine says what the real one does."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import anyio
import pytest

from pandastack.cluster import EngineClient
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDOUT, ExecResult, Output
from pandastack.contract.references import SandboxRef, SnapshotRef, TemplateRef
from pandastack.contract.sandboxes import NOTHING_CAPTURED, BootMode, SandboxSpec, SandboxState, Started
from pandastack.contract.snapshots import MemoryFound
from pandastack.engine.http.app import create_engine_app
from pandastack.errors import BadRequestError, ConflictError, NotFoundError
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.installation import Install, Installation
from tests.support.machines import opened

pytestmark = pytest.mark.anyio

BASE = TemplateRef("base")


@pytest.fixture(scope="module")
def place(install: Install) -> Installation:
    return install("base")


@pytest.fixture(params=["scripted", pytest.param("real", marks=pytest.mark.vm)])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[EngineClient]:
    """An engine that has the template ``base``, and no sandboxes."""
    if request.param == "scripted":
        async with EngineClient.in_process(ScriptedEngine().app) as made:
            yield made
        return
    place: Installation = request.getfixturevalue("place")
    async with opened(place) as engine, EngineClient.in_process(create_engine_app(engine)) as made:
        with anyio.fail_after(300):
            yield made


def new_id() -> str:
    return str(uuid.uuid4())


async def create(client: EngineClient) -> str:
    sandbox_id = new_id()
    await client.create(SandboxSpec(sandbox_id), BASE)
    return sandbox_id


async def state(client: EngineClient, sandbox_id: str) -> SandboxState:
    return (await client.sandbox(sandbox_id)).state


async def hello(client: EngineClient, sandbox_id: str) -> None:
    async with client.exec(sandbox_id, ExecSpec(cmd="echo hello", timeout_seconds=60)) as records:
        *output, end = [record async for record in records]
    assert isinstance(end, ExecResult) and end.exit_code == 0 and end.duration_us > 0
    assert all(isinstance(each, Output) and each.kind == STDOUT for each in output)
    assert b"".join(each.data for each in output if isinstance(each, Output)) == b"hello\n"


async def test_a_sandbox_is_made_used_and_deleted(client: EngineClient) -> None:
    (template,) = await client.templates()
    assert await client.template(template.aliases[0]) == template
    sandbox_id = new_id()
    started = await client.create(SandboxSpec(sandbox_id, env={"A": "1"}), BASE)
    assert (started.id, started.template, started.boot_mode) == (sandbox_id, "base", BootMode.SNAPSHOT)
    assert (started.cpu, started.memory_mb) == (template.cpu, template.memory_mb)
    assert started.pid and started.phases
    with pytest.raises(ConflictError) as twice:
        await client.create(SandboxSpec(sandbox_id), BASE)
    assert twice.value.field == "id"

    (listed,) = await client.sandboxes()
    assert (listed.id, listed.state, listed.pid) == (sandbox_id, SandboxState.RUNNING, started.pid)
    assert listed.usage is None
    usage = (await client.sandbox(sandbox_id)).usage
    assert usage and usage.pid == started.pid and usage.threads
    assert (await client.health()).sandboxes == 1
    await hello(client, sandbox_id)
    assert isinstance(await client.console(sandbox_id), str)
    assert (await client.processes(sandbox_id)).retention.records > 0

    async with client.follow_console(sandbox_id) as pieces:
        assert isinstance(await anext(pieces), bytes)
        await client.delete(sandbox_id)
        assert all([isinstance(piece, bytes) async for piece in pieces]), "the console ends with its machine"
    assert await client.sandboxes() == ()
    with pytest.raises(NotFoundError):
        await client.delete(sandbox_id)


async def test_every_transition_may_be_asked_for_twice(client: EngineClient) -> None:
    sandbox_id = await create(client)
    for _ in range(2):
        await client.pause(sandbox_id)
        assert await state(client, sandbox_id) is SandboxState.PAUSED
    with pytest.raises(ConflictError, match="paused"):
        await hello(client, sandbox_id)
    for _ in range(2):
        await client.resume(sandbox_id)
        assert await state(client, sandbox_id) is SandboxState.RUNNING

    cost = await client.hibernate(sandbox_id)
    assert cost.size_bytes > 0 and cost.dirty_bytes > 0
    assert await client.hibernate(sandbox_id) == NOTHING_CAPTURED
    hibernated = await client.sandbox(sandbox_id)
    assert (hibernated.state, hibernated.pid, hibernated.usage) == (SandboxState.HIBERNATED, None, None)
    for refused in (client.pause(sandbox_id), client.resume(sandbox_id), hello(client, sandbox_id)):
        with pytest.raises(ConflictError, match="hibernated"):
            await refused
    for _ in range(2):
        assert (await client.wake(sandbox_id)).boot_mode is BootMode.WAKE
    await hello(client, sandbox_id)


async def test_a_snapshot_is_taken_used_and_deleted(client: EngineClient) -> None:
    sandbox_id, snapshot_id, copy = await create(client), new_id(), new_id()
    cost = await client.snapshot(sandbox_id, snapshot_id)
    assert cost.size_bytes > 0 and cost.dirty_bytes > 0
    with pytest.raises(ConflictError) as twice:
        await client.snapshot(sandbox_id, snapshot_id)
    assert twice.value.field == "id"
    assert [each.id for each in await client.snapshots()] == [snapshot_id]
    assert list((await client.measure([new_id(), snapshot_id])).frees) == [snapshot_id]
    await client.expect_creates(snapshot_id, 2, 60)
    found = await client.search_memory(snapshot_id, [b"Linux version", uuid.uuid4().bytes.hex().encode()])
    assert found == MemoryFound((0,), (0,))

    assert (await client.create(SandboxSpec(copy), SnapshotRef(snapshot_id))).id == copy
    rewound = await client.rewind(sandbox_id, snapshot_id)
    assert (rewound.id, rewound.boot_mode) == (sandbox_id, BootMode.SNAPSHOT)
    await hello(client, sandbox_id)
    for before in (BASE, SnapshotRef(snapshot_id), SandboxRef(copy)):
        diff = await client.diff(before, SandboxRef(sandbox_id), patch=True)
        assert diff.added + diff.removed + diff.changed == len(diff.changes)

    await client.delete_snapshot(snapshot_id)
    assert await client.snapshots() == ()
    with pytest.raises(NotFoundError):
        await client.rewind(sandbox_id, snapshot_id)
    await hello(client, sandbox_id)


async def test_copies_are_told_of_one_by_one(client: EngineClient) -> None:
    parent, children = await create(client), [new_id(), new_id()]
    answer = await client.fork(parent, [SandboxSpec(each) for each in children])
    assert answer.captured.dirty_bytes > 0
    assert [each.id for each in answer.children] == children
    for each in answer.children:
        assert isinstance(each, Started) and each.boot_mode is BootMode.FORK
        await hello(client, each.id)
    assert {each.id for each in await client.sandboxes()} == {parent, *children}


async def test_files_go_in_and_come_out(client: EngineClient) -> None:
    sandbox_id = await create(client)

    async def content() -> AsyncIterator[bytes]:
        yield b"some "
        yield b"text"

    written = await client.write_file(sandbox_id, "/root/a b", content())
    assert (written.path, written.bytes) == ("/root/a b", 9)
    async with client.read_file(sandbox_id, "/root/a b") as (_, chunks):
        assert b"".join([chunk async for chunk in chunks]) == b"some text"
    entry = await client.stat(sandbox_id, "/root/a b")
    assert (entry.name, entry.path, entry.is_dir, entry.size) == ("a b", "/root/a b", False, 9)
    assert (await client.directory(sandbox_id, "/root")).path == "/root"
    for _ in range(2):
        await client.delete_file(sandbox_id, "/root/a b")
    with pytest.raises(NotFoundError):
        await client.stat(sandbox_id, "/root/a b")
    with pytest.raises(BadRequestError) as refused:
        await client.stat(sandbox_id, "root")
    assert refused.value.field == "path"
