"""How a guest gets into a machine and receives its identity.

There is one function for each kind of machine that can be claimed: :func:`occupy_blank`, :func:`occupy_rehearsed`,
:func:`occupy_booted` and :func:`occupy_adopted`. The task that runs the machine
(:mod:`pandastack.engine.machines.run`) knows which one it made.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio

from pandastack.engine import origins
from pandastack.engine.machines.boot import BOOT_DEADLINE, explained
from pandastack.engine.machines.rehearsal import Rehearsals
from pandastack.engine.machines.sandbox import LiveMachine
from pandastack.engine.machines.services import start_all
from pandastack.engine.machines.state import MachineState
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.origins.origin import Origin, Start
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import BadRequestError, PandastackError
from pandastack.guest import Identity
from pandastack.host import pagemap
from pandastack.model.size import Size
from pandastack.snapshots import pages
from pandastack.snapshots.manifest import ROOT

HANDSHAKE_DEADLINE = 20.0
"""Seconds a restored guest may take to confirm its identity."""

Occupy = Callable[[LiveMachine, SandboxSpec, Start, Stopwatch], Awaitable[LiveMachine]]
"""Turns the machine into the sandbox of a spec, in an origin's state. Each part of the work is a stopwatch lap."""


async def occupy_blank(live: LiveMachine, spec: SandboxSpec, origin: Start, clock: Stopwatch) -> LiveMachine:
    """For a machine without a guest: load the guest of ``origin``."""
    assert isinstance(origin, Origin), "a blank machine has no kernel"
    _record_claim(live, spec, origin)
    await live.cable.connect(spec.sandbox, spec.network)  # before any of its programs can run
    live = await _load_guest(live, origin)
    clock.lap("fill")
    boundary = origin.snapshot.manifest.at_frame_boundary
    live = await _grow_disk(live, origin)
    await _show_volumes(live, origin)
    await _introduce(live, spec, at_frame_boundary=boundary, continues=origin.continues, size=origin.resized)
    await _mount_volumes(live, spec, len(origin.attached))  # the others are mounted in the guest's memory
    live.journal.advance(MachineState.RUNNING)
    clock.lap("identity")
    return live


async def occupy_booted(live: LiveMachine, spec: SandboxSpec, origin: Start, clock: Stopwatch) -> LiveMachine:
    """For a machine that boots from the disks of ``origin``. Its boot id is a new one, as after any boot."""
    _record_claim(live, spec, origin)
    try:
        await live.cable.connect(spec.sandbox, spec.network)
        await live.cable.set_link()
        await live.channel.hello(timeout_s=BOOT_DEADLINE)
        clock.lap("boot")
        live = await _grow_disk(live, origin)
        await _introduce(live, spec, at_frame_boundary=True, booted=True, size=origin.size)
        clock.lap("identity")
        await _mount_volumes(live, spec, len(live.origin.snapshot.manifest.mounts))
        await start_all(live.channel, origin.template)
    except BadRequestError:
        raise
    except PandastackError as error:
        raise explained(error, live.console) from error
    clock.lap("programs")
    live.journal.advance(MachineState.RUNNING)
    return live


async def occupy_rehearsed(live: LiveMachine, spec: SandboxSpec, origin: Start, clock: Stopwatch) -> LiveMachine:
    """For a machine that was rehearsed with ``origin``: its guest waits with paused CPUs."""
    _record_claim(live, spec, origin)
    await live.cable.connect(spec.sandbox, spec.network)
    await live.machine.resume()
    clock.lap("resume")
    live = await _grow_disk(live, origin)
    # The channel has been used since the restore, and drained.
    await _introduce(live, spec, at_frame_boundary=True, size=origin.resized)
    live.journal.advance(MachineState.RUNNING)
    clock.lap("identity")
    return live


