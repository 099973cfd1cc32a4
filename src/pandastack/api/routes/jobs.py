"""Jobs: one fresh machine each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import APIRouter, Request, Response

from pandastack.api.idempotency import PARAMETER, idempotent, make_once
from pandastack.api.models.runners import CreateJob, Job, Jobs, RetryJob
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, flag, json_response, plane_of, read_json
from pandastack.api.routes.job_output import events
from pandastack.api.routes.runners import runners_of
from pandastack.api.streams import EVENTS, EventStream, FileStream, StreamEvent
from pandastack.errors import BadRequestError
from pandastack.products import runners as product
from pandastack.services.records.listing import MOST_PER_PAGE
from pandastack.store.runners import JobRecord

router = APIRouter(prefix="/v1/jobs", tags=["runners"])

_PIECE = 1 << 20
_LISTED = 100
_TAR = "application/x-tar"


@router.post(
    "",
    status_code=202,
    response_class=Response,
    responses={202: {"model": Job}},
    openapi_extra=takes(CreateJob, PARAMETER),
)
@idempotent(resumable=True)
async def create_job(request: Request) -> Response:
    """Add a job to the queue of a pool."""
    body = await read_json(request, CreateJob)
    jobs, caller = runners_of(request).jobs, caller_of(request)
    where, wanted, given = body.where(), body.wanted(), body.given()

    async def find(job_id: str) -> JobRecord:
        return jobs.get(caller, job_id)

    async def make(job_id: str | None) -> JobRecord:
        return await jobs.create(caller, where, wanted, given, job_id)

    return json_response(Job.of(await make_once(request, find, make)), 202)


@router.get("", response_class=Response, responses={200: {"model": Jobs}})
async def list_jobs(request: Request, pool: str | None = None, limit: int = _LISTED) -> Response:
    """The newest of the workspace's jobs that are kept, 100 or `limit`; those of one pool if it is named."""
    if not 1 <= limit <= MOST_PER_PAGE:
        raise BadRequestError(f"limit: must be from 1 to {MOST_PER_PAGE}", field="limit")
    found = runners_of(request).jobs.list(caller_of(request), pool)
    return json_response(Jobs(jobs=[Job.of(each) for each in found[:limit]]))


@router.get("/{job_id}", response_class=Response, responses={200: {"model": Job}})
async def get_job(request: Request, job_id: str) -> Response:
    """One job."""
    return json_response(Job.of(runners_of(request).jobs.get(caller_of(request), job_id)))


@router.post("/{job_id}/cancel", response_class=Response, responses={200: {"model": Job}})
async def cancel_job(request: Request, job_id: str) -> Response:
    """End a job that has not ended. Its machine is gone when this answers."""
    return json_response(Job.of(await runners_of(request).jobs.cancel(caller_of(request), job_id)))


@router.post(
    "/{job_id}/retry",
    status_code=202,
    response_class=Response,
    responses={202: {"model": Job}},
    openapi_extra=takes(RetryJob, PARAMETER),
)
@idempotent(resumable=True)
async def retry_job(request: Request, job_id: str) -> Response:
    """Do what a job that has ended did once more, in another job. It begins in the pool's prepared machine, or with
    the step `from_step` in the machine as it was before that."""
    body = await read_json(request, RetryJob)
    jobs, caller = runners_of(request).jobs, caller_of(request)

    async def find(retry_id: str) -> JobRecord:
        return jobs.get(caller, retry_id)

    async def make(retry_id: str | None) -> JobRecord:
        return await jobs.retry(caller, job_id, body.from_step, retry_id)

    return json_response(Job.of(await make_once(request, find, make)), 202)


@router.delete("/{job_id}", status_code=204, response_class=Response)
async def delete_job(request: Request, job_id: str) -> Response:
    """Delete a job with its log and artifacts; one that has not ended is cancelled first."""
    await runners_of(request).jobs.delete(caller_of(request), job_id)
    return Response(status_code=204)


@router.get("/{job_id}/logs", response_class=Response, responses={200: {"content": EVENTS}})
async def read_job_log(request: Request, job_id: str, follow: str | None = None) -> Response:
    """What the job printed: events `stdout` and `stderr` with `text`; after its end `ended` with the job."""
    jobs, caller = runners_of(request).jobs, caller_of(request)
    jobs.get(caller, job_id)

    @asynccontextmanager
    async def source() -> AsyncIterator[AsyncIterator[StreamEvent]]:
        yield _events()

    async def _events() -> AsyncIterator[StreamEvent]:
        async for event in events(jobs.output(caller, job_id, follow=flag(follow))):
            yield event
        job = jobs.get(caller, job_id)  # one that was deleted meanwhile is a last event `error`
        if job.state in product.FINAL:
            yield "ended", Job.of(job).model_dump()

    return EventStream(source, plane_of(request).settings.keep_alive_seconds)


@router.get("/{job_id}/artifacts", response_class=Response, responses={200: {"content": {_TAR: {}}}})
async def read_job_artifacts(request: Request, job_id: str) -> Response:
    """The artifacts as a tar archive that is safe to unpack."""
    path = runners_of(request).jobs.artifacts(caller_of(request), job_id)

    @asynccontextmanager
    async def source() -> AsyncIterator[tuple[int | None, AsyncIterator[bytes]]]:
        async with await anyio.open_file(path, "rb") as file:

            async def pieces() -> AsyncIterator[bytes]:
                while piece := await file.read(_PIECE):
                    yield piece

            yield path.stat().st_size, pieces()

    return FileStream(source, media_type=_TAR)
