"""A sandbox as the engine sees it, and the machine that waits to become one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio

from pandastack.engine.machines.console import Console
from pandastack.engine.machines.journal import Journal
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.origins.origin import Origin
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import PandastackError, ServerError
from pandastack.guest import Channel
from pandastack.vmm.driver import Machine


@dataclass(frozen=True)
class LiveMachine:
    """A machine with all that its life holds of it. ``origin`` is what it was restored from, in its own directory."""

    origin: Origin
    machine: Machine
    channel: Channel
    console: Console
    journal: Journal


class Sandbox:
    """A guest that knows who it is, and the ways to reach it."""

    def __init__(self, spec: SandboxSpec, live: LiveMachine, phases: dict[str, float]) -> None:
        self.id = spec.sandbox
        self.spec = spec
        self.origin = live.origin
        self.machine = live.machine
        self.channel = live.channel
        self.console = live.console
        self.journal = live.journal
        self.lock = anyio.Lock()
        """Held by whatever pauses, captures or ends the machine."""
        self.paused = False
        self.started_at = time.time()
        self.phases = phases
        """Milliseconds that each part of its start took."""
        self.failure: str | None = None
        """Why the machine ended by itself, if it did."""
        self.released = anyio.Event()
        """Set when nothing of the machine is left on the host."""
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


@dataclass(frozen=True)
class Hibernated:
    """A sandbox that is on the disk only."""

    spec: SandboxSpec
    origin: Origin
    lock: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def id(self) -> str:
        return self.spec.sandbox

    state = "hibernated"


class WarmMachine:
    """A machine that waits to become a sandbox. It belongs to the task that made it; others only claim it."""

    def __init__(self, template: Origin) -> None:
        self.template = template
        self.usable = True
        """False once it is claimed or has died."""
        self._decided = anyio.Event()
        self._answered = anyio.Event()
        self._claim: tuple[SandboxSpec, Origin, Stopwatch] | None = None
        self._sandbox: Sandbox | None = None
        self._error: PandastackError | None = None

    async def claim(self, spec: SandboxSpec, origin: Origin, clock: Stopwatch) -> Sandbox:
        """Become the sandbox of ``spec``. Returns when the guest knows who it is; raises why it could not.

        A machine that has a guest must have been made of ``origin``, a blank one must fit it. ``clock`` has run since
        the sandbox was asked for; its laps are the sandbox's phases.
        """
        self.usable = False
        self._claim = spec, origin, clock
        self._decided.set()
        await self._answered.wait()
        if self._sandbox is None:
            raise self._error or ServerError("the sandbox could not be started")
        return self._sandbox

    async def wait_claimed(self) -> tuple[SandboxSpec, Origin, Stopwatch] | None:
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
        """Answer a claim that was not answered yet, and any that comes later."""
        self.usable = False
        if not self._answered.is_set():
            self._error = error
            self._answered.set()
