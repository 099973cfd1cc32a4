"""A record that the engine writes before it acts, so that its successor knows what it left behind."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pandastack.engine.crash_points import crash_at
from pandastack.engine.machines.state import MOVES, MachineState
from pandastack.engine.spec import Attachment, SandboxSpec
from pandastack.errors import BadRequestError, ServerError
from pandastack.host.files import write_atomically
from pandastack.host.processes.identity import ProcessIdentity
from pandastack.model.network import OPEN, NetworkPolicy
from pandastack.model.network_rules import from_json, to_json

FILE = "journal.json"


@dataclass(frozen=True)
class Entry:
    """One machine. ``sandbox`` is empty until the machine has been given to one."""

    machine: str
    slot: int
    template: str
    snapshot: str
    state: MachineState
    sandbox: str = ""
    hostname: str = ""
    env: dict[str, str] = field(default_factory=dict)
    process: ProcessIdentity | None = None
    network_slot: str = ""
    """The name of its place in the network; empty without one."""
    paused: bool = False
    """Whether the sandbox's owner has paused it."""
    network: NetworkPolicy = OPEN
    volumes: tuple[Attachment, ...] = ()

    @property
    def spec(self) -> SandboxSpec:
        """What the machine was claimed for."""
        return SandboxSpec(self.sandbox, self.hostname, self.env, network=self.network, volumes=self.volumes)


class Journal:
    """The entry of one machine, stored in the machine's own directory."""

    def __init__(self, directory: Path, entry: Entry) -> None:
        self._path = directory / FILE
        self.entry = entry
        self._write()
        crash_at(entry.state)

    def advance(self, state: MachineState, **changes: Any) -> None:
        """Record that the machine has reached ``state``, with other fields of the entry that are known by now.

        Raises :class:`ServerError` for a move that :data:`MOVES` does not have.
        """
        former = self.entry.state
        if state not in MOVES[former]:
            raise ServerError(f"machine {self.entry.machine} cannot move from {former} to {state}")
        self._record(state=state, **changes)
        crash_at(state)

    def set_paused(self, paused: bool) -> None:
        """Record whether the sandbox's owner has paused it: a paused machine stays in its state."""
        self._record(paused=paused)

    def set_network(self, policy: NetworkPolicy) -> None:
        """Record another policy: its successor would restore the former one."""
        self._record(network=policy)

    def _record(self, **changes: Any) -> None:
        # This engine acts on the entry even when the disk is too full to record it.
        self.entry = replace(self.entry, **changes)
        self._write()

    def _write(self) -> None:
        write_atomically(
            self._path, json.dumps({**asdict(self.entry), "network": to_json(self.entry.network)}).encode()
        )


def read(directory: Path) -> Entry | None:
    """The entry in ``directory``; ``None`` when there is none or it cannot be read."""
    try:
        values = json.loads((directory / FILE).read_bytes())
        process, state = values.pop("process"), MachineState(values.pop("state"))
        network = from_json(values.pop("network", OPEN.egress.value))
        volumes = tuple(Attachment(**each) for each in values.pop("volumes", ()))
        known = ProcessIdentity(**process) if process else None
        return Entry(**values, state=state, process=known, network=network, volumes=volumes)
    except (OSError, ValueError, TypeError, KeyError, BadRequestError):
        return None
