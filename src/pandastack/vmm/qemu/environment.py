"""The environment of a VMM's process: none of the server's, whose variables may hold keys and passwords.

A guest that has taken over its VMM reads this memory.
"""

from __future__ import annotations

import os


def vmm_environment() -> dict[str, str]:
    """Every variable that the VMM gets. The search path finds ``nsenter``."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
