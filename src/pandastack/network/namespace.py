"""A network namespace with nothing in it, for VMMs whose guest has no network.

It is made once per host and shared: there is nothing in it that two machines could meet over.
"""

from __future__ import annotations

from pathlib import Path

from pandastack.host import facts
from pandastack.host.processes.run import CommandError, run

NAME = "pandastack-none"


async def empty_namespace() -> Path | None:
    """The path of the namespace, or ``None`` where this process may not make one."""
    path = Path("/run/netns") / NAME
    if not facts.is_root():
        return None
    if not path.exists():
        try:
            await run(["ip", "netns", "add", NAME], timeout=10)
        except CommandError:
            if not path.exists():  # another engine may have been quicker
                return None
    return path
