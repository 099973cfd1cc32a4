"""The public application, called in process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from pandastack.model.caller import Caller
from pandastack.model.forwarded import parse_networks
from pandastack.services import ControlPlane, Settings
from pandastack.services.settings import Networks
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.plane import add_workspace

SETTINGS = Settings(
    max_json_bytes=96 * 1024,
    max_file_bytes=256 * 1024,
    max_output_bytes=1024,
    keep_alive_seconds=0.05,
    database_backups="none",
    webhook_networks=Networks(parse_networks("127.0.0.0/8")),
    webhook_retry_seconds=0.001,
)

UNKNOWN = "/v1/sandboxes/00000000-0000-4000-8000-000000000000"
"""The path of a sandbox that does not exist."""


@dataclass
class Api:
    """The application behind a client with a valid token, and the peer that stands for its engine."""

    app: FastAPI
    http: httpx.AsyncClient
    engine: ScriptedEngine
    token: str

    async def sandbox(self) -> str:
        response = await self.http.post("/v1/sandboxes", json={"template": "base"})
        assert response.status_code == 201, response.text
        return f"/v1/sandboxes/{response.json()['id']}"

    async def another(self, workspace: str) -> dict[str, str]:
        """The headers of a caller in another workspace, which is made."""
        plane: ControlPlane = self.app.state.plane
        await add_workspace(plane, workspace)
        token, _ = await plane.access.create(Caller(workspace, "somebody"), "test", None)
        return {"authorization": f"Bearer {token}"}


Serve = Callable[..., AbstractAsyncContextManager[Api]]


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an error, after checking what holds for all of them."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert isinstance(body["error"], str) and body["error"]
    assert isinstance(body["code"], str)
    return body
