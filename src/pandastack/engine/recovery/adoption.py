"""Which machines of a killed engine keep running and which are ended, decided from their journals alone.

Only a guest that has reached ``running`` has its identity; one that belongs to no sandbox was only inspected. A sandbox
that was ``hibernating`` or ``rewinding`` is where its data is: by the time its directory appears whole on the disk, or
its new machine runs, the old machine was stopped for good.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from pandastack.engine.machines import journal
from pandastack.engine.machines.journal import Entry
from pandastack.engine.machines.state import MachineState
from pandastack.host.processes.identity import alive


def should_adopt(entry: Entry, asleep: Container[str], running: Container[str]) -> bool:
    """Whether the machine of ``entry``, whose process is alive, is still its sandbox.

    ``asleep`` are the sandboxes on the disk, ``running`` those with a live machine in that state.
    """
    if entry.state is MachineState.HIBERNATING:
        return entry.sandbox not in asleep
    if entry.state is MachineState.REWINDING:
        return entry.sandbox not in running
    return bool(entry.sandbox) and entry.state is MachineState.RUNNING


def survivors(machines: Path, asleep: Container[str]) -> list[Entry]:
    """The machines in the directory ``machines`` that keep running."""
    found = [journal.read(each) for each in sorted(machines.iterdir())] if machines.exists() else []
    living = [entry for entry in found if entry and entry.process and alive(entry.process)]
    running = {entry.sandbox for entry in living if entry.state is MachineState.RUNNING}
    return [entry for entry in living if should_adopt(entry, asleep, running)]
