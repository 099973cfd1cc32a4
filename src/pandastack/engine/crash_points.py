"""Points at which tests have the engine killed, to meet every moment of an operation."""

from __future__ import annotations

import os
import signal


def crash_at(point: str) -> None:
    """Die like a process that is killed, if that was asked for: how tests meet every moment of a life."""
    if os.environ.get("PANDASTACK_CRASH_AT") == point:
        os.kill(os.getpid(), signal.SIGKILL)
