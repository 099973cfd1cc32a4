"""Points at which tests kill the engine, so that every moment of an operation is covered."""

from __future__ import annotations

import os
import signal

_POINT = os.environ.get("PANDASTACK_CRASH_AT")


def crash_at(point: str) -> None:
    """End this process as if it were killed, if ``PANDASTACK_CRASH_AT`` named this point when it started."""
    if point == _POINT:
        os.kill(os.getpid(), signal.SIGKILL)
