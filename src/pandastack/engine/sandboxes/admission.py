"""Whether the host has room for one more machine: pure decisions about figures, and the figures.

Machines are *promised* memory and disk that most of them never use, so more is promised than exists, by a factor that
the operator sets. When the measured memory or disk runs short, creates are refused earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pandastack.disks.pool import RESERVE, Pool
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.machines.warm_pool import WarmPool
from pandastack.engine.origins.origin import Start
from pandastack.engine.origins.volumes import VolumeStore
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.sandboxes.sizes import HostSize
from pandastack.engine.settings import Settings
from pandastack.errors import CapacityError, StorageFullError
from pandastack.host import facts

MEMORY_RESERVE = 512 * 1024**2
"""Bytes of the host's memory that must stay free when a sandbox starts."""

MACHINE_BYTES = 32 * 1024**2
"""Bytes of memory that a sandbox takes at its start, reserved before it is made."""

STALLED_MAXIMUM = 10.0
"""Above this percentage of the last ten seconds in which the whole host waited for memory, no sandbox starts."""

AMPLE = 0.25
"""With more than this part of its memory available, a host is not short of memory. What waits for memory there is a
machine at its own limit, which on an otherwise idle host counts as if everything waited."""

_MIB = 1024**2


@dataclass(frozen=True)
class Room:
    """What machines may grow to together, in MiB."""

    memory_mb: int = 0
    disk_mb: int = 0

    def __add__(self, other: Room) -> Room:
        return Room(self.memory_mb + other.memory_mb, self.disk_mb + other.disk_mb)

    def fits(self, limit: Room) -> bool:
        return self.memory_mb <= limit.memory_mb and self.disk_mb <= limit.disk_mb


@dataclass(frozen=True)
class Measured:
    """Free resources of the host, and all its memory. ``stalled`` is in percent; ``None`` where the kernel does not
    measure it."""

    memory_bytes: int
    total_memory_bytes: int
    stalled: float | None
    storage_bytes: int

    @property
    def waits_for_memory(self) -> bool:
        """Whether work on the host waits because memory is short, and not because of a limit of its own."""
        ample = self.memory_bytes > self.total_memory_bytes * AMPLE
        return self.stalled is not None and self.stalled > STALLED_MAXIMUM and not ample


def room_of(*origins: Start) -> Room:
    """How large machines restored from ``origins`` may grow."""
    return Room(sum(each.size.memory_mb for each in origins), sum(each.size.disk_mb for each in origins))


def limit_of(settings: Settings, memory_bytes: int, storage_bytes: int) -> Room:
    """How much may be promised on a host with this much memory and a pool of this size."""
    return Room(
        round(memory_bytes / _MIB * settings.overcommit),
        round(storage_bytes / _MIB * settings.disk_overcommit),
    )


def find_refusal(asked: Room, promised: Room, limit: Room) -> CapacityError | None:
    """Why ``asked`` cannot be promised too; ``None`` if it can."""
    total = promised + asked
    if total.memory_mb > limit.memory_mb:
        return _refusal("memory", "PANDASTACK_OVERCOMMIT", asked.memory_mb, promised.memory_mb, limit.memory_mb)
    if total.disk_mb > limit.disk_mb:
        # Not StorageFullError: evicting snapshots would not help.
        return _refusal("storage", "PANDASTACK_DISK_OVERCOMMIT", asked.disk_mb, promised.disk_mb, limit.disk_mb)
    return None


def _refusal(what: str, setting: str, asked: int, promised: int, limit: int) -> CapacityError:
    return CapacityError(
        f"insufficient host {what} for sandbox",
        status_code=507,
        hint=f"{asked} MiB are asked for, and {promised} of {limit} MiB are promised to others: delete or hibernate "
        f"sandboxes, or raise {setting}",
        detail={"asked_mb": asked, "promised_mb": promised, "limit_mb": limit},
    )


def find_shortage(measured: Measured, starting: int) -> CapacityError | None:
    """Why ``starting`` machines cannot start on a host with this measurement; ``None`` if they can."""
    return find_memory_shortage(measured, starting) or find_storage_shortage(measured.storage_bytes)


def find_memory_shortage(measured: Measured, starting: int) -> CapacityError | None:
    """The same without a look at the storage pool."""
    if measured.memory_bytes - starting * MACHINE_BYTES < MEMORY_RESERVE:
        return _short_of_memory(f"{measured.memory_bytes // _MIB} MiB of memory are left")
    if measured.waits_for_memory:
        return _short_of_memory(f"everything on the host waits for memory {measured.stalled:g} % of the time")
    return None


def find_storage_shortage(storage_bytes: int) -> StorageFullError | None:
    """Why nothing may be written to a pool with this many bytes left; ``None`` if writing is allowed."""
    if storage_bytes >= RESERVE:
        return None
    return StorageFullError(
        "insufficient host storage for sandbox",
        hint=f"{storage_bytes // _MIB} MiB of the storage pool are left: delete sandboxes and snapshots that are no "
        "longer needed, or add storage to the host",
    )


