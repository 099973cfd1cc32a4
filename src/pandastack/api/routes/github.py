"""GitHub: the workspace's connection, and GitHub's webhooks as they come in."""

from __future__ import annotations

import math

from fastapi import APIRouter, Request, Response

from pandastack.api.models.github import ConnectGitHub, GitHubConnection, GitHubEventTaken
from pandastack.api.models.schema import takes
from pandastack.api.requests import caller_of, json_response, limited, plane_of, read_json
from pandastack.errors import AuthError, RateLimitError
from pandastack.services.github.connections import Connection
from pandastack.services.github.hooks import MOST_BYTES, Incoming

router = APIRouter(prefix="/v1", tags=["github"])


@router.get("/github/connection", response_class=Response, responses={200: {"model": GitHubConnection}})
async def get_github_connection(request: Request) -> Response:
    """The workspace's connection, without its token and secret."""
    return _shown(request, await plane_of(request).github.connections.get(caller_of(request)))


@router.put(
    "/github/connection",
    response_class=Response,
    responses={200: {"model": GitHubConnection}},
    openapi_extra=takes(ConnectGitHub),
)
async def connect_github(request: Request) -> Response:
    """Store a token, which GitHub is asked about first. In place of a former one; the webhook stays."""
    body = await read_json(request, ConnectGitHub)
    return _shown(request, await plane_of(request).github.connect(caller_of(request), body.token), secret=True)


@router.delete("/github/connection", status_code=204, response_class=Response)
async def disconnect_github(request: Request) -> Response:
    """Forget token and webhook."""
    await plane_of(request).github.connections.disconnect(caller_of(request))
    return Response(status_code=204)


@router.post("/webhooks/github", response_class=Response, responses={200: {"model": GitHubEventTaken}})
async def take_github_event(request: Request) -> Response:
    """An event by the webhook of the whole server, signed with the operator's secret. Needs no token."""
    return await _taken(request, None)


@router.post("/github/hooks/{connection_id}", response_class=Response, responses={200: {"model": GitHubEventTaken}})
async def take_github_event_of_workspace(request: Request, connection_id: str) -> Response:
    """An event by the webhook of one workspace, signed with its secret. Needs no token."""
    return await _taken(request, connection_id)


async def _taken(request: Request, connection_id: str | None) -> Response:
    """Peers that have sent too many wrong signatures wait, as those with wrong tokens."""
    failures, peer = request.app.state.failed_logins, request.client.host if request.client else ""
    if seconds := failures.wait(peer):
        raise RateLimitError("too many requests with a wrong signature", retry_after=math.ceil(seconds))
    body = b"".join([piece async for piece in limited(request, MOST_BYTES)])
    try:
        await plane_of(request).github.hooks.receive(Incoming(dict(request.headers), body), connection_id)
    except AuthError:
        failures.take(peer)
        raise
    return json_response(GitHubEventTaken())


def _shown(request: Request, connection: Connection, *, secret: bool = False) -> Response:
    plane = plane_of(request)
    base = plane.settings.public_base_url or str(request.base_url)
    left = plane.github.client.remaining(connection.token)
    return json_response(GitHubConnection.of(connection, base.rstrip("/"), left, secret=secret))
