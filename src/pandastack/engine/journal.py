"""What the engine writes down before it acts, so that the next engine knows what the last one left behind."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pandastack.host.files import write_atomically
from pandastack.host.identity import ProcessIdentity

FILE = "journal.json"


@dataclass(frozen=True)
class Entry:
    """One machine. ``sandbox`` is empty until the machine has been given to one."""

    machine: str
    slot: int
    template: str
    snapshot: str
    state: str
    """``planned`` → ``prepared`` → ``claimed`` → ``running`` (→ ``ending``)."""
    sandbox: str = ""
    process: ProcessIdentity | None = None


class Journal:
    """The entry of one machine, kept in the machine's own directory."""

    def __init__(self, directory: Path, entry: Entry) -> None:
        self._path = directory / FILE
        self.entry = entry
        self._write()

    def advance(self, state: str, *, sandbox: str | None = None, process: ProcessIdentity | None = None) -> None:
        """Record that the machine has reached ``state``."""
        self.entry = replace(
            self.entry,
            state=state,
            sandbox=self.entry.sandbox if sandbox is None else sandbox,
            process=process or self.entry.process,
        )
        self._write()

    def _write(self) -> None:
        write_atomically(self._path, json.dumps(asdict(self.entry)).encode())
