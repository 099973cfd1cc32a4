"""Schedules: functions that run at the times of a cron expression."""

from pandastack.products.schedules.runner import Outcome, Runner, ScheduledRun
from pandastack.products.schedules.schedules import Schedules, open_schedules
from pandastack.products.schedules.spec import NewSchedule, SchedulePatch, checked_new, checked_patch

__all__ = [
    "NewSchedule",
    "Outcome",
    "Runner",
    "SchedulePatch",
    "ScheduledRun",
    "Schedules",
    "checked_new",
    "checked_patch",
    "open_schedules",
]
