"""The control plane, put together: its parts and the tasks that run as long as it is open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from pandastack.cluster import EngineClient
from pandastack.errors import PandastackError
from pandastack.services.access import Access
from pandastack.services.activity import Activity
from pandastack.services.alarm import Alarm
from pandastack.services.commands import Commands, Streams
from pandastack.services.deadlines import Deadlines
from pandastack.services.diffs import Diffs
from pandastack.services.events import EventLog
from pandastack.services.files import Consoles, Files
from pandastack.services.forks import Forks
from pandastack.services.language_servers import LanguageServers
from pandastack.services.lifecycle import Lifecycle
from pandastack.services.processes import Processes
from pandastack.services.reaper import Reaper
from pandastack.services.recovery import Recovery
from pandastack.services.registry import Registry
from pandastack.services.repl import Repl
from pandastack.services.rewinding import Rewinding
from pandastack.services.room import Room
from pandastack.services.sandboxes import Parts, Sandboxes
from pandastack.services.settings import Settings
from pandastack.services.snapshots import Snapshots
from pandastack.services.templates import Templates
from pandastack.services.terminals import Terminals
from pandastack.services.timeline import Timeline
from pandastack.services.trees import Trees
from pandastack.services.watches import Watches
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
    trees: Trees
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
        room = Room(registry, engine, snapshots, settings)
        rewinding = Rewinding(registry, engine, activity, deadlines, snapshots)
        lifecycle = Lifecycle(registry, engine, activity, deadlines, room, rewinding)
        parts = Parts(registry, engine, activity, alarm, deadlines, lifecycle, snapshots, room, rewinding, settings)
        sandboxes = Sandboxes(parts)
        timeline = Timeline(parts, sandboxes)
        streams = Streams(settings)
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
            trees=Trees(sandboxes, engine, settings),
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
