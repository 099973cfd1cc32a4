"""A control plane with a scripted engine and a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
from sqlalchemy import insert

from pandastack.cluster import EngineClient, Engines
from pandastack.model.caller import Caller
from pandastack.services import ControlPlane, Settings, open_control_plane
from pandastack.services.records.spec import NewSandbox
from pandastack.store import open_store, sandboxes
from pandastack.store.sandboxes import SandboxRecord
from pandastack.store.schema import workspaces
from tests.cluster.scripted_engine import ScriptedEngine

WORKSPACE = "default"
CALLER = Caller(WORKSPACE, "me")
OUTSIDER = Caller("other", "you")
BASE = NewSandbox("base")
QUICK = Settings(reaper_interval_seconds=0.05)


@asynccontextmanager
async def running(engine: ScriptedEngine, url: str, settings: Settings = QUICK) -> AsyncIterator[ControlPlane]:
    async with open_control_plane(Engines.local(EngineClient.in_process(engine.app)), url, settings) as plane:
        with anyio.fail_after(20):
            yield plane


async def add_workspace(plane: ControlPlane, name: str) -> None:
    """Have another workspace; so far the product itself makes none."""
    async with plane.store.write() as connection:
        await connection.execute(insert(workspaces), {"id": name, "created_at": 1.0})


async def stored(url: str) -> list[SandboxRecord]:
    """The records of all sandboxes, from the database itself."""
    async with open_store(url) as store, store.read() as connection:
        return await sandboxes.load_all(connection)


async def put(url: str, **values: object) -> str:
    """Write a record of a running sandbox with some fields of the test's own; returns its id."""
    record = replace(SandboxRecord("a" * 36, WORKSPACE, "base", "running", 300, 1.0, 4e9), **values)  # type: ignore[arg-type]
    async with open_store(url) as store, store.write() as connection:
        await sandboxes.add(connection, record)
    return record.id


async def event_types(plane: ControlPlane, sandbox_id: str) -> list[str]:
    return [event.type for event in await plane.events.latest(sandbox_id, None)]


async def used(plane: ControlPlane, sandbox_id: str) -> None:
    """Use a sandbox for a moment."""
    async with plane.sandboxes.use(CALLER, sandbox_id):
        pass


async def until_removed(plane: ControlPlane, sandbox_id: str) -> None:
    async for _ in plane.events.follow(sandbox_id, None, lambda: plane.registry.find(sandbox_id) is not None):
        pass
