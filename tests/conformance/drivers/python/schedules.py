"""Schedules that there are not. Those that there are run functions: see their scenario."""

from __future__ import annotations

import seen

NONE = "00000000-0000-4000-8000-000000000000"


def life(client) -> dict[str, object]:
    return {
        "listed": client.schedules.list(),
        "unknown": seen.error(lambda: client.schedules.create("nightly", NONE, "0 3 * * *")),
        "cron": seen.error(lambda: client.schedules.create("nightly", NONE, "never")),
        "got": seen.error(lambda: client.schedules.get(NONE)),
        "updated": seen.error(lambda: client.schedules.update(NONE, paused=True)),
        "triggered": seen.error(lambda: client.schedules.trigger(NONE)),
        "runs": seen.error(lambda: client.schedules.runs(NONE)),
        "deleted": seen.error(lambda: client.schedules.delete(NONE)),
    }
