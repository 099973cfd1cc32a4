"""What a slot costs: taken from a pool that has one ready, and made when it has none.

The pool is one of the bench's own, beside the server's, with the same code and on the same host.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from pandastack.model.network import FORBIDDEN
from pandastack.network.pool import SlotPool, open_slot_pool
from pandastack.network.subnets import Subnets

READY = 8
"""Slots that the bench's pool keeps ready."""

TAG = hashlib.sha256(b"bench").hexdigest()[:8]
"""Marks its slots among those of servers."""

FILL_SECONDS = 60.0


@dataclass
class Slots:
    """Milliseconds until a slot is there, and slots a second."""

    ready: list[float] = field(default_factory=list)
    made: list[float] = field(default_factory=list)
    made_per_s: list[float] = field(default_factory=list)


async def measure_slots(subnets: Subnets, locks: Path, guest_mac: str, mtu: int, n: int) -> Slots:
    """``n`` slots that were ready, one after another, and then as many in a row as a pool cannot have ready."""
    samples = Slots()
    made = open_slot_pool(TAG, subnets, FORBIDDEN, guest_mac=guest_mac, mtu=mtu, locks=locks, ready=READY)
    async with made as pool:
        for _ in range(n):
            await _filled(pool)
            samples.ready.append(await _take(pool))
        await _filled(pool)
        await _drain(pool, samples)
    return samples


async def _take(pool: SlotPool) -> float:
    """Milliseconds until there was a slot; it is given back at once."""
    began = time.perf_counter()
    async with pool.slot():
        return (time.perf_counter() - began) * 1000


async def _drain(pool: SlotPool, samples: Slots) -> None:
    """Take what is ready and then as much again and more, and hold it all."""
    async with AsyncExitStack() as held:
        for _ in range(READY):
            await held.enter_async_context(pool.slot())
        began = time.perf_counter()
        for _ in range(2 * READY):
            asked = time.perf_counter()
            await held.enter_async_context(pool.slot())
            samples.made.append((time.perf_counter() - asked) * 1000)
        samples.made_per_s.append(2 * READY / (time.perf_counter() - began))


async def _filled(pool: SlotPool) -> None:
    with anyio.fail_after(FILL_SECONDS):
        while pool.ready < READY:  # noqa: ASYNC110
            await anyio.sleep(0.005)  # the pool has no event for it
