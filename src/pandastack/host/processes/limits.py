"""How many files a process may have open at once: getrlimit(2), prlimit(1)."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit to the hard one, which needs no privilege. Returns the limit that applies now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def limiting_descriptors(most: int) -> list[str]:
    """A prefix for a command that limits it, irrevocably, to ``most`` open files (prlimit(1)).

    The limit is set before it starts, because limiting another user's process takes a capability that containers often
    lack.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    return ["prlimit", f"--nofile={allowed}:{allowed}", "--"]
