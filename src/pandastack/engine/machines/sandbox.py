"""A sandbox as the engine sees it, and the machine that waits to become one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio

from pandastack.engine.machines.cable import Cable
from pandastack.engine.machines.console import Console
from pandastack.engine.machines.journal import Journal
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.origins.origin import Origin, Start
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import PandastackError, ServerError
from pandastack.guest import Channel
from pandastack.vmm.driver import Machine


@dataclass(frozen=True)
class LiveMachine:
    """A running machine with its resources. ``origin`` is what it began from, as it is in its own directory."""

    origin: Origin
    machine: Machine
    channel: Channel
    console: Console
    journal: Journal
    cable: Cable


class Sandbox:
    """A guest with its identity, and the ways to reach it."""

    def __init__(self, spec: SandboxSpec, live: LiveMachine, phases: dict[str, float], memory_lost: str = "") -> None:
        self.id = spec.sandbox
        self.spec = spec
        self.origin = live.origin
        self.machine = live.machine
        self.channel = live.channel
        self.console = live.console
        self.journal = live.journal
        self.cable = live.cable
        self.lock = anyio.Lock()
        """Held by operations that pause, capture or end the machine."""
        self.paused = False
        self.started_at = time.time()
        self.phases = phases
        """Milliseconds that each part of its start took."""
        self.memory_lost = memory_lost
        """Why it was booted from its disks; empty if its memory was restored."""
        self.failure: str | None = None
        """Why the machine ended by itself, if it did."""
        self.released = anyio.Event()
        """Set once nothing of the machine is left on the host."""
        self._end_requested = anyio.Event()

    @property
    def state(self) -> str:
        return "failed" if self.failure else "paused" if self.paused else "running"

    async def wait_end_requested(self) -> None:
        await self._end_requested.wait()

    async def end(self) -> None:
        """Request the end and wait until nothing is left of the machine."""
        self._end_requested.set()
        await self.released.wait()


@dataclass(eq=False)
class Hibernated:
    """A sandbox that is only on the disk: hibernated, or its disks, which outlived its machine. Its network policy may
    change meanwhile, and nothing else."""

    spec: SandboxSpec
    origin: Origin
    lock: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def id(self) -> str:
        return self.spec.sandbox

    state = "hibernated"


class WarmMachine:
    """A machine that waits to become a sandbox. It belongs to the task that made it; other tasks only claim it."""

    def __init__(self, template: Start) -> None:
        self.template = template
        self.usable = True
        """False once it is claimed or has died."""
        self._decided = anyio.Event()
        self._answered = anyio.Event()
        self._claim: tuple[SandboxSpec, Start, Stopwatch] | None = None
        self._sandbox: Sandbox | None = None
        self._error: PandastackError | None = None

    async def claim(self, spec: SandboxSpec, origin: Start, clock: Stopwatch) -> Sandbox:
        """Become the sandbox of ``spec``. Returns when the guest has its identity; raises the error that prevented it.

        A machine that has a guest must have been made from ``origin``, a blank one must fit it. ``clock`` has run since
        the sandbox was requested; its laps are the sandbox's phases.
        """
        self.usable = False
        self._claim = spec, origin, clock
        self._decided.set()
        await self._answered.wait()
        if self._sandbox is None:
            raise self._error or ServerError("the sandbox could not be started")
        return self._sandbox

    async def wait_claimed(self) -> tuple[SandboxSpec, Start, Stopwatch] | None:
        """What :meth:`claim` was given; ``None`` when the machine is no longer wanted."""
        await self._decided.wait()
        return self._claim

    def dismiss(self) -> None:
        """End a machine that nobody has claimed."""
        self.usable = False
        self._decided.set()

    def succeed(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._answered.set()

    def fail(self, error: PandastackError) -> None:
        """Answer a pending claim, and any later one."""
        self.usable = False
        if not self._answered.is_set():
            self._error = error
            self._answered.set()
