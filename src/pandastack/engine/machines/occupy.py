"""How a guest gets into a machine and receives its identity.

There is one function for each kind of machine that can be claimed: :func:`occupy_blank`, :func:`occupy_rehearsed` and
:func:`occupy_adopted`. The task that runs the machine (:mod:`pandastack.engine.machines.run`) knows which one it made.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio

from pandastack.engine import origins
from pandastack.engine.machines.rehearsal import Rehearsals
from pandastack.engine.machines.sandbox import LiveMachine
from pandastack.engine.machines.state import MachineState
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.origins.origin import Origin
from pandastack.engine.spec import SandboxSpec
from pandastack.guest import Identity
from pandastack.host import pagemap
from pandastack.snapshots import pages

HANDSHAKE_DEADLINE = 20.0
"""Seconds a restored guest may take to confirm its identity."""

Occupy = Callable[[LiveMachine, SandboxSpec, Origin, Stopwatch], Awaitable[LiveMachine]]
"""Turns the machine into the sandbox of a spec, in an origin's state. Each part of the work is a stopwatch lap."""


async def occupy_blank(live: LiveMachine, spec: SandboxSpec, origin: Origin, clock: Stopwatch) -> LiveMachine:
    """For a machine without a guest: load the guest of ``origin``."""
    _record_claim(live, spec, origin)
    live = await _load_guest(live, origin)
    clock.lap("fill")
    boundary = origin.snapshot.manifest.at_frame_boundary
    await _introduce(live, spec, at_frame_boundary=boundary, continues=origin.continues)
    live.journal.advance(MachineState.RUNNING)
    clock.lap("identity")
    return live


async def occupy_rehearsed(live: LiveMachine, spec: SandboxSpec, origin: Origin, clock: Stopwatch) -> LiveMachine:
    """For a machine that was rehearsed with ``origin``: its guest waits with paused CPUs."""
    _record_claim(live, spec, origin)
    await live.machine.resume()
    clock.lap("resume")
    await _introduce(live, spec, at_frame_boundary=True)  # the channel has been used since the restore, and drained
    live.journal.advance(MachineState.RUNNING)
    clock.lap("identity")
    return live


async def occupy_adopted(live: LiveMachine, spec: SandboxSpec, _: Origin, clock: Stopwatch) -> LiveMachine:
    """For a machine left by a former engine: its guest runs, and may be in the middle of a frame."""
    await _introduce(live, spec, at_frame_boundary=False, continues=True)
    if live.journal.entry.state is not MachineState.RUNNING:  # abandon what the former engine began
        live.journal.advance(MachineState.RUNNING)
    clock.lap("identity")
    return live


async def rehearse(live: LiveMachine, origin: Origin, rehearsals: Rehearsals) -> LiveMachine:
    """Load the guest of ``origin``, give it an identity once, run first commands, freeze it as for a capture and pause
    its CPUs.

    Memory is mapped when it is first touched, and under software emulation code is translated when it first runs: that
    is most of what a create and a first command cost. Nothing of the rehearsal remains that a program could tell from a
    capture of the template after that command: when the machine is claimed it gets a new identity, random numbers and
    clock included, and commands without an id leave no record.
    """
    live = await _load_guest(live, origin)
    spec = SandboxSpec(sandbox="", hostname="template", env=origin.template.env)
    await _introduce(live, spec, at_frame_boundary=origin.snapshot.manifest.at_frame_boundary)
    await rehearsals.run(live.channel, origin.template)
    await live.channel.quiesce(HANDSHAKE_DEADLINE, freeze=True)  # the identity at the claim thaws its programs
    await live.machine.pause()
    live.journal.advance(MachineState.REHEARSED)
    return live


def _record_claim(live: LiveMachine, spec: SandboxSpec, origin: Origin) -> None:
    live.journal.advance(
        MachineState.CLAIMED,
        template=origin.name,
        snapshot=origin.key,
        sandbox=spec.sandbox,
        hostname=spec.hostname,
        env=spec.env,
    )


async def _load_guest(live: LiveMachine, origin: Origin) -> LiveMachine:
    """Put the guest of ``origin`` into a blank machine. It still has the identity it was captured with."""
    own = await anyio.to_thread.run_sync(_copy_state, live, origin)
    await live.machine.load(origin.snapshot.devices)  # loading reads the guest's memory, so the pages come first
    return replace(live, origin=own)


def _copy_state(live: LiveMachine, origin: Origin) -> Origin:
    own = origins.copy_state(origin, live.origin.snapshot.directory)
    if origin.snapshot.pages.exists():
        pagemap.write_pages(live.machine.pid, own.snapshot.memory, pages.read(origin.snapshot.pages))
    return own


async def _introduce(live: LiveMachine, spec: SandboxSpec, *, at_frame_boundary: bool, continues: bool = False) -> None:
    """Give the guest its identity. ``at_frame_boundary``: whether its end of the channel is at one."""
    identity = replace(identity_of(spec), continues=continues)
    await live.channel.resume(identity, at_frame_boundary=at_frame_boundary, timeout_s=HANDSHAKE_DEADLINE)


def identity_of(spec: SandboxSpec) -> Identity:
    """The guest's identity from now on. Name, machine-id and boot id are the sandbox's for as long as it exists, also
    across hibernations; nothing else in it is ever used twice.

    A guest with a network would learn its addresses here as well: they belong to the machine's slot, so they may
    change with each restore.
    """
    return Identity(
        hostname=spec.hostname,
        machine_id=_derive("machine-id", spec).hex(),
        boot_id=str(uuid.UUID(bytes=_derive("boot-id", spec), version=4)),
        entropy=secrets.token_bytes(64),
        generation=secrets.randbits(63),
        env=spec.env,
        frozen=spec.frozen,
    )


def _derive(purpose: str, spec: SandboxSpec) -> bytes:
    return hashlib.sha256(f"{purpose}:{spec.sandbox}".encode()).digest()[:16]
