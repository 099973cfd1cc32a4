"""Schedules of the workspace."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent, make_once
from pandastack.api.models.schedules import CreateSchedule, Schedule, ScheduleRun, UpdateSchedule
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, json_response, read_json
from pandastack.products import schedules as product
from pandastack.store.schedules import ScheduleRecord

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])


def _schedules(request: Request) -> product.Schedules:
    schedules: product.Schedules = request.app.state.schedules
    return schedules


async def _answer(request: Request, record: ScheduleRecord) -> Response:
    return json_response(Schedule.of(record, await _schedules(request).next_runs(record)))


@router.post(
    "", response_class=Response, responses={200: {"model": Schedule}}, openapi_extra=takes(CreateSchedule, PARAMETER)
)
@idempotent(resumable=True)
async def create_schedule(request: Request) -> Response:
    """Have a function run at the times of a cron expression."""
    wanted = (await read_json(request, CreateSchedule)).wanted()
    schedules, caller = _schedules(request), caller_of(request)

    async def find(schedule_id: str) -> ScheduleRecord:
        return schedules.get(caller, schedule_id)

    async def make(schedule_id: str | None) -> ScheduleRecord:
        return await schedules.create(caller, replace(wanted, id=schedule_id))

    return await _answer(request, await make_once(request, find, make))


@router.get("", response_class=Response, responses={200: {"model": list[Schedule]}})
async def list_schedules(request: Request) -> Response:
    """The workspace's schedules, newest first."""
    return json_response([Schedule.of(each) for each in _schedules(request).list(caller_of(request))])


@router.get("/{schedule_id}", response_class=Response, responses={200: {"model": Schedule}})
async def get_schedule(request: Request, schedule_id: str) -> Response:
    """One schedule, with its next times."""
    return await _answer(request, _schedules(request).get(caller_of(request), schedule_id))


@router.patch(
    "/{schedule_id}",
    response_class=Response,
    responses={200: {"model": Schedule}},
    openapi_extra=takes(UpdateSchedule),
)
async def update_schedule(request: Request, schedule_id: str) -> Response:
    """Change, pause or resume a schedule. A new expression or zone, and the end of a pause, count from now."""
    patch = (await read_json(request, UpdateSchedule)).wanted()
    return await _answer(request, await _schedules(request).update(caller_of(request), schedule_id, patch))


@router.delete("/{schedule_id}", status_code=204, response_class=Response)
async def delete_schedule(request: Request, schedule_id: str) -> Response:
    """Delete a schedule. A run that has begun ends by itself."""
    await _schedules(request).delete(caller_of(request), schedule_id)
    return Response(status_code=204)


@router.post("/{schedule_id}/trigger", response_class=Response, responses={200: {"model": ScheduleRun}})
async def trigger_schedule(request: Request, schedule_id: str) -> Response:
    """Begin a run now, beside others and also while the schedule is paused."""
    return json_response(ScheduleRun.of(await _schedules(request).trigger(caller_of(request), schedule_id)))


@router.get("/{schedule_id}/runs", response_class=Response, responses={200: {"model": list[ScheduleRun]}})
async def list_schedule_runs(request: Request, schedule_id: str) -> Response:
    """What became of the last 50 times, the latest first."""
    runs = await _schedules(request).runs(caller_of(request), schedule_id)
    return json_response([ScheduleRun.of(each) for each in runs])
