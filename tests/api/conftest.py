from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from pandastack.api import create_app
from pandastack.cluster import EngineClient, StreamingASGITransport
from pandastack.services import Settings
from tests.cluster.scripted_engine import ScriptedEngine
from tests.store.migrated import migrated_database

SETTINGS = Settings(
    max_json_bytes=96 * 1024,
    max_file_bytes=256 * 1024,
    max_output_bytes=1024,
    keep_alive_seconds=0.05,
    log_poll_seconds=0.01,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return migrated_database(tmp_path)


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    engine, tokens = ScriptedEngine(), list[str]()
    app = create_app(
        EngineClient.in_process(engine.app),
        database_url,
        SETTINGS,
        on_first_token=tokens.append,
    )
    async with app.router.lifespan_context(app):
        headers = {"authorization": f"Bearer {tokens[0]}"}
        transport = StreamingASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as http:
            yield Api(app, http, engine, tokens[0])
