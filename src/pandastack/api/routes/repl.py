"""Code in sandboxes: one piece at a time, or cells in sessions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from pandastack.api import models, render
from pandastack.api.requests import json_response, plane_of, read_json, workspace_of
from pandastack.services.code.guest_answers import Session
from pandastack.services.code.sessions import ONE_SHOT, Ran

router = APIRouter(prefix="/v1", tags=["repl"])

_ONE = "/sandboxes/{sandbox_id}/repl"
_SESSIONS = f"{_ONE}/sessions"
_SESSION = f"{_SESSIONS}/{{session_id}}"


@router.get("/repl/languages", response_class=Response, responses={200: {"model": list[str]}})
async def list_languages(request: Request) -> Response:
    """The languages that `POST …/repl` knows; a sandbox runs those that its template has."""
    return json_response(list(ONE_SHOT))


@router.post(
    _ONE,
    response_class=Response,
    responses={200: {"model": models.ReplOutcome}},
    openapi_extra=models.takes(models.ReplCode),
)
async def run_code(request: Request, sandbox_id: str) -> Response:
    """Run a piece of code by a fresh interpreter; nothing of it is kept."""
    body = await read_json(request, models.ReplCode)
    outcome = await plane_of(request).repl.run_once(workspace_of(request), sandbox_id, body.language, body.code)
    answer = {"language": body.language, "stdout": outcome.stdout, "stderr": outcome.stderr}
    return json_response(answer | {"exit_code": outcome.exit_code, "duration_ms": round(outcome.duration_us / 1000)})


@router.post(
    _SESSIONS,
    status_code=201,
    response_class=Response,
    responses={201: {"model": models.ReplSession}},
    openapi_extra=models.takes(models.CreateReplSession),
)
async def open_session(request: Request, sandbox_id: str) -> Response:
    """An interpreter that keeps its state from cell to cell. At most 8 in a sandbox (429)."""
    body = await read_json(request, models.CreateReplSession)
    session = await plane_of(request).repl.open(workspace_of(request), sandbox_id, body.language)
    return json_response(_session(session, sandbox_id), 201)


@router.get(_SESSIONS, response_class=Response, responses={200: {"model": list[models.ReplSession]}})
async def list_sessions(request: Request, sandbox_id: str) -> Response:
    """The sessions of a sandbox. A hibernated one is woken."""
    found = await plane_of(request).repl.sessions(workspace_of(request), sandbox_id)
    return json_response([_session(each, sandbox_id) for each in found])


@router.post(
    f"{_SESSION}/run",
    response_class=Response,
    responses={200: {"model": models.Execution}},
    openapi_extra=models.takes(models.RunCell),
)
async def run_cell(request: Request, sandbox_id: str, session_id: str) -> Response:
    """Run a cell; those of one session run one after the other. A timeout is an error (500) with `timeout` in it."""
    body = await read_json(request, models.RunCell)
    repl, workspace = plane_of(request).repl, workspace_of(request)
    ran = await repl.run(workspace, sandbox_id, session_id, body.code, body.timeout_ms, keep=body.checkpoint)
    return json_response(_execution(ran))


@router.post(f"{_SESSION}/interrupt", response_class=Response, responses={200: {"model": models.Interrupted}})
async def interrupt(request: Request, sandbox_id: str, session_id: str) -> Response:
    """Interrupt the cell that is running, as Ctrl-C does; its `run` answers with the error that this raises."""
    done = await plane_of(request).repl.interrupt(workspace_of(request), sandbox_id, session_id)
    return json_response({"interrupted": done})


@router.get(f"{_SESSION}/variables", response_class=Response, responses={200: {"model": models.Variables}})
async def list_variables(request: Request, sandbox_id: str, session_id: str) -> Response:
    """What is named in a Python session, without modules and names that begin with `_`."""
    found = await plane_of(request).repl.variables(workspace_of(request), sandbox_id, session_id)
    return json_response({"variables": found})


@router.delete(_SESSION, status_code=204, response_class=Response)
async def close_session(request: Request, sandbox_id: str, session_id: str) -> Response:
    """End a session with all that runs in it."""
    await plane_of(request).repl.close(workspace_of(request), sandbox_id, session_id)
    return Response(status_code=204)


def _session(session: Session, sandbox_id: str) -> dict[str, Any]:
    known = {"id": session.id, "session_id": session.id, "sandbox_id": sandbox_id, "language": session.language}
    return known | {"created_at": render.timestamp(session.created_at), "cells": session.cells}


def _execution(ran: Ran) -> dict[str, Any]:
    fields = asdict(ran.execution)
    del fields["timed_out"]
    answer = fields | {"exit_code": ran.execution.exit}
    return answer | ({"checkpoint_id": ran.checkpoint_id} if ran.checkpoint_id else {})
