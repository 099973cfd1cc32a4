"""An empty network namespace, for VMMs whose guest has no network.

It is made once per host and shared: it contains nothing through which two machines could communicate.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import structlog

from pandastack.host import facts
from pandastack.host.processes.run import CommandError, run

log = structlog.get_logger(__name__)

NAME = "pandastack-none"


async def empty_namespace() -> Path | None:
    """The path of the namespace, or ``None`` when this process may not make one."""
    path = Path("/run/netns") / NAME
    if not facts.is_root():
        return None
    if not path.exists():
        try:
            await run(["ip", "netns", "add", NAME], timeout=10)
        except CommandError as error:
            if not path.exists():  # another engine may have made it first
                log.warning("network.namespace_missing", reason=str(error))
                return None
    return path


def namespaces_work() -> bool:
    """Whether this process may make a network namespace, determined by making one that ends at once."""
    try:
        return subprocess.run(["unshare", "--net", "true"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
