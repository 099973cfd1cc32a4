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
from pandastack.engine.origins.origin import Origin
from pandastack.engine.sandboxes.registry import Registry
from pandastack.engine.settings import Settings
from pandastack.errors import CapacityError, StorageFullError
from pandastack.host import facts

MEMORY_RESERVE = 512 * 1024**2
"""Bytes of the host's memory that must stay free when a sandbox starts."""

MACHINE_BYTES = 32 * 1024**2
"""Bytes of memory that a sandbox takes at its start, reserved before it is made."""

STALLED_MAXIMUM = 10.0
"""Above this percentage of the last ten seconds in which the whole host waited for memory, no sandbox starts."""

_MIB = 1024**2


@dataclass(frozen=True)
class Size:
    """How large machines may grow, in MiB."""

    memory_mb: int = 0
    disk_mb: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.memory_mb + other.memory_mb, self.disk_mb + other.disk_mb)

    def fits(self, limit: Size) -> bool:
        return self.memory_mb <= limit.memory_mb and self.disk_mb <= limit.disk_mb


@dataclass(frozen=True)
class Measured:
    """Free resources of the host. ``stalled`` is in percent; ``None`` where the kernel does not measure it."""

    memory_bytes: int
    stalled: float | None
    storage_bytes: int


def size_of(*origins: Origin) -> Size:
    """How large machines restored from ``origins`` may grow."""
    manifests = [origin.snapshot.manifest for origin in origins]
    return Size(sum(each.memory_mb for each in manifests), sum(each.disk_mb for each in manifests))


def limit_of(settings: Settings, memory_bytes: int, storage_bytes: int) -> Size:
    """How much may be promised on a host with this much memory and a pool of this size."""
    return Size(
        int(memory_bytes / _MIB * settings.overcommit),
        int(storage_bytes / _MIB * settings.disk_overcommit),
    )


def find_refusal(asked: Size, promised: Size, limit: Size) -> CapacityError | None:
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
    if measured.memory_bytes - starting * MACHINE_BYTES < MEMORY_RESERVE:
        return _short_of_memory(f"{measured.memory_bytes // _MIB} MiB of memory are left")
    if measured.stalled is not None and measured.stalled > STALLED_MAXIMUM:
        return _short_of_memory(f"everything on the host waits for memory {measured.stalled:g} % of the time")
    return find_storage_shortage(measured.storage_bytes)


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


class Admission:
    """Refuses machines that the host has no room for, before any part of them exists.

    Room is promised to sandboxes with a machine, running or paused, and to machines that are being made, up to the size
    that they may grow to. Machines in the warm pool get what is left, and give way.
    """

    def __init__(self, registry: Registry, warm_pool: WarmPool, pool: Pool, settings: Settings) -> None:
        self._registry = registry
        self._warm_pool = warm_pool
        self._pool = pool
        self._limit = limit_of(settings, facts.memory_bytes(), pool.total_bytes())
        self._starting: list[Size] = []

    def check(self, *origins: Origin, sandbox_id: str = "") -> None:
        """Raise :class:`CapacityError` unless there is room for machines that are restored from ``origins``.

        A machine that the sandbox ``sandbox_id`` already has does not count: the new one replaces it.
        """
        if not origins:
            return
        refusal = find_refusal(size_of(*origins), self._promised(sandbox_id), self._limit)
        refusal = refusal or find_shortage(self._measure(), len(self._starting) + len(origins))
        if refusal:
            raise refusal

    def check_storage(self) -> None:
        """Raise :class:`StorageFullError` when the pool is nearly full."""
        shortage = find_storage_shortage(self._pool.free_bytes())
        if shortage:
            raise shortage

    @contextmanager
    def admitted(self, *origins: Origin, sandbox_id: str = "") -> Iterator[None]:
        """:meth:`check`, and count the machines as being made inside the block."""
        self.check(*origins, sandbox_id=sandbox_id)
        size = size_of(*origins)
        self._starting.append(size)
        try:
            yield
        finally:
            self._starting.remove(size)
            self._warm_pool.shrink_until(self.has_room)

    def has_room(self, *templates: Origin) -> bool:
        """Whether each of ``templates`` can have a waiting machine in addition to those that already wait."""
        waiting = [each.template for kind in self._warm_pool.waiting() for each in kind]
        return (self._promised() + size_of(*waiting, *templates)).fits(self._limit)

    def _promised(self, replaced: str = "") -> Size:
        live = [each for each in self._registry.list() if isinstance(each, Sandbox) and not each.failure]
        return sum(self._starting, size_of(*(each.origin for each in live if each.id != replaced)))

    def _measure(self) -> Measured:
        return Measured(facts.available_memory_bytes(), facts.memory_stalled_percent(), self._pool.free_bytes())
