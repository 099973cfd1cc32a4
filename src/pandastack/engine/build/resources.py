"""What a machine that builds may take of its host, so that running sandboxes keep theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace

import anyio

from pandastack.engine.machines.allocation import VMM_CPUS, VMM_MB, VMM_THREADS, group_of
from pandastack.engine.machines.plan import BootSpec
from pandastack.errors import CapacityError
from pandastack.host.cgroups import Groups, Limits

SHARE = 0.25
"""The CPUs that such a machine counts as where there are too few for all: what sandboxes leave is its own."""

ROOM_SECONDS = 600.0
"""How long a build waits for memory that sandboxes have."""

_LOOK_SECONDS = 1.0
"""Memory becomes free for many reasons, and none of them is announced."""

Reserve = Callable[[int], AbstractContextManager[None]]
"""Counts so many MiB as promised for the length of a block. Raises :class:`CapacityError`."""


User = Callable[[], AbstractContextManager[int]]
"""A host user for the length of a block."""


def _unlimited(memory_mb: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class MachineResources:
    """``groups`` is ``None`` where there are no control groups; ``reserve`` counts the memory of machines that build
    with that of sandboxes; ``user`` lends a host user, so that builds of several authors have none in common."""

    groups: Groups | None = None
    reserve: Reserve = _unlimited
    user: User | None = None

    @asynccontextmanager
    async def of(self, spec: BootSpec, tell: Callable[[str], None]) -> AsyncIterator[BootSpec]:
        """``spec`` with a user and in a control group of its own, once there is room for its memory. ``tell`` hears why
        it waits."""
        with ExitStack() as stack:
            await self._make_room(stack, spec.memory_mb, tell)
            if spec.confinement is None:
                yield spec
                return
            confined = spec.confinement
            if self.user is not None:
                uid = stack.enter_context(self.user())
                confined = replace(confined, uid=uid, gid=uid)
            async with group_of(self.groups, spec.name, limits_of(spec)) as directories:
                yield replace(spec, confinement=replace(confined, cgroups=directories))

    async def _make_room(self, stack: ExitStack, memory_mb: int, tell: Callable[[str], None]) -> None:
        until, told = anyio.current_time() + ROOM_SECONDS, False
        while True:
            try:
                stack.enter_context(self.reserve(memory_mb))
                return
            except CapacityError as error:
                if anyio.current_time() > until:
                    message = f"a build machine needs {memory_mb} MiB of memory, and there was no room for it"
                    raise CapacityError(message, status_code=507, hint=error.hint) from error
                if not told:
                    tell(f"waiting for {memory_mb} MiB of memory: {error.hint}")
                    told = True
            await anyio.sleep(_LOOK_SECONDS)


UNLIMITED = MachineResources()
"""For builds in a process of their own, beside which no server runs."""


def limits_of(spec: BootSpec) -> Limits:
    """What the VMM of a machine that builds may take."""
    return Limits((spec.memory_mb + VMM_MB) * 1024 * 1024, spec.cpus + VMM_CPUS, VMM_THREADS, SHARE)
