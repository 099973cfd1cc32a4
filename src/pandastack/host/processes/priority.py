"""Which processes yield when the host runs short of memory or CPU.

Sources: proc(5) for ``oom_score_adj``, setpriority(2). Lowering priority needs no privileges, raising it does.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def set_oom_score(score: int, pid: int | None = None) -> bool:
    """Set how readily the kernel kills the process (default: ours) when memory runs out: −1000 never, 1000 first.

    Children inherit it. False where the kernel does not allow it: lowering it needs CAP_SYS_RESOURCE.
    """
    try:
        Path(f"/proc/{pid or 'self'}/oom_score_adj").write_text(str(score))
    except OSError:
        return False
    return True


def oom_score(pid: int) -> int:
    """The value that :func:`set_oom_score` sets."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def give_way(pid: int, steps: int) -> None:
    """Lower the CPU priority of all threads of a process to ``steps`` of nice below this process's; new threads inherit
    it. A process that is gone is not an error."""
    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + steps, 19)
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)
