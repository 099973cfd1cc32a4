"""The states of a machine, as its journal records them, and the moves between them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from enum import StrEnum


class MachineState(StrEnum):
    """How far a machine has come. Each is written down when it is reached, so that the next engine can judge it."""

    PLANNED = "planned"
    """Its directory and slot are taken; no process was started yet."""

    BLANK = "blank"
    """Its VMM runs and has the files of a template open. There is no guest in it."""

    REHEARSED = "rehearsed"
    """Its guest has been through a rehearsal of a create, and its CPUs are paused."""

    CLAIMED = "claimed"
    """It was given to a sandbox, which nobody has been told of yet."""

    RUNNING = "running"
    """Its guest knows who it is, and the sandbox's owner knows of it. Paused machines are in this state too."""

    HIBERNATING = "hibernating"
    """It is being captured into the store of hibernated sandboxes. Once the capture is there, this one is void."""

    REWINDING = "rewinding"
    """A machine that takes its place is being restored. Once that one is running, this one is void."""

    ENDING = "ending"
    """Its end was asked for."""


_State = MachineState

MOVES: Mapping[MachineState, Set[MachineState]] = {
    _State.PLANNED: {_State.BLANK},
    _State.BLANK: {_State.REHEARSED, _State.CLAIMED},
    _State.REHEARSED: {_State.CLAIMED},
    _State.CLAIMED: {_State.RUNNING},
    _State.RUNNING: {_State.HIBERNATING, _State.REWINDING, _State.ENDING},
    _State.HIBERNATING: {_State.RUNNING, _State.ENDING},
    _State.REWINDING: {_State.RUNNING, _State.ENDING},
    _State.ENDING: set(),
}
"""The states that may follow each. A failed hibernate or rewind moves back to ``running``."""
