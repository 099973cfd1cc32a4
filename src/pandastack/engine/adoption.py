"""What an engine that was killed has left: which machines go on, which are ended. Decided from journals alone.

Only a guest that has reached ``running`` knows who it is; one that is no sandbox's was only looked at. A sandbox that
was ``hibernating`` is where its data is: its directory appears on the disk whole, after the machine was stopped for
good.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from pandastack.engine import journal
from pandastack.engine.journal import Entry
from pandastack.host.identity import alive

_OWNED = ("running", "paused")


def goes_on(entry: Entry, asleep: Container[str]) -> bool:
    """Whether the machine of ``entry``, whose process lives, is still its sandbox. ``asleep`` are ids on the disk."""
    if entry.state == "hibernating":
        return entry.sandbox not in asleep
    return bool(entry.sandbox) and entry.state in _OWNED


def left_running(machines: Path, asleep: Container[str]) -> list[Entry]:
    """The machines in the directory ``machines`` that go on."""
    entries = [journal.read(each) for each in sorted(machines.iterdir())] if machines.exists() else []
    return [entry for entry in entries if entry and entry.process and alive(entry.process) and goes_on(entry, asleep)]
