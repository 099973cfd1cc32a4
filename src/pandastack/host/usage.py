"""The resource usage of a process, read from /proc (proc(5))."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """``host_cpu_percent`` is the mean over the process's life, 100 for one whole core; sizes in bytes."""

    pid: int
    uptime_seconds: float
    host_cpu_percent: float
    host_rss_bytes: int
    host_vsz_bytes: int
    threads: int


def process_usage(pid: int) -> Usage | None:
    """The usage of a living process; ``None`` when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    uptime = max(time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICKS, 0.01)
    cpu_seconds = (int(fields[11]) + int(fields[12])) / _TICKS
    return Usage(
        pid=pid,
        uptime_seconds=round(uptime, 2),
        host_cpu_percent=round(100 * cpu_seconds / uptime, 2),
        host_rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        host_vsz_bytes=int(fields[20]),
        threads=int(fields[17]),
    )


def private_bytes(pid: int) -> int:
    """Memory that would become free if the process ended: its private pages (``Private_*`` in smaps_rollup)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Private_"))
