"""What a starting engine does with sandboxes whose machines are gone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.engine import origins
from pandastack.engine.machines.journal import Entry, Journal
from pandastack.engine.machines.state import MachineState
from pandastack.engine.origins.captures import CaptureStore
from pandastack.engine.recovery.lost import LostMachines, find_lost, why_lost
from pandastack.host.processes.identity import ProcessIdentity
from pandastack.model.template import Template
from pandastack.snapshots.manifest import Snapshot
from tests.support.manifests import TEMPLATE
from tests.support.origins import captured

_State = MachineState
ENTRY = Entry("m1", 1, "base", "k", _State.RUNNING, "box", "name", {"A": "1"}, ProcessIdentity(1, 2, "boot"))


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (_State.PLANNED, False),
        (_State.BLANK, False),
        (_State.REHEARSED, False),
        (_State.CLAIMED, False),
        (_State.RUNNING, True),
        (_State.HIBERNATING, True),
        (_State.REWINDING, True),
        (_State.ENDING, False),
    ],
)
def test_only_a_sandbox_that_nobody_ended_is_kept(state: MachineState, kept: bool) -> None:
    assert bool(find_lost([replace(ENTRY, state=state)], ())) is kept


def test_a_machine_of_nobody_or_of_an_adopted_sandbox_is_not_lost() -> None:
    assert find_lost([replace(ENTRY, sandbox="")], ()) == []
    assert find_lost([ENTRY], {"box"}) == []


def test_of_two_machines_the_one_that_took_the_others_place_counts() -> None:
    old, new = replace(ENTRY, machine="old", state=_State.REWINDING), replace(ENTRY, machine="new")
    assert find_lost([old, new], ()) == find_lost([new, old], ()) == [new]


def test_the_reason_tells_a_restart_of_the_host() -> None:
    assert why_lost(ENTRY, "another boot") == "the host was restarted"
    assert why_lost(ENTRY, "boot") == "its machine ended while no server ran"


def machine_of(pool: Path, entry: Entry) -> Snapshot:
    """The directory of a machine as an engine leaves it."""
    pool.mkdir(exist_ok=True)
    snapshot = captured(pool / entry.machine).snapshot
    (snapshot.directory / "template.json").write_text(json.dumps(Template.to_json(TEMPLATE)))
    (snapshot.directory / "manifest.json").write_bytes(snapshot.manifest.to_json())
    Journal(snapshot.directory, entry)
    return snapshot


@pytest.mark.anyio
async def test_the_disks_of_a_lost_machine_are_a_hibernated_sandbox(tmp_path: Path) -> None:
    snapshot, asleep = machine_of(tmp_path / "machines", ENTRY), CaptureStore(tmp_path / "asleep")
    await LostMachines(tmp_path / "machines", asleep).keep_all(())
    kept = asleep.get("box")
    assert kept.snapshot.root.samefile(snapshot.root)
    assert kept.snapshot.manifest.memory_lost == "the host was restarted"
    spec = origins.read_spec(asleep.path("box"))
    assert (spec.sandbox, spec.hostname, spec.env) == ("box", "name", {"A": "1"})
    assert [each.name for each in (tmp_path / "asleep").iterdir()] == ["box"]


@pytest.mark.anyio
@pytest.mark.parametrize(("state", "replaced"), [(_State.HIBERNATING, False), (_State.RUNNING, True)])
async def test_a_whole_capture_of_the_machine_counts_and_one_that_it_was_woken_from_does_not(
    tmp_path: Path, state: MachineState, replaced: bool
) -> None:
    entry, asleep = replace(ENTRY, state=state), CaptureStore(tmp_path / "asleep")
    machine_of(tmp_path / "machines", entry)
    stored = machine_of(tmp_path / "asleep", replace(entry, machine="box"))
    await LostMachines(tmp_path / "machines", asleep).keep(entry, "it died")
    assert (asleep.get("box").snapshot.manifest != stored.manifest) is replaced


@pytest.mark.anyio
async def test_a_torn_disk_is_given_up(tmp_path: Path) -> None:
    snapshot, asleep = machine_of(tmp_path / "machines", ENTRY), CaptureStore(tmp_path / "asleep")
    snapshot.root.write_bytes(snapshot.root.read_bytes()[: 128 * 1024])
    await LostMachines(tmp_path / "machines", asleep).keep_all(())
    assert asleep.names() == [] and list((tmp_path / "asleep").iterdir()) == []
