"""The environment of a VMM's process: none of the server's variables, which may hold keys and passwords.

A guest that has taken over its VMM can read this memory.
"""

from __future__ import annotations

import os
from pathlib import Path

from pandastack.vmm.plan import MachinePlan
from pandastack.vmm.qemu import preload


def vmm_environment(plan: MachinePlan, library: Path | None) -> dict[str, str]:
    """Every variable that the VMM gets. The search path finds ``nsenter``; ``library`` is :func:`preload.library`."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    if library is None or plan.memory_shared:
        return environment
    return {**environment, "LD_PRELOAD": str(library), preload.VARIABLE: str(plan.memory)}
