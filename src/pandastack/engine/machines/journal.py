"""What the engine writes down before it acts, so that the next engine knows what the last one left behind."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pandastack.engine.crash_points import crash_at
from pandastack.host.files import write_atomically
from pandastack.host.processes.identity import ProcessIdentity

FILE = "journal.json"


@dataclass(frozen=True)
class Entry:
    """One machine. ``sandbox`` is empty until the machine has been given to one."""

    machine: str
    slot: int
    template: str
    snapshot: str
    state: str
    """``planned`` → ``prepared`` (→ ``rehearsed``) → ``claimed`` → ``running`` ⇄ ``hibernating``, ``rewinding``
    (→ ``ending``)."""
    sandbox: str = ""
    hostname: str = ""
    env: dict[str, str] = field(default_factory=dict)
    process: ProcessIdentity | None = None
    paused: bool = False
    """Whether its owner wants it to stand still."""


class Journal:
    """The entry of one machine, kept in the machine's own directory."""

    def __init__(self, directory: Path, entry: Entry) -> None:
        self._path = directory / FILE
        self.entry = entry
        self._write()

    def advance(self, state: str, **changes: Any) -> None:
        """Record that the machine has reached ``state``, and other fields of the entry that are known by now."""
        self.entry = replace(self.entry, state=state, **changes)
        self._write()

    def _write(self) -> None:
        write_atomically(self._path, json.dumps(asdict(self.entry)).encode())
        crash_at(self.entry.state)


def read(directory: Path) -> Entry | None:
    """The entry that is kept in ``directory``; ``None`` when there is none that can be read."""
    try:
        values = json.loads((directory / FILE).read_bytes())
        process = values.pop("process")
        return Entry(**values, process=ProcessIdentity(**process) if process else None)
    except (OSError, ValueError, TypeError, KeyError):
        return None
