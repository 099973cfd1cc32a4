"""The rate of this CPU's time-stamp counter.

An emulated guest reads the host's counter. By itself, its kernel measures the rate against an emulated timer, which
sometimes fails on a busy host, and a kernel that does not know the rate waits for ever for its first tick. So the rate
is measured here, where the clock is good, and passed to the guest.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Callable
from functools import cache

from pandastack.host import facts

SECONDS = 0.2
"""Seconds to measure: long enough that the error of two clock reads is below one part in a million."""

# rdtsc; shl rdx, 32; or rax, rdx; ret (Intel SDM volume 2): the counter as the return value of a C function.
_READ_COUNTER = bytes.fromhex("0f31 48c1e220 4809d0 c3")


@cache
def tsc_khz() -> int | None:
    """The counter's rate in kHz; ``None`` without such a counter, or where it cannot be read this way."""
    if facts.architecture() != "x86_64":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # the host forbids memory that is both writable and executable
        return None
    page.write(_READ_COUNTER)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
    first_ticks, first_ns = _sample(read)
    time.sleep(SECONDS)
    last_ticks, last_ns = _sample(read)
    return round((last_ticks - first_ticks) * 1_000_000 / (last_ns - first_ns))


def _sample(read: Callable[[], int]) -> tuple[int, int]:
    """Counter and clock at one moment: of several tries, the one with the least time between the two reads."""
    tries = []
    for _ in range(50):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        ticks = read()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        tries.append((after - before, ticks, (before + after) // 2))
    _, ticks, moment = min(tries)
    return ticks, moment