async def occupy_adopted(live: LiveMachine, spec: SandboxSpec, _: Start, clock: Stopwatch) -> LiveMachine:
    """For a machine left by a former engine: its guest runs, and may be in the middle of a frame."""
    await live.cable.connect(spec.sandbox, spec.network)
    await _introduce(live, spec, at_frame_boundary=False, continues=True, connected=True)
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

    The guest of a snapshot has programs of its user's. They are frozen since the capture and stay so until the claim;
    its rehearsal runs a first command beside them.
    """
    captured = bool(origin.snapshot.manifest.parent)
    live = await _load_guest(live, origin)
    spec = SandboxSpec(sandbox="", hostname="template", env=origin.template.env, frozen=captured)
    await _introduce(live, spec, at_frame_boundary=origin.snapshot.manifest.at_frame_boundary)
    if captured:
        await rehearsals.run_beside(live.channel, origin.template)
    else:
        await rehearsals.run(live.channel, origin.template)
    await live.channel.quiesce(HANDSHAKE_DEADLINE, freeze=True)  # the identity at the claim thaws its programs
    await live.machine.pause()
    live.journal.advance(MachineState.REHEARSED)
    return live


def _record_claim(live: LiveMachine, spec: SandboxSpec, origin: Start) -> None:
    live.journal.advance(
        MachineState.CLAIMED,
        template=origin.name,
        snapshot=origin.key,
        sandbox=spec.sandbox,
        hostname=spec.hostname,
        env=spec.env,
        network=spec.network,
        volumes=spec.volumes,
    )


async def _load_guest(live: LiveMachine, origin: Origin) -> LiveMachine:
    """Put the guest of ``origin`` into a blank machine. It still has the identity it was captured with."""
    own = await anyio.to_thread.run_sync(_copy_state, live, origin)
    await live.machine.load(origin.snapshot.devices)  # loading reads the guest's memory, so the pages come first
    await live.cable.set_link()
    return replace(live, origin=own)


def _copy_state(live: LiveMachine, origin: Origin) -> Origin:
    own = origins.copy_state(origin, live.origin.snapshot.directory)
    if origin.snapshot.pages.exists():
        pagemap.write_pages(live.machine.pid, own.snapshot.memory, pages.read(origin.snapshot.pages))
    return own


async def _grow_disk(live: LiveMachine, origin: Start) -> LiveMachine:
    """Record the size of the sandbox, and tell the guest of its larger disk."""
    if origin.resized is None:
        return live
    own = await anyio.to_thread.run_sync(origins.resize, live.origin, origin.resized)
    if origin.resized.disk_mb != origin.snapshot.manifest.disk_mb:
        await live.machine.resize_disk(ROOT, origin.resized.disk_mb * 1024 * 1024)
    return replace(live, origin=own)


async def _show_volumes(live: LiveMachine, origin: Origin) -> None:
    """Tell the guest of volumes in places that were blank when it was captured."""
    disks = live.origin.snapshot.disks
    for disk in disks[len(disks) - len(origin.attached) :]:
        await live.machine.resize_disk(disk.name, disk.path.stat().st_size)


async def _mount_volumes(live: LiveMachine, spec: SandboxSpec, count: int) -> None:
    """Have the guest mount its last ``count`` volumes. An error of the request's names the field in it."""
    snapshot = live.origin.snapshot
    mounts = list(enumerate(zip(snapshot.disks[1:], snapshot.manifest.mounts, strict=True)))
    asked_for = {each.place: index for index, each in enumerate(spec.volumes)}
    for place, (disk, path) in mounts[len(mounts) - count :]:
        read_only = disk.name in snapshot.manifest.read_only
        try:
            await live.channel.mount_volume(place, disk.path.stat().st_size, path, read_only=read_only)
        except BadRequestError as error:
            error.field = f"volumes[{asked_for[place]}]" if place in asked_for else "volumes"
            raise


async def _introduce(
    live: LiveMachine,
    spec: SandboxSpec,
    *,
    at_frame_boundary: bool,
    continues: bool = False,
    connected: bool = False,
    booted: bool = False,
    size: Size | None = None,
) -> None:
    """Give the guest its identity, and with ``size`` another size than it had.

    ``at_frame_boundary``: whether its end of the channel is at one. ``booted``: its kernel has made a boot id itself.
    """
    manifest = live.origin.snapshot.manifest
    if manifest.boot_id_at and not (continues or booted):
        write = [(manifest.boot_id_at, boot_id_of(spec).bytes)]
        await anyio.to_thread.run_sync(pagemap.write_pages, live.machine.pid, live.origin.snapshot.memory, write)
    identity = replace(identity_of(spec), continues=continues, connected=connected, size=size)
    await live.channel.resume(identity, at_frame_boundary=at_frame_boundary, timeout_s=HANDSHAKE_DEADLINE)


def identity_of(spec: SandboxSpec) -> Identity:
    """The guest's identity from now on. Name, machine-id and boot id are the sandbox's for as long as it exists, also
    across hibernations; nothing else in it is ever used twice.

    Its addresses are not: they are the same in every slot.
    """
    return Identity(
        hostname=spec.hostname,
        machine_id=_derive("machine-id", spec).hex(),
        entropy=secrets.token_bytes(64),
        generation=secrets.randbits(63),
        env=spec.env,
        frozen=spec.frozen,
    )


def boot_id_of(spec: SandboxSpec) -> uuid.UUID:
    """The boot id of a sandbox. It is the host that writes it: the guest's kernel has no call for it."""
    return uuid.UUID(bytes=_derive("boot-id", spec), version=4)


def _derive(purpose: str, spec: SandboxSpec) -> bytes:
    return hashlib.sha256(f"{purpose}:{spec.sandbox}".encode()).digest()[:16]
