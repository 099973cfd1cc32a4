"""The control plane, put together: its parts and the tasks that run as long as it is open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from pandastack.cluster import EngineClient
from pandastack.errors import PandastackError
from pandastack.services.access.tokens import Access
from pandastack.services.captures.rewind import Rewinding
from pandastack.services.captures.snapshots import Snapshots
from pandastack.services.captures.storage_budget import StorageBudget
from pandastack.services.code.sessions import Repl
from pandastack.services.files.archives import Archives
from pandastack.services.files.console import Consoles
from pandastack.services.files.files import Files
from pandastack.services.files.operations import FileOperations
from pandastack.services.files.scripts import Scripts
from pandastack.services.files.search import Search
from pandastack.services.files.watches import Watches
from pandastack.services.processes.commands import Commands, Streams
from pandastack.services.processes.language_servers import LanguageServers
from pandastack.services.processes.processes import Processes
from pandastack.services.processes.terminals import Terminals
from pandastack.services.records.activity import Activity
from pandastack.services.records.alarm import Alarm
from pandastack.services.records.deadlines import Deadlines
from pandastack.services.records.events import EventLog
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.forks import Forks
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.sandboxes.reaper import Reaper
from pandastack.services.sandboxes.recovery import Recovery
from pandastack.services.sandboxes.sandboxes import Parts, Sandboxes
from pandastack.services.settings import Settings
from pandastack.services.templates.templates import Templates
from pandastack.services.timeline.diffs import Diffs
from pandastack.services.timeline.timeline import Timeline
from pandastack.store import Store, open_store


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Everything a face needs. ``host`` is what the engine said of itself: accelerator, isolation, vmm."""

    settings: Settings
    store: Store
    engine: EngineClient
    access: Access
    registry: Registry
    sandboxes: Sandboxes
    lifecycle: Lifecycle
    snapshots: Snapshots
    timeline: Timeline
    diffs: Diffs
    forks: Forks
    commands: Commands
    processes: Processes
    terminals: Terminals
    language_servers: LanguageServers
    repl: Repl
    files: Files
    file_operations: FileOperations
    archives: Archives
    search: Search
    watches: Watches
    consoles: Consoles
    templates: Templates
    events: EventLog
    host: dict[str, Any]

    async def health(self) -> dict[str, Any]:
        """``{"status": "ok" | "unhealthy", "checks": {part: what it says}}``."""
        checks: dict[str, Any] = {}
        healthy = True
        try:
            engine = await self.engine.health()
            self.host.update({key: engine[key] for key in ("accelerator", "isolation", "vmm") if key in engine})
            checks["engine"] = engine
            healthy = engine.get("status") == "ok"
        except PandastackError as error:
            checks["engine"], healthy = {"status": "unhealthy", "error": error.message}, False
        try:
            await self.store.check()
            checks["store"] = {"status": "ok"}
        except PandastackError as error:
            checks["store"], healthy = {"status": "unhealthy", "error": error.message}, False
        return {"status": "ok" if healthy else "unhealthy", "checks": checks}


@asynccontextmanager
async def open_control_plane(
    engine: EngineClient,
    database_url: str,
    settings: Settings,
    on_first_token: Callable[[str], None] | None = None,
) -> AsyncIterator[ControlPlane]:
    """Open the store, settle what a former run left, and keep reaper, recovery and timeline running inside the block.

    ``on_first_token`` receives the text of the API token that is made when there is none yet.
    """
    async with engine, open_store(database_url) as store:
        events, activity, alarm = EventLog(store), Activity(), Alarm()
        registry, access = Registry(store, events), Access(store)
        deadlines = Deadlines(activity, alarm, settings)
        snapshots = Snapshots(store, engine, events)
        storage_budget = StorageBudget(registry, engine, snapshots, settings)
        rewinding = Rewinding(registry, engine, activity, deadlines, snapshots)
        lifecycle = Lifecycle(registry, engine, activity, deadlines, storage_budget, rewinding)
        parts = Parts(
            registry, engine, activity, alarm, deadlines, lifecycle, snapshots, storage_budget, rewinding, settings
        )
        sandboxes = Sandboxes(parts)
        timeline = Timeline(parts, sandboxes)
        streams, scripts = Streams(settings), Scripts(sandboxes, engine, settings)
        processes = Processes(registry, sandboxes, engine, activity, streams, settings)
        lifecycle.on_awake.append(processes.look)
        recovery = Recovery(parts, sandboxes)
        commands = Commands(sandboxes, engine, activity, streams, settings)
        reaper = Reaper(registry, sandboxes, activity, deadlines, alarm, settings)
        plane = ControlPlane(
            settings=settings,
            store=store,
            engine=engine,
            access=access,
            registry=registry,
            sandboxes=sandboxes,
            lifecycle=lifecycle,
            snapshots=snapshots,
            timeline=timeline,
            diffs=Diffs(parts, sandboxes),
            forks=Forks(parts, sandboxes),
            processes=processes,
            terminals=Terminals(processes, settings),
            language_servers=LanguageServers(processes),
            commands=commands,
            repl=Repl(sandboxes, engine, activity, commands, timeline),
            files=Files(sandboxes, engine),
            file_operations=FileOperations(sandboxes, engine, scripts),
            archives=Archives(sandboxes, engine, scripts),
            search=Search(scripts),
            watches=Watches(sandboxes, engine),
            consoles=Consoles(sandboxes, engine, settings),
            templates=Templates(engine),
            events=events,
            host={},
        )
        await registry.load()
        await recovery.start()
        await plane.health()
        if on_first_token is not None:
            await access.first_token(on_first_token)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recovery.follow)
            tasks.start_soon(reaper.run)
            tasks.start_soon(timeline.run)
            tasks.start_soon(plane.terminals.run)  # before what tells it of terminals
            tasks.start_soon(processes.run)
            yield plane
            tasks.cancel_scope.cancel()
