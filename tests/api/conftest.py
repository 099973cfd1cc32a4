from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from pandastack.api import create_app
from pandastack.cluster import EngineClient, Engines, StreamingASGITransport
from tests.cluster.scripted_engine import ScriptedEngine
from tests.store.migrated import migrated_database
from tests.support.api import SETTINGS, Api, Serve
from tests.support.documented import Documented, document_of


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return migrated_database(tmp_path)


@pytest.fixture(scope="session")
def described() -> FastAPI:
    """An application that is never opened: what all applications have in common, made once."""
    return create_app(Engines({}), "")


@pytest.fixture(scope="session")
def document(described: FastAPI) -> Mapping[str, Any]:
    return document_of(described)


@pytest.fixture
def serve(database_url: str, described: FastAPI, document: Mapping[str, Any]) -> Serve:
    """Open a server on an engine; a second one, after the first has ended, has the same store."""

    @asynccontextmanager
    async def serve(
        engine: ScriptedEngine, token: str = "", settings: Mapping[str, Any] = MappingProxyType({})
    ) -> AsyncIterator[Api]:
        tokens, undocumented, chosen = [token], list[str](), replace(SETTINGS, **settings)
        app = create_app(
            Engines.local(EngineClient.in_process(engine.app)), database_url, chosen, on_first_token=tokens.append
        )
        # FastAPI analyses a route at its first request, which takes longer than most tests.
        app.router.routes = described.router.routes
        app.openapi_schema = described.openapi()
        async with app.router.lifespan_context(app):
            headers = {"authorization": f"Bearer {tokens[-1]}"}
            transport = StreamingASGITransport(
                Documented(app, document, undocumented.append, [database_url.removeprefix("sqlite:///")])
            )
            async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as http:
                yield Api(app, http, engine, tokens[-1])
        assert undocumented == []

    return serve


@pytest.fixture
async def api(serve: Serve) -> AsyncIterator[Api]:
    async with serve(ScriptedEngine()) as api:
        yield api
