"""How busy a process is, from Linux's own account of its threads (Documentation/scheduler/sched-stats.rst)."""

from __future__ import annotations

from pathlib import Path


def busy_ms(pid: int) -> float:
    """Milliseconds that the threads of a process have run, or have waited for a CPU to run on, since they began.

    Both count: on a busy host a thread with work to do may not run. Raises ``OSError`` when the process is gone.
    """
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            run, waited, *_ = (thread / "schedstat").read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        total += int(run) + int(waited)
    return total / 1e6
