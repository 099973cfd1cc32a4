"""The states of a machine, as its journal records them, and the moves between them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from enum import StrEnum


class MachineState(StrEnum):
    """How far a machine has come. Each state is recorded when it is reached, so that the next engine can tell."""

    PLANNED = "planned"
    """Its directory and slot are allocated; no process was started yet."""

    BLANK = "blank"
    """Its VMM runs and has its files open. There is no guest in it, or one that still boots."""

    REHEARSED = "rehearsed"
    """Its guest has been through a rehearsal of a create, and its CPUs are paused."""

    CLAIMED = "claimed"
    """It was given to a sandbox that has not been reported to its owner yet."""

    RUNNING = "running"
    """Its guest has its identity, and the sandbox was reported to its owner. Paused machines are in this state too."""

    HIBERNATING = "hibernating"
    """It is being captured to hibernate the sandbox. Once the capture is complete, this machine is void."""

    REWINDING = "rewinding"
    """Its replacement is being restored. Once the replacement is running, this machine is void."""

    ENDING = "ending"
    """Its end was requested."""


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
"""The states that may follow each state. A failed hibernate or rewind moves back to ``running``."""

LOSABLE = frozenset({_State.RUNNING, _State.HIBERNATING, _State.REWINDING})
"""The states in which a machine is a sandbox's and its end was not requested: its disks are kept if it is lost."""