def _short_of_memory(measured: str) -> CapacityError:
    return CapacityError(
        "insufficient host memory for sandbox",
        status_code=507,
        hint=f"{measured}: delete or hibernate sandboxes that are no longer needed, or add memory to the host",
    )


def find_volume_refusal(
    asked_mb: int, promised_mb: int, pool: tuple[int, int], factor: float
) -> StorageFullError | None:
    """Why a volume cannot have ``asked_mb`` MiB beside what is promised; ``None`` if it can.

    ``pool`` is the pool's size and what is free in it, in bytes; ``factor``, how many times it may be promised.
    """
    total, free = pool
    full = find_storage_shortage(free)
    if full is None and promised_mb + asked_mb <= total / _MIB * factor:
        return None
    hint = "delete volumes, sandboxes or snapshots that are no longer needed, or add storage to the host"
    if full is None:
        hint = f"{hint}, or raise PANDASTACK_DISK_OVERCOMMIT"
    return StorageFullError(
        "insufficient host storage for volume",
        hint=hint,
        detail={
            "reason": "provisioned" if full is None else "free_space",
            "provisioned_bytes": promised_mb * _MIB,
            "fs_size_bytes": total,
            "fs_free_bytes": free,
            "oversub_factor": factor,
            "free_reserve_bytes": RESERVE,
        },
    )


class Admission:
    """Refuses machines that the host has no room for, before any part of them exists.

    Room is promised to volumes, to sandboxes with a machine, running or paused, and to machines that are being made or
    build, up to the size that they may grow to. Machines in the warm pool get what is left, and give way.
    """

    def __init__(
        self, registry: Registry, warm_pool: WarmPool, pool: Pool, volumes: VolumeStore, settings: Settings
    ) -> None:
        self._registry = registry
        self._warm_pool = warm_pool
        self._pool = pool
        self._volumes = volumes
        self._disk_factor = settings.disk_overcommit
        self._limit = limit_of(settings, facts.memory_bytes(), pool.total_bytes())
        self._starting: list[Room] = []
        self._building: list[Room] = []

    def check(self, *origins: Start, sandbox_id: str = "") -> None:
        """Raise :class:`CapacityError` unless there is room for machines that are restored from ``origins``.

        A machine that the sandbox ``sandbox_id`` already has does not count: the new one replaces it.
        """
        if not origins:
            return
        refusal = find_refusal(room_of(*origins), self._promised(sandbox_id), self._limit)
        refusal = refusal or find_shortage(self._measure(), len(self._starting) + len(origins))
        if refusal:
            raise refusal

    def check_storage(self) -> None:
        """Raise :class:`StorageFullError` when the pool is nearly full."""
        shortage = find_storage_shortage(self._pool.free_bytes())
        if shortage:
            raise shortage

    def check_volumes(self, asked_mb: int) -> None:
        """Raise :class:`StorageFullError` unless volumes may have ``asked_mb`` MiB more."""
        pool = self._pool.total_bytes(), self._pool.free_bytes()
        if refusal := find_volume_refusal(asked_mb, self._promised().disk_mb, pool, self._disk_factor):
            raise refusal

    def host_size(self) -> HostSize:
        """What the host has in all, whether used or not; of storage, what may be promised."""
        return HostSize(facts.cores(), facts.memory_bytes() // _MIB, self._limit.disk_mb)

    @contextmanager
    def admitted(self, *origins: Start, sandbox_id: str = "") -> Iterator[None]:
        """:meth:`check`, and count the machines as being made inside the block."""
        self.check(*origins, sandbox_id=sandbox_id)
        room = room_of(*origins)
        self._starting.append(room)
        try:
            yield
        finally:
            self._starting.remove(room)
            self._warm_pool.shrink_until(self.has_room)

    @contextmanager
    def reserved(self, memory_mb: int) -> Iterator[None]:
        """Count the memory of a machine that builds as promised inside the block. Raises :class:`CapacityError`."""
        room = Room(memory_mb)
        refusal = find_refusal(room, self._promised(), self._limit)
        if refusal := refusal or find_memory_shortage(self._measure(), len(self._starting) + 1):
            raise refusal
        self._building.append(room)
        self._warm_pool.shrink_until(self.has_room)
        try:
            yield
        finally:
            self._building.remove(room)

    def has_room(self, *templates: Start) -> bool:
        """Whether each of ``templates`` can have a waiting machine in addition to those that already wait."""
        waiting = [each.template for kind in self._warm_pool.waiting() for each in kind]
        return (self._promised() + room_of(*waiting, *templates)).fits(self._limit)

    def _promised(self, replaced: str = "") -> Room:
        live = [each for each in self._registry.list() if isinstance(each, Sandbox) and not each.failure]
        promised = Room(0, self._volumes.total_mb())
        others = room_of(*(each.origin for each in live if each.id != replaced))
        return sum((*self._starting, *self._building, promised), others)

    def _measure(self) -> Measured:
        return Measured(
            facts.available_memory_bytes(),
            facts.memory_bytes(),
            facts.memory_stalled_percent(),
            self._pool.free_bytes(),
        )
