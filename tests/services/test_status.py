"""The states of a sandbox: which moves are legal, who makes them, and that the documentation has the same table."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.contract.sandboxes import SandboxState
from pandastack.errors import ConflictError, ServerError
from pandastack.services.processes.idle_watch import is_restored
from pandastack.services.records.bus import Bus, SandboxChanged
from pandastack.services.records.events import EventLog, NewEvent
from pandastack.services.records.registry import Change, Registry
from pandastack.services.records.status import LIVE, MOVES
from pandastack.store import open_store
from pandastack.store.sandboxes import SandboxRecord, Status
from tests.store.migrated import migrated_database

ROOT = Path(__file__).parents[2]
RECORD = SandboxRecord("a" * 36, "default", "base", Status.RUNNING, 300, 1.0, 1.0)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return migrated_database(tmp_path)


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    async with open_store(url) as store:
        yield Registry(store, EventLog(store), Bus())


async def put(registry: Registry, status: Status) -> SandboxRecord:
    record = replace(RECORD, status=status)
    await registry.add(record)
    return record


@pytest.mark.anyio
@pytest.mark.parametrize("after", Status)
@pytest.mark.parametrize("before", Status)
async def test_the_registry_makes_the_moves_of_the_table_and_refuses_all_others(
    registry: Registry, before: Status, after: Status
) -> None:
    record = await put(registry, before)
    if after in MOVES[before]:
        assert (await registry.move(record, after, reason="why")).status is after
    else:
        with pytest.raises(ServerError, match=f"{before} cannot become {after}"):
            await registry.move(record, after, reason="why")
        assert registry.get(record.id) == record


@pytest.mark.anyio
async def test_a_move_from_a_state_that_has_passed_is_a_conflict(registry: Registry) -> None:
    record = await put(registry, Status.RUNNING)
    await registry.move(record, Status.STOPPING)
    with pytest.raises(ConflictError, match="is being deleted"):
        await registry.move(record, Status.PAUSED)
    assert registry.get(record.id).status is Status.STOPPING


@pytest.mark.anyio
async def test_one_illegal_move_of_several_changes_undoes_none_and_makes_none(registry: Registry) -> None:
    record = await put(registry, Status.STOPPING)
    other = replace(RECORD, id="b" * 36)
    await registry.add(other)
    with pytest.raises(ServerError):
        await registry.apply(
            Change(other.id, {"reason": "changed"}, (NewEvent("test"),)),
            Change(record.id, move=(Status.STOPPING, Status.RUNNING)),
        )
    assert registry.get(other.id) == other


@pytest.mark.anyio
async def test_a_status_comes_back_from_the_store_as_one(registry: Registry) -> None:
    record = await put(registry, Status.HIBERNATED)
    await registry.load()
    assert registry.get(record.id).status is Status.HIBERNATED


def test_every_state_has_moves_and_recovery_may_follow_the_engine() -> None:
    assert set(MOVES) == set(Status)
    for after in LIVE:
        assert all(after in MOVES[before] for before in (*LIVE, Status.FAILED) if before is not after)
    assert all(Status.FAILED in MOVES[before] for before in LIVE)


def test_the_documentation_has_the_table_of_moves() -> None:
    text = (ROOT / "docs/lifecycle.md").read_text()
    shown = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+) \|$", text.partition("## Moves")[2].partition("\n## ")[0], re.M)
    assert shown == [(before, after, when) for before, follows in MOVES.items() for after, when in follows.items()]


def test_nothing_but_the_registry_writes_a_status() -> None:
    """A record is made with its first status by the plan of a new sandbox; every other status is a move."""
    makers = {"services/records/spec.py"}
    found = set()
    for path in (ROOT / "src/pandastack").rglob("*.py"):
        name = str(path.relative_to(ROOT / "src/pandastack"))
        if name.split("/")[0] not in ("services", "store", "api") or name == "services/records/registry.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _sets_status(node):
                found.add(name)
    assert found == makers


def _sets_status(call: ast.Call) -> bool:
    """Whether a call hands over a status of a sandbox: as an argument of that name, or in the values of a change."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("SandboxRecord", "replace", "change") and any(each.arg == "status" for each in call.keywords):
        return True
    dicts = [each for each in call.args if isinstance(each, ast.Dict)] if name in ("Change", "values") else []
    return any(isinstance(key, ast.Constant) and key.value == "status" for each in dicts for key in each.keys)


@pytest.mark.anyio
async def test_a_change_cannot_smuggle_a_status_in(registry: Registry) -> None:
    record = await put(registry, Status.RUNNING)
    with pytest.raises(AssertionError):
        await registry.change(record.id, status=Status.PAUSED)
    assert registry.get(record.id) == record


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("before", "restored"),
    [(Status.HIBERNATED, True), (Status.FAILED, True), (Status.RUNNING, True), (Status.PAUSED, False)],
)
async def test_a_machine_restored_from_a_capture_is_looked_at_for_processes(
    url: str, before: Status, restored: bool
) -> None:
    bus = Bus()
    async with open_store(url) as store:
        registry = Registry(store, EventLog(store), bus)
        record = await put(registry, before)
        with bus.subscribe(SandboxChanged) as changes:
            await registry.move(record, Status.RUNNING)
            await registry.change(record.id, ttl_seconds=7)
            assert [is_restored(await anext(changes)) for _ in range(2)] == [restored, False]


def test_every_state_that_an_engine_can_tell_is_a_status() -> None:
    assert {Status(each) for each in SandboxState} == {*LIVE, Status.FAILED}
