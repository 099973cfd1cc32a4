"""The arguments of the tools for schedules."""

from __future__ import annotations

from pydantic import Field

from pandastack.mcp.arguments import Arguments
from pandastack.sdk._schedules import create_schedule, one_schedule
from pandastack.sdk.wire.call import Call


class ListSchedules(Arguments):
    def call(self) -> Call:
        return Call("GET", "/schedules")


class CreateSchedule(Arguments):
    name: str = Field(description="The schedule's name", min_length=1)
    function_id: str = Field(description="The id of the function that runs", min_length=1)
    cron: str = Field(description="Minute, hour, day, month, weekday, such as `0 9 * * 1-5`", min_length=1)
    timezone: str | None = Field(None, description="Such as `Europe/Berlin`; by default UTC")

    def call(self) -> Call:
        return create_schedule(name=self.name, function_id=self.function_id, cron=self.cron, timezone=self.timezone)


class OneSchedule(Arguments):
    schedule_id: str = Field(description="The schedule's id", min_length=1)


class PauseSchedule(OneSchedule):
    paused: bool = Field(True, description="False: have it run again, from its next time on")

    def call(self) -> Call:
        return one_schedule("PATCH", self.schedule_id, paused=self.paused)


class TriggerSchedule(OneSchedule):
    def call(self) -> Call:
        return one_schedule("POST", self.schedule_id, "/trigger")


class ScheduleRuns(OneSchedule):
    def call(self) -> Call:
        return one_schedule("GET", self.schedule_id, "/runs")


class DeleteSchedule(OneSchedule):
    def call(self) -> Call:
        return one_schedule("DELETE", self.schedule_id)
