from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from pandastack.api import create_app
from pandastack.cluster import EngineClient, StreamingASGITransport
from tests.cluster.scripted_engine import ScriptedEngine
from tests.store.migrated import migrated_database
from tests.support.api import SETTINGS, Api


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
