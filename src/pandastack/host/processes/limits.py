"""How many files a process may have open at once: getrlimit(2), prlimit(2)."""

from __future__ import annotations

import resource
from contextlib import suppress


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit to the hard one, which needs no privilege. Returns the limit that applies now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def limit_descriptors(pid: int, most: int) -> None:
    """Let a process open ``most`` files at once, for good. A process that is gone is no error."""
    _, hard = resource.prlimit(0, resource.RLIMIT_NOFILE)
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(most, hard), min(most, hard)))
