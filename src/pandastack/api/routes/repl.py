"""Code in sandboxes: one piece at a time, or cells in sessions."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from pandastack.api.buffered import buffered_response, outcome_response
from pandastack.api.idempotency import PARAMETER, idempotent
from pandastack.api.models.code import (
    CreateReplSession,
    Execution,
    Interrupted,
    ReplCode,
    ReplOutcome,
    ReplSession,
    RunCell,
    Variables,
)
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, json_response, plane_of, read_json
from pandastack.services.code.sessions import ONE_SHOT

router = APIRouter(prefix="/v1", tags=["repl"])

_ONE = "/sandboxes/{sandbox_id}/repl"
_SESSIONS = f"{_ONE}/sessions"
_SESSION = f"{_SESSIONS}/{{session_id}}"


@router.get("/repl/languages", response_class=Response, responses={200: {"model": list[str]}})
async def list_languages(request: Request) -> Response:
    """The languages that `POST …/repl` knows; a sandbox runs those that its template contains."""
    return json_response(list(ONE_SHOT))


@router.post(
    _ONE,
    response_class=Response,
    responses={200: {"model": ReplOutcome}},
    openapi_extra=takes(ReplCode),
)
async def run_code(request: Request, sandbox_id: str) -> Response:
    """Run a piece of code in a fresh interpreter; no state remains."""
    body = await read_json(request, ReplCode)
    outcome = await plane_of(request).code_sessions.run_once(caller_of(request), sandbox_id, body.language, body.code)
    return outcome_response(ReplOutcome.of(body.language, outcome), outcome)


@router.post(
    _SESSIONS,
    status_code=201,
    response_class=Response,
    responses={201: {"model": ReplSession}},
    openapi_extra=takes(CreateReplSession, PARAMETER),
)
@idempotent()
async def open_session(request: Request, sandbox_id: str) -> Response:
    """Open a session: an interpreter that retains its state between cells. At most 8 in a sandbox (429)."""
    body = await read_json(request, CreateReplSession)
    session = await plane_of(request).code_sessions.open(caller_of(request), sandbox_id, body.language)
    return json_response(ReplSession.of(session, sandbox_id), 201)


@router.get(_SESSIONS, response_class=Response, responses={200: {"model": list[ReplSession]}})
async def list_sessions(request: Request, sandbox_id: str) -> Response:
    """The sessions of a sandbox. A hibernated sandbox is woken."""
    found = await plane_of(request).code_sessions.sessions(caller_of(request), sandbox_id)
    return json_response([ReplSession.of(each, sandbox_id) for each in found])


@router.post(
    f"{_SESSION}/run",
    response_class=Response,
    responses={200: {"model": Execution}},
    openapi_extra=takes(RunCell),
)
async def run_cell(request: Request, sandbox_id: str, session_id: str) -> Response:
    """Run a cell; a session runs one at a time. A timeout is an error (500) with `timeout` in it."""
    body = await read_json(request, RunCell)
    code_sessions, caller = plane_of(request).code_sessions, caller_of(request)
    ran = await code_sessions.run(caller, sandbox_id, session_id, body.code, body.timeout_ms, keep=body.checkpoint)
    return await buffered_response(lambda: Execution.of(ran), ran.lease)


@router.post(f"{_SESSION}/interrupt", response_class=Response, responses={200: {"model": Interrupted}})
async def interrupt(request: Request, sandbox_id: str, session_id: str) -> Response:
    """Interrupt the cell that is running, as Ctrl-C does; its `run` answers with the error that this raises."""
    done = await plane_of(request).code_sessions.interrupt(caller_of(request), sandbox_id, session_id)
    return json_response(Interrupted(interrupted=done))


@router.get(f"{_SESSION}/variables", response_class=Response, responses={200: {"model": Variables}})
async def list_variables(request: Request, sandbox_id: str, session_id: str) -> Response:
    """The variables of a Python session, without modules and names that begin with `_`."""
    found = await plane_of(request).code_sessions.variables(caller_of(request), sandbox_id, session_id)
    return json_response(Variables.model_validate({"variables": found}))


@router.delete(_SESSION, status_code=204, response_class=Response)
async def close_session(request: Request, sandbox_id: str, session_id: str) -> Response:
    """End a session and everything that runs in it."""
    await plane_of(request).code_sessions.close(caller_of(request), sandbox_id, session_id)
    return Response(status_code=204)
