"""StorageBudget for what is needed more than automatic checkpoints: as a plan, and against a scripted peer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pandastack.errors import BadRequestError, ServerError, StorageFullError
from pandastack.services import ControlPlane, Settings
from pandastack.services.captures.eviction import beyond_budget, beyond_count, for_room, in_eviction_order
from pandastack.services.records.spec import NewSandbox
from pandastack.services.settings import Budget
from pandastack.store.snapshots import CHECKPOINT, SNAPSHOT, SnapshotRecord
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.plane import BASE, CALLER, QUICK, WORKSPACE, running, until_removed

anyio = pytest.mark.anyio

EVERY = NewSandbox("base", checkpoint_every=1)
GIB = 2**30


def record(name: str, at: float, sandbox: str = "s", kind: str = CHECKPOINT, automatic: bool = True) -> SnapshotRecord:
    return SnapshotRecord(name, WORKSPACE, sandbox, "base", kind, "", 1, 256, 100, 10, at, automatic)


def names(records: list[SnapshotRecord]) -> str:
    return "".join(each.id for each in records)


def test_the_least_recently_used_goes_first_whosoever_it_is() -> None:
    found = [record("a", 1), record("b", 2, "t"), record("c", 3)]
    assert names(in_eviction_order(found, {}, set())) == "abc"
    assert names(in_eviction_order(found, {"a": 9.0}, set())) == "bca"


def test_what_somebody_asked_for_and_a_last_resort_stay() -> None:
    found = [record("a", 1), record("b", 2, automatic=False), record("c", 3, kind=SNAPSHOT), record("d", 4)]
    assert names(in_eviction_order(found, {}, set())) == "ad"
    assert names(in_eviction_order(found, {}, {"s"})) == "a"
    assert names(in_eviction_order(found, {}, {"other"})) == "ad"


@pytest.mark.parametrize(
    ("frees", "budget", "gone"),
    [
        ({}, 0, ""),
        ({"a": 5, "b": 5}, 10, ""),
        ({"a": 5, "b": 5}, 9, "a"),
        ({"a": 5, "b": 5}, 4, "ab"),
        ({"a": 0, "b": 5, "c": 5}, 9, "ab"),
        ({"a": 0, "b": 0}, 0, ""),
    ],
)
def test_the_rest_keeps_the_budget(frees: dict[str, int], budget: int, gone: str) -> None:
    assert "".join(beyond_budget(frees, budget)) == gone


@pytest.mark.parametrize(
    ("frees", "missing", "all_or_nothing", "gone"),
    [
        ({"a": 5, "b": 5}, 3, True, "a"),
        ({"a": 5, "b": 5}, 10, True, "ab"),
        ({"a": 5, "b": 5}, 11, True, ""),
        ({"a": 5, "b": 5, "c": 0}, 11, False, "ab"),
        ({"a": 0}, 1, False, ""),
    ],
)
def test_nothing_goes_in_vain(frees: dict[str, int], missing: int, all_or_nothing: bool, gone: str) -> None:
    assert "".join(for_room(frees, missing, all_or_nothing=all_or_nothing)) == gone


def test_one_sandbox_keeps_so_many_of_which_automatic_ones_go_first() -> None:
    found = [record("a", 1, automatic=False), record("b", 2), record("c", 3), record("d", 4)]
    assert names(beyond_count(found, 4)) == ""
    assert names(beyond_count(found, 3)) == "b"
    assert names(beyond_count(found, 1)) == "bca"


@pytest.mark.parametrize(
    ("text", "budget"), [("20%", Budget(share=0.2)), ("0", Budget(fixed=0)), ("1000", Budget(fixed=1000))]
)
def test_the_budget_is_bytes_or_a_share(text: str, budget: Budget) -> None:
    assert Settings.from_env({"PANDASTACK_SNAPSHOT_BUDGET": text}).snapshot_budget == budget
    assert Budget(share=0.2).bytes_of(1000) == 200
    assert Budget(fixed=7).bytes_of(1000) == 7


@pytest.mark.parametrize("text", ["-1", "101%", "%", "some", "nan%", "1.5"])
def test_a_budget_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="PANDASTACK_SNAPSHOT_BUDGET"):
        Settings.from_env({"PANDASTACK_SNAPSHOT_BUDGET": text})


async def automatic(plane: ControlPlane, sandbox_id: str) -> str:
    """Take an automatic checkpoint now."""
    await plane.timeline.take(plane.sandboxes.get(CALLER, sandbox_id), None, automatic=True)
    return (await plane.snapshots.checkpoints(sandbox_id))[-1].id


async def ids(plane: ControlPlane) -> list[str]:
    return [each.id for each in await plane.snapshots.all()]


@anyio
async def test_the_budget_is_kept_over_all_sandboxes(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url, replace(QUICK, snapshot_budget=Budget(fixed=2 * 8192))) as plane:
        one, other = [await plane.sandboxes.create(CALLER, BASE) for _ in range(2)]
        asked = await plane.timeline.checkpoint(CALLER, one.id)
        taken = [await automatic(plane, each.id) for each in (one, other, one)]
        assert await ids(plane) == [asked.id, *taken[1:]]
        events = [event for event in await plane.events.latest(one.id, None) if event.type == "checkpoint.evicted"]
        assert [event.payload["id"] for event in events] == [taken[0]]
        await plane.timeline.rewind(CALLER, other.id, taken[1])
        last = await automatic(plane, other.id)
        assert await ids(plane) == [asked.id, taken[1], last]


@anyio
async def test_within_the_budget_the_engine_is_not_asked_again(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url) as plane:
        record = await plane.sandboxes.create(CALLER, BASE)
        for _ in range(4):
            await automatic(plane, record.id)
        assert engine.calls.count("measure") == 1


@anyio
async def test_what_is_shared_costs_nothing(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url, replace(QUICK, snapshot_budget=Budget(fixed=10_000))) as plane:
        record = await plane.sandboxes.create(CALLER, BASE)
        first = await automatic(plane, record.id)
        engine.snapshots[first].frees = 1000
        second = await automatic(plane, record.id)
        assert await ids(plane) == [first, second]


@anyio
@pytest.mark.parametrize("action", ["snapshot", "hibernate", "wake", "create"])
async def test_automatic_checkpoints_make_room_for_what_is_asked_for(
    engine: ScriptedEngine, url: str, action: str
) -> None:
    engine.storage = replace(engine.storage, free_bytes=GIB - 1)
    async with running(engine, url) as plane:
        record = await plane.sandboxes.create(CALLER, BASE)
        taken = [await automatic(plane, record.id) for _ in range(2)]
        if action == "wake":
            await plane.lifecycle.hibernate(CALLER, record.id)
        full_until_something_goes(engine, action)
        match action:
            case "snapshot":
                await plane.timeline.snapshot(CALLER, record.id)
            case "hibernate":
                await plane.lifecycle.hibernate(CALLER, record.id)
            case "wake":
                await plane.lifecycle.wake(CALLER, record.id)
            case "create":
                await plane.sandboxes.create(CALLER, BASE)
        kept = [each.id for each in await plane.snapshots.checkpoints(record.id)]
        assert kept == taken[1:]


@anyio
async def test_nothing_goes_for_a_snapshot_that_there_is_no_room_for(engine: ScriptedEngine, url: str) -> None:
    engine.storage = replace(engine.storage, free_bytes=0)
    async with running(engine, url) as plane:
        record = await plane.sandboxes.create(CALLER, BASE)
        taken = [await automatic(plane, record.id) for _ in range(2)]
        engine.refusals["snapshot"] = StorageFullError("full")
        with pytest.raises(StorageFullError):
            await plane.timeline.snapshot(CALLER, record.id)
        assert await ids(plane) == taken


@anyio
async def test_a_deleted_sandbox_takes_its_checkpoints_out_of_the_plan(engine: ScriptedEngine, url: str) -> None:
    async with running(engine, url, replace(QUICK, snapshot_budget=Budget(fixed=8192))) as plane:
        one, other = [await plane.sandboxes.create(CALLER, BASE) for _ in range(2)]
        await automatic(plane, one.id)
        await plane.sandboxes.delete(CALLER, one.id)
        await until_removed(plane, one.id)
        kept = await automatic(plane, other.id)
        assert await ids(plane) == [kept]


def full_until_something_goes(engine: ScriptedEngine, action: str) -> None:
    before = len(engine.snapshots)

    async def refuse(asked: str, _sandbox_id: str) -> None:
        if asked == action and len(engine.snapshots) == before:
            raise StorageFullError("full")

    engine.before = refuse


@anyio
async def test_a_checkpoint_is_taken_also_when_nothing_can_be_measured(engine: ScriptedEngine, url: str) -> None:
    engine.refusals["measure"] = ServerError("broken")
    async with running(engine, url) as plane:
        record = await plane.sandboxes.create(CALLER, BASE)
        asked = await plane.timeline.checkpoint(CALLER, record.id)
        assert await ids(plane) == [asked.id]
