"""The control plane, put together: its parts and the tasks that run as long as it is open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import anyio

from pandastack.cluster import EngineClient
from pandastack.errors import PandastackError
from pandastack.services.access.idempotency import IdempotencyKeys
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
from pandastack.services.output_budget import OutputBudget
from pandastack.services.processes.commands import Commands
from pandastack.services.processes.idle_watch import IdleWatch
from pandastack.services.processes.language_servers import LanguageServers
from pandastack.services.processes.processes import Processes
from pandastack.services.processes.quota import StreamQuota
from pandastack.services.processes.terminals import Terminals
from pandastack.services.records.activity import Activity
from pandastack.services.records.bus import Bus
from pandastack.services.records.deadlines import Deadlines
from pandastack.services.records.events import EventLog
from pandastack.services.records.registry import Registry
from pandastack.services.sandboxes.endings import Endings
from pandastack.services.sandboxes.forks import Forks
from pandastack.services.sandboxes.lifecycle import Lifecycle
from pandastack.services.sandboxes.reaper import Reaper
from pandastack.services.sandboxes.recovery import Recovery
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.settings import Settings
from pandastack.services.templates.templates import Templates
from pandastack.services.timeline.automatic import AutomaticCheckpoints
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
    idempotency_keys: IdempotencyKeys
    registry: Registry
    activity: Activity
    sandboxes: Sandboxes
    lifecycle: Lifecycle
    snapshots: Snapshots
    timeline: Timeline
    automatic: AutomaticCheckpoints
    diffs: Diffs
    forks: Forks
    commands: Commands
    output_budget: OutputBudget
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
            self.host.update(accelerator=engine.accelerator, isolation=engine.isolation, vmm=engine.vmm)
            checks["engine"] = asdict(engine)
            healthy = engine.status == "ok"
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
    """Open the store, bring in order what the previous run left, and run the tasks of the parts inside the block.

    ``on_first_token`` receives the text of the API token that is made when there is none yet.
    """
    async with engine, open_store(database_url) as store:
        bus, tasks = Bus(), anyio.create_task_group()
        events, activity = EventLog(store), Activity(bus)
        registry, access = Registry(store, events, bus), Access(store)
        deadlines = Deadlines(activity, settings)
        idempotency_keys = IdempotencyKeys(store)
        snapshots = Snapshots(store, engine, events)
        storage_budget = StorageBudget(registry, engine, snapshots, settings)
        rewinding = Rewinding(registry, engine, activity.command_log, snapshots)
        lifecycle = Lifecycle(registry, engine, activity, deadlines, storage_budget, rewinding)
        endings = Endings(registry, engine, activity, lifecycle, snapshots, bus)
        sandboxes = Sandboxes(
            registry, engine, activity, deadlines, lifecycle, endings, snapshots, storage_budget, settings
        )
        timeline = Timeline(registry, activity, lifecycle, sandboxes, snapshots, storage_budget, rewinding)
        automatic = AutomaticCheckpoints(registry, activity, lifecycle, timeline, bus)
        streams, budget = StreamQuota(settings), OutputBudget(settings)
        scripts = Scripts(sandboxes, engine, settings)
        idle_watch = IdleWatch(registry, engine, activity, bus, tasks)
        processes = Processes(registry, sandboxes, engine, activity, streams, idle_watch, settings)
        terminals = Terminals(processes, bus, tasks, settings)
        commands = Commands(sandboxes, engine, activity, streams, budget, settings)
        recovery = Recovery(registry, engine, activity, lifecycle, endings, snapshots)
        reaper = Reaper(registry, lifecycle, endings, activity, deadlines, bus, settings)
        plane = ControlPlane(
            settings=settings,
            store=store,
            engine=engine,
            access=access,
            idempotency_keys=idempotency_keys,
            registry=registry,
            activity=activity,
            sandboxes=sandboxes,
            lifecycle=lifecycle,
            snapshots=snapshots,
            timeline=timeline,
            automatic=automatic,
            diffs=Diffs(registry, engine, snapshots, sandboxes),
            forks=Forks(registry, engine, activity, sandboxes, endings, settings),
            processes=processes,
            terminals=terminals,
            language_servers=LanguageServers(processes),
            commands=commands,
            output_budget=budget,
            repl=Repl(sandboxes, engine, activity, commands, timeline, budget),
            files=Files(sandboxes, engine),
            file_operations=FileOperations(sandboxes, engine, scripts),
            archives=Archives(sandboxes, engine, scripts),
            search=Search(sandboxes, scripts, budget),
            watches=Watches(sandboxes, engine),
            consoles=Consoles(sandboxes, engine, settings),
            templates=Templates(engine),
            events=events,
            host={},
        )
        await registry.load()
        await idempotency_keys.load()
        await recovery.reconcile()
        await plane.health()
        if on_first_token is not None:
            await access.first_token(on_first_token)
        async with tasks:
            for part in (recovery, reaper, automatic, terminals, idle_watch, idempotency_keys):
                await tasks.start(part.run)
            idle_watch.find_all()  # everything that waits for what it finds is listening by now
            yield plane
            tasks.cancel_scope.cancel()
