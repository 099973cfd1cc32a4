"""The states of a machine, the moves between them, and what the documentation says of both."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from pandastack.engine.machines.journal import FILE, Entry, Journal, read
from pandastack.engine.machines.state import MOVES, MachineState
from pandastack.errors import ServerError

DOCUMENT = Path(__file__).parents[2] / "docs" / "design" / "0009-adoption.md"

ROUTES = {
    MachineState.PLANNED: (),
    MachineState.BLANK: ("blank",),
    MachineState.REHEARSED: ("blank", "rehearsed"),
    MachineState.CLAIMED: ("blank", "claimed"),
    MachineState.RUNNING: ("blank", "claimed", "running"),
    MachineState.HIBERNATING: ("blank", "claimed", "running", "hibernating"),
    MachineState.REWINDING: ("blank", "claimed", "running", "rewinding"),
    MachineState.ENDING: ("blank", "claimed", "running", "ending"),
}


def journal_in(state: MachineState, directory: Path) -> Journal:
    journal = Journal(directory, Entry("beef", 3, "base", "0123", MachineState.PLANNED))
    for each in ROUTES[state]:
        journal.advance(MachineState(each))
    return journal


@pytest.mark.parametrize("former", list(MachineState))
@pytest.mark.parametrize("state", list(MachineState))
def test_only_moves_of_the_table_are_made(tmp_path: Path, former: MachineState, state: MachineState) -> None:
    journal = journal_in(former, tmp_path)
    if state in MOVES[former]:
        journal.advance(state)
    else:
        with pytest.raises(ServerError, match=f"beef cannot move from {former} to {state}"):
            journal.advance(state, sandbox="another")
    entry = read(tmp_path)
    assert entry == journal.entry
    assert entry is not None and (entry.state, entry.sandbox) == (state if state in MOVES[former] else former, "")


def test_every_state_is_reached_by_moves_of_the_table() -> None:
    assert set(ROUTES) == set(MOVES) == set(MachineState)
    for state, route in ROUTES.items():
        assert all(MachineState(later) in MOVES[MachineState(one)] for one, later in pairwise(("planned", *route)))
        assert ("planned", *route)[-1] == state


def test_a_paused_machine_stays_in_its_state(tmp_path: Path) -> None:
    journal = journal_in(MachineState.RUNNING, tmp_path)
    journal.set_paused(True)
    entry = read(tmp_path)
    assert entry is not None and (entry.state, entry.paused) == (MachineState.RUNNING, True)


def test_an_unknown_state_counts_as_no_journal(tmp_path: Path) -> None:
    journal_in(MachineState.RUNNING, tmp_path)
    written = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(written | {"state": "levitating"}))
    assert read(tmp_path) is None


def test_the_documents_table_is_the_codes() -> None:
    documented = {}
    for line in DOCUMENT.read_text().splitlines():
        if found := re.match(r"\| `(\w+)` \| ([^|]*)\|", line):
            documented[found[1]] = set(re.findall(r"`(\w+)`", found[2]))
    assert documented == {str(state): {str(each) for each in moves} for state, moves in MOVES.items()}
